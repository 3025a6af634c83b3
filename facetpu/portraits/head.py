"""The head without its hair: its shape, its skin, ears, nose and mouth."""

from __future__ import annotations

import numpy as np

from .eyes import draw_brows, draw_eyes
from .person import Person
from .sheet import Array, Sheet, cloud, gauss, step
from .shot import Shot

CENTRE = 0.1  # v of the widest level of the face
TOP = 1.38  # from there to the top of the skull


def draw_skull(person: Person, sheet: Sheet) -> None:
    """Shape and colour a head without features on an empty ``sheet``: its outline, ears and skin."""
    radius = outline(person, sheet)
    sheet.height += person.depth * np.maximum(1.0 - radius, 0.0) ** 0.42
    sheet.alpha += step(1.0 - radius, 3.5 * sheet.pixel)
    _draw_ears(person, sheet)
    _draw_skin(person, sheet)


def draw_face(person: Person, shot: Shot, sheet: Sheet) -> None:
    """Give the head on ``sheet`` the features of ``person``, with the expression of ``shot``."""
    # The hills fade out at the head's outline, where the height falls to 0.
    sheet.height += sheet.hills(_bumps(person, shot)) * np.minimum(1.0, 3.0 * sheet.height)
    draw_eyes(person, shot, sheet)
    draw_brows(person, shot, sheet)
    _draw_nostrils(person, sheet.window(-0.4, 0.4, 0.4, 0.95))
    _draw_mouth(person, shot, sheet.window(-0.65, 0.65, person.mouth - 0.35, person.mouth + 0.4))


def outline(person: Person, sheet: Sheet) -> Array:
    """How far out each place lies: 0 in the middle of the face, 1 on its outline: [H, W]."""
    v = sheet.v - CENTRE
    width = person.half_width * (1.0 - (1.0 - person.jaw / 0.88) * step(v - 0.48, 1.0))
    width = width * (1.0 - 0.06 * step(-v - 0.6, 1.0))
    down = np.where(v < 0, np.abs(v / TOP) ** 2.5, np.abs(v / (person.chin - CENTRE)) ** person.squareness)
    return (np.abs(sheet.u) / width) ** 2.3 + down


def _bumps(person: Person, shot: Shot) -> list[tuple[float, float, float, float, float]]:
    """The relief of the face as hills: amount, centre u and v, spread u and v."""
    p, smile = person, max(shot.smile, 0.0)
    tip, width, mouth = p.nose_base - 0.09, p.nose_width, p.mouth
    rise, base = p.nose_prominence, p.nose_base
    ridge = 0.028 + 0.03 * max(p.masculine, 0)
    hills = [
        # Forehead and the root of the nose
        (0.05, 0.0, -0.62, 0.42, 0.22),
        (0.06 + 0.08 * p.nose_bridge, 0.0, -0.08, 0.09, 0.17),
        # The nose: bridge, tip, and the cut under it
        (rise * (0.42 + 0.1 * p.nose_bridge), 0.0, base - 0.36, 0.11, 0.2),
        (rise * 0.72, 0.0, tip, p.nose_tip, 0.115),
        (rise * 0.12, 0.0, tip + 0.01, p.nose_tip * 0.75, 0.07),
        (-0.05, 0.0, base + 0.09, width * 0.8, 0.045),
        # Upper lip: the groove above it, the lips, the dent under them
        (-0.018, 0.0, base + 0.14, 0.03, 0.06),
        (0.06, 0.0, mouth - 0.01, 0.26, 0.15),
        (0.45 * p.upper_lip, 0.0, mouth - 0.055, 0.17, 0.035),
        (0.55 * p.lower_lip, 0.0, mouth + 0.065, 0.15, 0.04),
        (-0.045, 0.0, mouth + 0.19, 0.2, 0.05),
        # Chin
        (p.chin_point + 0.02, 0.0, p.chin - 0.26, 0.17 + 0.05 * max(p.masculine, 0), 0.13),
        (-0.02 * max(p.masculine, 0), 0.0, p.chin - 0.24, 0.025, 0.07),
    ]
    for side in (-1.0, 1.0):
        eye = side * p.eye_apart
        hills += [
            (ridge, eye * 0.85, -p.brow_height + 0.02, 0.2, 0.07),
            (-p.socket, eye * 0.98, -0.03, 0.22, 0.14),
            (-0.35 * p.socket, side * 0.21, -0.03, 0.07, 0.1),
            (0.085, eye, 0.0, 0.135, 0.1),
            (-0.012 - 0.02 * p.age, eye * 0.92, 0.17, 0.15, 0.03),
            (0.42 * rise, side * width * 0.72, base - 0.055, 0.065, 0.075),
            (-0.05, side * width * 1.2, base - 0.04, 0.04, 0.08),
            (p.cheekbones + 0.01, side * 0.56, 0.3, 0.2, 0.15),
            (p.cheeks, side * 0.5, 0.78, 0.2, 0.24),
            (0.07 * smile, side * 0.47, 0.47, 0.15, 0.13),
            (-(0.012 + 0.03 * p.age + 0.03 * smile), side * (width + 0.1), base + 0.04, 0.045, 0.09),
            (
                -(0.012 + 0.025 * p.age + 0.035 * smile),
                side * (p.mouth_width + 0.055),
                mouth - 0.08,
                0.045,
                0.09,
            ),
            (-0.022, side * (p.mouth_width * (1 + 0.13 * smile) + 0.02), mouth - 0.07 * smile, 0.035, 0.035),
            (-0.05, side * 0.84, -0.35, 0.12, 0.22),
        ]
    return hills


