"""Eyes and brows: most of what makes a face look back."""

from __future__ import annotations

import numpy as np

from .person import Person
from .sheet import Sheet, gauss, step, streaks
from .shot import Shot

IRIS_RADIUS = 0.094
SCLERA = np.array([0.56, 0.52, 0.5], np.float32)
LASH = np.array([0.02, 0.014, 0.012], np.float32)


def draw_eyes(person: Person, shot: Shot, sheet: Sheet) -> None:
    """Both eyes: ball, iris and pupil between the lids, lashes, the crease of the upper lid."""
    for side in (-1, 1):
        centre = side * person.eye_apart
        part = sheet.window(centre - 0.34, centre + 0.34, -0.3, 0.22)
        _draw_eye(person, shot, part, side, centre)


def _draw_eye(person: Person, shot: Shot, part: Sheet, side: int, centre: float) -> None:
    x = (part.u - centre) * (side / person.eye_width)  # -1 at the inner corner, 1 at the outer
    y = part.v + person.eye_tilt * person.eye_width * x
    arc = np.clip(1.0 - x * x, 0.0, 1.0)
    opening = person.eye_opening * shot.lids
    upper = -opening * arc**0.62 * (1.0 - 0.12 * x)
    lower = 0.5 * person.eye_opening * (0.6 + 0.4 * shot.lids) * arc**0.8 * (1.0 + 0.15 * x)
    soft = 2.0 * part.pixel
    between = step(y - upper, soft) * step(lower - y, soft) * step(1.0 - np.abs(x), 0.08)

    _draw_lids(person, part, x, y, upper, lower, arc)
    gaze_u = centre + 0.05 * shot.gaze[0]
    gaze_v = -0.012 + 0.03 * shot.gaze[1]
    radius = np.hypot(part.u - gaze_u, part.v - gaze_v) / IRIS_RADIUS
    ball = np.empty((3, *radius.shape), np.float32)
    white = 1.0 - 0.3 * x * x - 0.25 * step(upper + 0.05 - y, 0.08)
    ball[:] = SCLERA.reshape(3, 1, 1) * (1.0 - 0.25 * person.tone) * white
    ball[0] *= 1.0 + 0.1 * np.exp(-(((x + 0.95) / 0.2) ** 2))
    iris = person.iris.reshape(3, 1, 1) * (
        1.15 + 0.55 * gauss(radius, 0.62, 0.2) + 0.5 * step(part.v - gaze_v, 0.12)
    )
    ball += step(1.0 - radius, 0.3) * (iris * (1.0 - 0.65 * step(radius - 0.82, 0.3)) - ball)
    ball *= 1.0 - 0.96 * step(0.42 - radius, 0.25)
    ball *= 1.0 - 0.45 * step(upper + 0.045 - y, 0.06)
    part.paint(between, ball)
    part.gloss *= 1.0 - between
    glint_u, glint_v = gaze_u + 0.038 * np.sign(shot.light[0]), gaze_v - 0.036
    size = 0.011 + 0.3 * part.pixel
    glint = gauss(part.u, glint_u, size) * gauss(part.v, glint_v, size) * between
    part.paint(np.minimum(1.2 * glint, 1.0), np.array([1.0, 1.0, 1.0], np.float32))


def _draw_lids(
    person: Person,
    part: Sheet,
    x: np.ndarray,
    y: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    arc: np.ndarray,
) -> None:
    """The crease, the lash lines and the wet inner corner."""
    on = step(1.06 - np.abs(x), 0.2)
    if person.crease > 0.05:
        crease = np.exp(-(((y - upper * 1.0 + 0.055 + 0.02 * person.crease) / 0.018) ** 2)) * step(
            1.15 - np.abs(x), 0.5
        )
        part.tint(crease * 0.6 * person.crease, (0.55, 0.42, 0.4))
    lash = 0.012 + 0.022 * person.lashes * np.clip(0.6 + 0.5 * x, 0.2, 1.2) + 0.5 * part.pixel
    band = np.exp(-(((y - upper + 0.006) / lash) ** 2)) * on
    part.paint(band * (0.7 + 0.3 * person.lashes), LASH)
    under = np.exp(-(((y - lower) / (0.012 + 0.4 * part.pixel)) ** 2)) * on
    part.tint(under * (0.45 + 0.3 * person.lashes) * np.clip(0.8 + 0.3 * x, 0, 1), (0.5, 0.4, 0.38))
    corner = np.exp(-(((x + 1.0) / 0.12) ** 2)) * gauss(y, 0.005, 0.02)
    part.tint(corner, (0.8, 0.5, 0.48))


def draw_brows(person: Person, shot: Shot, sheet: Sheet) -> None:
    """Both brows, arched strokes of hair that thin out towards the temples."""
    for side in (-1, 1):
        part = sheet.window(min(side * 0.08, side * 0.85), max(side * 0.08, side * 0.85), -0.55, 0.0)
        inner, outer = person.eye_apart - 1.18 * person.eye_width, person.eye_apart + 1.32 * person.eye_width
        t = (part.u * side - inner) / (outer - inner)  # 0 at the inner end, 1 at the outer
        bend = person.brow_arch * (gauss(t, 0.62, 0.33) - 0.35 * step(t - 0.8, 0.5))
        centre = (
            -person.brow_height
            - bend
            - 0.045 * shot.brows * (1 - 0.3 * t)
            - 0.35 * person.eye_tilt * (t - 0.5) * 0.4
        )
        thickness = person.brow_thickness * (1.0 - 0.55 * np.clip(t, 0, 1) ** 1.6) + 0.3 * part.pixel
        shape = np.exp(-(np.abs((part.v - centre) / thickness) ** 2.5))
        ends = step(t - 0.02, 0.16) * step(1.0 - t, 0.3)
        hairs = 0.85 + 0.15 * streaks(
            (part.v + part.u * side * 1.4) * 18, (part.u * side - part.v * 0.5) * 70 + 20 * side
        )
        colour = person.hair.colour * np.float32(0.55) + np.float32(0.004)
        part.paint(np.clip(shape * ends * hairs, 0, 1) * person.brow_dark, colour)
        part.height += 0.012 * shape * ends
