"""Hair, beards and glasses: what frames a face."""

from __future__ import annotations

import numpy as np

from .head import CENTRE, TOP, outline
from .person import Person
from .sheet import Array, Sheet, blur, cloud, gauss, step, streaks


def draw_hair(person: Person, sheet: Sheet) -> Array:
    """Put hair on the head of ``sheet``; returns how much of each place is hair, [H, W]."""
    rng = np.random.default_rng([77, person.seed])
    width, dome = _shell(person, sheet, rng)
    across = _strands(person, sheet, width, rng)
    locks = streaks(sheet.v * 6 + 40, across * 26)
    fine = streaks(sheet.v * (10 + 30 * person.curl) + 90, across * 110)
    if person.curl:
        curls = cloud(rng, sheet.height.shape, (0.05 + 0.05 * (1 - person.curl)) * sheet.unit)
        locks = locks * (1 - person.curl) + curls * person.curl
    mask = _cover(person, sheet, width, dome, locks)
    if person.bald:
        mask *= 0.0
    bulk = np.maximum(2.0 * blur(blur(mask, 0.05, sheet.unit), 0.04, sheet.unit) - 1.0, 0.0)
    level = _level(person, sheet, width, dome)
    relief = 0.018 + 0.02 * person.curl
    sheet.height += bulk * np.maximum(level - sheet.height, 0.02) + mask * relief * locks
    tone = 1.0 + 0.22 * np.clip(locks, -2, 2) + 0.14 * np.clip(fine, -2, 2)
    colour = person.hair.reshape(3, 1, 1) * np.maximum(tone, 0.25)
    sheet.paint(mask, colour)
    sheet.gloss *= 1.0 - mask
    np.maximum(sheet.alpha, mask, out=sheet.alpha)
    return mask


def _shell(person: Person, sheet: Sheet, rng: np.random.Generator) -> tuple[Array, Array]:
    """The hair's outer shape: half-width by level [H, 1], and 0 to 1 radius field [H, W]."""
    height = TOP + person.top
    v = sheet.v - CENTRE
    up = np.clip(1.0 - np.abs(np.minimum(v, 0) / height) ** 2.4, 0.0, 1.0) ** (1 / 2.3)
    width = (person.half_width + person.volume) * up
    if person.length > 0.6:
        flare = 1.0 + 0.1 * step(sheet.v - 0.7, 1.4) - 0.28 * step(sheet.v - person.length + 0.05, 0.5)
        width = width * flare
    return np.maximum(width, 0.04), np.abs(v / height)


def _strands(person: Person, sheet: Sheet, width: Array, rng: np.random.Generator) -> Array:
    """A coordinate that is constant along a strand: strands leave the parting and fall."""
    swing = person.wave * np.sin(sheet.v * 9 + rng.uniform(0, 6) + 2.0 * sheet.u)
    fall = step(-sheet.v - 0.1, 1.3)
    return (sheet.u - person.part * fall + swing) / (width + 0.12) + 0.35 * person.sweep * fall * sheet.v


def _cover(person: Person, sheet: Sheet, width: Array, dome: Array, locks: Array) -> Array:
    """Where hair is: inside the shell, outside the window of the face, down to its length."""
    edge = 2.5 * sheet.pixel
    top = -TOP - person.top + CENTRE
    ragged = 0.012 + 0.05 * person.curl
    outer = step(width - np.abs(sheet.u) + ragged * locks, edge + 0.02) * step(sheet.v - top - 0.03, 0.05)
    if person.bun:
        centre, size = top - 0.08, 0.36 * person.bun
        ball = np.hypot(sheet.u / size, (sheet.v - centre) / (0.85 * size))
        outer = np.maximum(outer, step(1.0 - ball, 0.1))
    x = np.abs(sheet.u) / person.half_width
    hairline = person.hairline + 0.55 * x**3.2 - person.recession * 0.28 * gauss(x, 0.55, 0.22)
    if person.fringe:
        swept = sheet.u * np.sign(person.part) * 0.16 * abs(person.sweep)
        hairline = hairline + (0.45 * person.fringe * step(0.95 - x, 0.5)) + swept * step(0.9 - x, 0.4)
    above = step(hairline + 0.035 * locks * (1 + person.fringe) - sheet.v, 0.07)
    long = person.length > 0.6
    if long:
        inner = person.half_width * (0.93 - 0.1 * step(sheet.v - 0.3, 0.6) - 0.12 * step(sheet.v - 1.15, 0.5))
        sides = step(np.abs(sheet.u) - inner + 0.02 * locks, 0.05)
        end = step(person.length + 0.07 * locks - sheet.v, 0.12)
    else:
        inner = person.half_width * (0.9 + 0.14 * step(sheet.v - person.length + 0.1, 0.2))
        sides = step(np.abs(sheet.u) - inner + 0.01 * locks, 0.06)
        end = step(person.length + 0.04 * locks - sheet.v, 0.22)
    return outer * np.maximum(above, sides) * end