def _draw_ears(person: Person, sheet: Sheet) -> None:
    """An ear at each side, with its rim and its hollow; they lie under the face."""
    for side in (-1, 1):
        centre = side * (person.half_width * 0.985 + 0.015)
        part = sheet.window(centre - 0.25, centre + 0.25, -0.25, 0.75)
        x = (part.u - centre) * side / 0.115
        y = (part.v - 0.2) / (0.31 * person.ears)
        radius = (x - 0.25 * y * np.abs(y) + 0.25 * y) ** 2 + y * y
        ear = step(1.0 - radius, 10.0 * part.pixel) * (1.0 - part.alpha)
        rim = np.exp(-(((radius - 0.72) / 0.25) ** 2))
        part.height += ear * (0.16 + 0.07 * rim - 0.05 * gauss(x, 0.1, 0.35) * gauss(y, 0.1, 0.4))
        part.alpha += ear


def _draw_skin(person: Person, sheet: Sheet) -> None:
    """The skin of head and ears: base tone, ruddy and dark places, mottling, freckles, moles."""
    rng = np.random.default_rng([76, person.seed])
    sheet.colour += person.skin.reshape(3, 1, 1)
    sheet.gloss += 0.55 + sheet.hills(
        [(0.5, 0, 0.4, 0.12, 0.3), (0.35, 0, -0.6, 0.4, 0.2), (-0.2, 0, 1.0, 0.6, 0.3)]
    )
    red = [
        (0.5, 0.0, person.nose_base - 0.1, 0.15, 0.12),
        (0.12, 0, -0.6, 0.5, 0.3),
        (0.25, 0, person.chin - 0.2, 0.2, 0.15),
    ]
    dark = []
    for side in (-1, 1):
        eye = side * person.eye_apart
        red += [
            (0.75, side * 0.55, 0.48, 0.2, 0.2),
            (0.9, side * (person.half_width + 0.05), 0.2, 0.1, 0.25),
            (0.35, eye, -0.1, 0.2, 0.08),
        ]
        dark += [
            (0.4 + 0.3 * person.age, eye * 0.9, 0.13, 0.15, 0.06),
            (0.5, side * 0.235, 0.0, 0.05, 0.08),
            (0.35, eye, -0.12, 0.2, 0.06),
        ]
    mottle = (
        cloud(rng, sheet.height.shape, 0.22 * sheet.unit) * 0.03
        + cloud(rng, sheet.height.shape, 0.06 * sheet.unit) * 0.015
    )
    sheet.tint(sheet.hills(red) * person.ruddy + mottle * 2, (0.99, 0.78, 0.76))
    sheet.tint(sheet.hills(dark), (0.8, 0.72, 0.74))
    sheet.colour *= 1.0 + mottle
    if person.freckles:
        spots = cloud(rng, sheet.height.shape, 0.032 * sheet.unit)
        where = sheet.hills([(1.0, 0, 0.32, 0.5, 0.22), (0.4, 0, -0.5, 0.5, 0.3)])
        sheet.tint(step(spots - 1.1, 0.8) * where * person.freckles, (0.72, 0.56, 0.42))
    for u, v in person.moles.tolist():
        part = sheet.window(u - 0.1, u + 0.1, v - 0.1, v + 0.1)
        part.tint(gauss(part.u, u, 0.016) * gauss(part.v, v, 0.016), (0.3, 0.2, 0.17))


