"""What stands around the head: the backdrop, the neck and the clothes, drawn in the picture's frame."""

from __future__ import annotations

import cv2
import numpy as np

from .person import Person
from .sheet import Array, Sheet, cloud, gauss, step, streaks
from .shot import Shot


def draw_backdrop(shot: Shot, size: int) -> Array:
    """A room or a garden out of focus: [3, size, size], linear light."""
    rng = np.random.default_rng(shot.scenery)
    angle = rng.uniform(0, np.pi)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    t = np.clip(0.5 + np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None], 0, 1)
    a, b = shot.backdrop
    small = np.empty((size, size, 3), np.float32)
    small[:] = a + t[..., None] * (b - a)
    for _ in range(int(rng.integers(0, 7))):
        colour = np.clip(shot.backdrop[rng.integers(2)] * rng.uniform(0.35, 1.7), 0, 1).tolist()
        u, v = rng.integers(0, size, 2).tolist()
        if rng.uniform() < 0.5:
            w, h = (rng.uniform(0.08, 0.5, 2) * size).astype(int).tolist()
            cv2.rectangle(small, (u - w // 2, v - h // 2), (u + w // 2, v + h // 2), colour, -1)
        else:
            cv2.circle(small, (u, v), int(rng.uniform(0.03, 0.16) * size), colour, -1, cv2.LINE_AA)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.02, 0.07)) * size)
    lamp = (
        gauss(ramp, rng.uniform(-0.4, 0.4), 0.45)[None] * gauss(ramp, rng.uniform(-0.3, 0.2), 0.45)[:, None]
    )
    small *= (0.55 + 0.5 * lamp)[..., None]
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def draw_body(person: Person, shot: Shot, sheet: Sheet, neck: tuple[float, float]) -> None:
    """Neck, shoulders and clothes on ``sheet``; ``neck`` is where the neck meets the head, (u, v)."""
    rng = np.random.default_rng(shot.scenery + 1)
    man = 0.5 + 0.5 * person.masculine
    u = sheet.u - neck[0] * np.clip(1.5 - 0.5 * (sheet.v - neck[1]), 0.6, 1.0)
    v = sheet.v - neck[1]
    x = np.abs(u)
    half = (0.5 + 0.11 * man) * (1.0 + 0.1 * (np.clip(v, -1, 0.6) - 0.2) ** 2)
    column = np.maximum(1.0 - (x / half) ** 2, 0.0) ** 0.5 * 0.55
    shoulder = (
        0.62
        + 0.2 * x**1.6
        - 0.3 * np.exp(-np.maximum(x - half, 0.0) / 0.16)
        + np.maximum(x - 1.55 - 0.2 * man, 0.0) ** 2 * 2.2
    )
    torso = step(v - shoulder, 2.5 * sheet.pixel)
    chest = (
        0.75
        * np.maximum(1.0 - (x / 2.4) ** 2, 0.0) ** 0.5
        * (1.0 - np.exp(-np.maximum(v - shoulder, 0.0) / 0.22)) ** 0.6
    )
    skin_alpha = step(half - x, 2.5 * sheet.pixel) * step(v + 0.9, 0.05)
    sheet.height += np.maximum(column * skin_alpha, chest * torso)
    sheet.colour += person.skin.reshape(3, 1, 1) * np.float32(0.94)
    sheet.gloss += 0.35
    cords = [(0.03, side * 0.3, 0.3, 0.06, 0.3) for side in (-1, 1)]
    tilt = np.array(
        [sheet.hills([(a, c + neck[0] - 0.12 * c * 2, d + neck[1] + 0.15, e, f) for a, c, d, e, f in cords])]
    )[0]
    sheet.height += tilt
    sheet.alpha += np.maximum(skin_alpha, torso)
    _draw_clothes(shot, sheet, u, v, x, torso, half, rng)


def _draw_clothes(
    shot: Shot,
    sheet: Sheet,
    u: Array,
    v: Array,
    x: Array,
    torso: Array,
    half: Array,
    rng: np.random.Generator,
) -> None:
    """Cloth below a round, deep, pointed or shirt neckline, plain, striped or woven."""
    width, depth, power = ((0.72, 0.9, 2.2), (0.8, 1.12, 2.0), (0.62, 1.35, 1.0), (0.5, 1.25, 1.0))[
        shot.collar
    ]
    neckline = depth - 0.5 * np.minimum(x / width, 1.3) ** power
    cloth = torso * step(v - neckline, 0.03)
    colour = np.empty_like(sheet.colour)
    colour[:] = shot.cloth.reshape(3, 1, 1)
    weave = streaks(v * 60, u * 60)
    tone = 1.0 + 0.05 * weave
    if shot.pattern == 1:
        tone = tone * (
            1.0
            + 0.5 * step(np.sin(v * 28), 0.6) * (shot.cloth.mean() < 0.3)
            - 0.3 * step(np.sin(v * 28), 0.6)
        )
    if shot.pattern == 2:
        tone = tone * (1.0 - 0.12 * step(np.sin(u * 40), 0.8))
    sheet.paint(cloth, colour * tone.astype(np.float32))
    folds = cloud(rng, sheet.height.shape, 0.35 * sheet.unit)
    sheet.height += cloth * (0.05 + 0.035 * folds)
    hem = np.exp(-(((v - neckline - 0.05) / 0.05) ** 2)) * torso
    sheet.height += 0.03 * hem
    if shot.collar == 3:
        flap = (
            step(0.34 - np.abs(v - neckline - 0.02), 0.05)
            * step(x - 0.12, 0.03)
            * step(half + 0.28 - x, 0.05)
            * torso
        )
        sheet.paint(flap * 0.9, np.minimum(colour * np.float32(1.25) + np.float32(0.03), 0.9))
        sheet.height += 0.05 * flap
    sheet.gloss *= 1.0 - 0.9 * cloth