def _level(person: Person, sheet: Sheet, width: Array, dome: Array) -> Array:
    """The height of the hair's surface: the shell's dome above, falling back beside the face."""
    v = sheet.v - CENTRE
    radius = np.abs(sheet.u / width) ** 2.4 + np.where(v < 0, dome**2.3, 0.0)
    back = 1.0 - 0.7 * step(sheet.v - 0.35, 1.3)
    return (person.depth + 0.06) * np.maximum(1.0 - radius, 0.0) ** 0.5 * back + 0.05


def shine(person: Person, sheet: Sheet, mask: Array, light: Array, key: Array) -> Array:
    """The band of light across combed hair, after Kajiya and Kay: [H, W]."""
    smooth = blur(sheet.height, 0.09, sheet.unit)
    slope = np.gradient(smooth, axis=0) * np.float32(sheet.unit)
    half = np.array([light[0], light[1], light[2] + 1.0], np.float32)
    half /= np.linalg.norm(half)
    along = (half[1] + half[2] * slope) / np.sqrt(1.0 + slope * slope)
    band = np.maximum(1.0 - along * along, 0.0) ** 14
    fine = streaks(sheet.v * 5 + 7, (sheet.u / 1.2) * 90)
    return mask * band * np.clip(0.75 + 0.35 * fine, 0.1, 1.6) * (0.14 * (1 - 0.75 * person.curl))


def draw_beard(person: Person, sheet: Sheet) -> None:
    """Stubble, moustache and beard over the skin of the lower face."""
    if not (person.beard or person.moustache or person.stubble):
        return
    part = sheet.window(-1.2, 1.2, 0.3, 1.7)
    radius = outline(person, part)
    x = np.abs(part.u)
    mouth = person.mouth
    cheek_line = mouth - 0.1 - 0.35 * np.clip((x - 0.45) / 0.4, 0, 1) ** 1.5
    jaw = step(part.v - cheek_line, 0.22) * step(radius - 0.12, 0.25)
    lip = np.hypot(part.u / (person.mouth_width * 1.12), (part.v - mouth) / 0.2)
    around = step(lip - 1.0, 0.3)
    patch = gauss(part.u, 0, 0.09) * gauss(part.v, mouth + 0.24, 0.09)
    upper = (
        step(person.mouth_width * 1.25 - x, 0.12)
        * step(part.v - person.nose_base - 0.07, 0.06)
        * step(mouth - person.upper_lip * 0.9 + 0.06 * (x / 0.4) ** 2 * 2 - part.v, 0.05)
    )
    grain = streaks(part.v * 30, part.u * 100 + 11 * np.sin(part.v * 7))
    dark = person.hair * np.float32(0.75)
    shadow = np.maximum(jaw * around, 0.8 * upper)
    part.tint(shadow * person.stubble * (0.35 + 0.1 * grain), (0.6, 0.62, 0.68))
    hairs = np.clip(0.85 + 0.25 * grain, 0, 1)
    cover = np.clip(
        np.maximum(
            np.maximum(jaw * around, patch) * min(1.0, person.beard * 1.4),
            upper * min(1.0, person.moustache * 1.4),
        )
        * hairs,
        0,
        0.95,
    )
    part.paint(cover, (dark.reshape(3, 1, 1) * np.clip(1 + 0.25 * grain, 0.3, 1.8)).astype(np.float32))
    part.gloss *= 1 - 0.9 * cover
    part.height += cover * (0.04 * max(person.beard, 0.5 * person.moustache) + 0.008 * grain)


def draw_glasses(person: Person, sheet: Sheet) -> None:
    """A pair of glasses: two rims, a bridge, the ends of the temples."""
    if not person.glasses:
        return
    part = sheet.window(-1.1, 1.1, -0.4, 0.5)
    half_u, half_v = 0.31, 0.185 + 0.06 * person.glasses
    power = person.frame_round
    thick = 0.022 + 0.016 * person.glasses
    frame = 0.0
    for side in (-1, 1):
        x = np.abs((part.u - side * 0.405) / half_u)
        y = np.abs((part.v - 0.05) / half_v)
        ring = (x**power + y**power + 1e-6) ** (1 / power) - 1.0
        frame = np.maximum(frame, step(thick / half_v - np.abs(ring) * 1.6, 0.1))
    bridge = step(0.11 - np.abs(part.u), 0.03) * step(
        thick - np.abs(part.v + 0.02 - 0.05 * (1 - (part.u / 0.1) ** 2)), 0.03
    )
    ends = step(np.abs(part.u) - 0.7, 0.03) * step(thick * 0.9 - np.abs(part.v + 0.03), 0.03)
    frame = np.clip(np.maximum(np.maximum(frame, bridge), ends), 0, 1)
    part.paint(frame, person.frame_colour)
    part.gloss += frame * (1.2 - part.gloss)
    part.height += 0.03 * frame