def _draw_nostrils(person: Person, part: Sheet) -> None:
    """The two nostrils and the shade in the creases of the wings."""
    base, width = person.nose_base, person.nose_width
    holes = [(0.68, side * width * 0.46, base + 0.012, width * 0.19, 0.02) for side in (-1, 1)]
    creases = [(0.45, side * width * 1.08, base - 0.03, 0.022, 0.05) for side in (-1, 1)]
    part.tint(np.minimum(part.hills(holes), 1.0), (0.22, 0.14, 0.12))
    part.tint(part.hills(creases), (0.62, 0.5, 0.48))


def _draw_mouth(person: Person, shot: Shot, part: Sheet) -> None:
    """Lips about a line that a smile bends, parted over teeth where the mouth is open."""
    smile = shot.smile
    half = person.mouth_width * (1.0 + 0.13 * smile)
    x = np.clip(part.u / half, -1.0, 1.0)
    arc = 1.0 - x * x
    inside = step(1.0 - np.abs(part.u / half), 5.0 * part.pixel)
    gap = 0.1 * shot.open_mouth * arc**0.8
    line = (
        person.mouth
        + smile * 0.11 * (arc - 0.65)
        + 0.012 * np.cos(np.pi * 2 * np.clip(x, -0.5, 0.5)) * person.bow
    )
    upper_edge = line - gap * 0.35
    lower_edge = line + gap * 0.65
    bow = 1.0 - 0.55 * person.bow * gauss(x, 0.0, 0.13)
    thin = 1.0 - 0.18 * max(smile, 0.0)
    top = upper_edge - thin * person.upper_lip * 1.25 * arc**0.75 * (0.75 + 0.45 * np.exp(-x * x * 6)) * bow
    bottom = lower_edge + thin * person.lower_lip * 1.2 * arc**0.65
    soft = 0.02 + 1.5 * part.pixel
    upper = step(part.v - top, soft) * step(upper_edge - part.v, soft) * inside
    lower = step(part.v - lower_edge, soft) * step(bottom - part.v, soft) * inside
    red = 0.45 + 0.5 * person.lip_red
    part.tint(upper * red, (0.72, 0.42, 0.42))
    part.tint(lower * red, (0.86, 0.5, 0.49))
    part.gloss += lower * (0.5 + 0.7 * person.lip_red) * gauss(part.v, bottom - 0.045, 0.03)
    part.height += 0.012 * (lower + upper)
    opening = step(part.v - upper_edge, soft) * step(lower_edge - part.v, soft) * inside * (gap > 0.01)
    teeth = step(upper_edge + 0.085 - part.v, 0.03) * (1.0 - 0.75 * np.abs(x) ** 3)
    dark = np.array([0.05, 0.016, 0.014], np.float32)
    ivory = np.array([0.66, 0.6, 0.52], np.float32)
    part.paint(opening, dark.reshape(3, 1, 1) + teeth * (ivory - dark).reshape(3, 1, 1) * 0.9)
    part.height -= 0.05 * opening
    seam = np.exp(-(((part.v - line) / (0.013 + part.pixel * 0.5)) ** 2)) * step(
        1.04 - np.abs(part.u / half), 0.12
    )
    part.tint(seam * (gap <= 0.01) * 0.9, (0.38, 0.2, 0.2))
    corners = [
        (0.6, side * half, line.min() if smile > 0 else person.mouth - 0.07 * smile, 0.03, 0.022)
        for side in (-1, 1)
    ]
    part.tint(part.hills(corners), (0.5, 0.36, 0.34))
