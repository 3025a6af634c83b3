"""Hair, beards and glasses: what frames a face."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .head import CENTRE, TOP, outline
from .person import Hair, Person
from .sheet import Array, Sheet, blur, cloud, gauss, step, streaks


class Hairdo(NamedTuple):
    """Hair ready to be laid on a head; all planes [H, W].

    Attributes:
        mask: how much of each place it covers.
        colour: [3, H, W].
        level: the height of its surface.
        bulk: how far the surface has risen to that level, 0 at the hair's edges.
        relief: the locks on it.
    """

    mask: Array
    colour: Array
    level: Array
    bulk: Array
    relief: Array

    def lay(self, sheet: Sheet) -> None:
        """Put the hair on the head drawn on ``sheet``."""
        sheet.height += self.bulk * np.maximum(self.level - sheet.height, 0.02) + self.relief
        # Its colour goes on a little beyond its edges, where it would else blend with that of skin.
        beyond = np.minimum(1.0, 4.0 * blur(self.mask, 0.06, sheet.unit)) * (1.0 - sheet.alpha)
        sheet.paint(np.maximum(self.mask, beyond), self.colour)
        sheet.gloss *= 1.0 - self.mask
        np.maximum(sheet.alpha, self.mask, out=sheet.alpha)


def dress(person: Person, sheet: Sheet) -> Hairdo | None:
    """The hair of ``person`` for a head drawn on ``sheet``; None for the bald."""
    hair = person.hair
    if hair.style == "bald":
        return None
    rng = np.random.default_rng([77, person.seed])
    width = half_width(person, sheet.v)
    swing = hair.wave * np.sin(sheet.v * 9 + rng.uniform(0, 6) + 2.0 * sheet.u)
    fall = step(-sheet.v - 0.1, 1.3)
    # Constant along a strand: strands leave the parting, spread over the dome, and fall.
    across = (sheet.u - hair.part * fall + swing) / (
        np.maximum(width, 0.0) + 0.14
    ) + 0.35 * hair.sweep * fall * sheet.v
    locks = np.clip(streaks(sheet.v * 6 + 40, across * 24), -1.7, 1.7)
    fine = np.clip(streaks(sheet.v * (10 + 30 * hair.curl) + 90, across * 110), -2, 2)
    if hair.curl:
        curls = cloud(rng, sheet.height.shape, (0.1 - 0.045 * hair.curl) * sheet.unit)
        locks = locks * (1 - hair.curl) + np.clip(curls, -1.7, 1.7) * hair.curl
    mask = _cover(person, sheet, width, locks, fine)
    bulk = np.maximum(2.0 * blur(blur(mask, 0.05, sheet.unit), 0.04, sheet.unit) - 1.0, 0.0)
    tone = np.maximum(1.0 + 0.2 * locks + 0.14 * fine, 0.3)
    return Hairdo(
        mask,
        hair.colour.reshape(3, 1, 1) * tone,
        _level(person, sheet, width),
        bulk,
        mask * (0.016 + 0.022 * hair.curl) * locks,
    )


def half_width(person: Person, v: Array) -> Array:
    """The hair's outline: half its width at the levels ``v``, below 0 above its top."""
    hair = person.hair
    t = np.minimum(v - CENTRE, 0.0) / (TOP + hair.top)
    width = (person.half_width + hair.volume) * np.maximum(1.0 - np.abs(t) ** 2.3, 0.0) ** (1 / 2.2)
    if hair.long:
        width = width * (1.0 + 0.12 * step(v - 0.6, 1.2) - 0.16 * step(v - hair.length + 0.1, 0.6))
    return width - (t < -1.0)


def _cover(person: Person, sheet: Sheet, width: Array, locks: Array, fine: Array) -> Array:
    """Where hair is: inside its outline, outside the window of the face, down to its ends."""
    hair, v, x = person.hair, sheet.v, np.abs(sheet.u) / person.half_width
    outer = step(width - np.abs(sheet.u) + (0.012 + 0.035 * hair.curl) * locks, 2.5 * sheet.pixel + 0.02)
    if hair.bun:
        size = 0.34 * hair.bun
        centre = CENTRE - TOP - hair.top - 0.7 * size
        outer = np.maximum(
            outer, step(1.0 - np.hypot(sheet.u / size, (v - centre) / (0.85 * size)) + 0.06 * locks, 0.1)
        )
    hairline = hair.hairline + 0.5 * x**3.2 - hair.recession * 0.26 * gauss(x, 0.55, 0.22)
    ragged, softness = 0.012, 0.16
    if hair.fringe:
        swept = 0.2 * abs(hair.sweep) * sheet.u * np.sign(hair.part)
        hairline = hairline + (0.42 * hair.fringe + swept) * step(0.95 - x, 0.45)
        ragged, softness = 0.03 + 0.03 * hair.fringe, 0.06
    roots = hairline + ragged * locks + 0.3 * softness * fine
    above = step(roots - v, softness)
    if hair.long:
        inner = 0.94 - 0.1 * step(v - 0.35, 0.7) - 0.24 * step(v - 1.1, 0.7)
        sides = step(x - inner + 0.02 * locks, 0.05)
        end = step(hair.length + 0.08 * locks - v, 0.14)
    else:
        inner = 0.9 + 0.1 * step(v - hair.length + 0.12, 0.3)
        sides = step(x - inner + 0.01 * locks, 0.07)
        end = step(hair.length - 0.06 + 0.06 * fine - v, 0.3 if hair.volume < 0.15 else 0.1)
    beside = step(outline(person, sheet) - 0.95, 0.12) * step(0.5 - v, 0.3)
    return outer * np.maximum(above, np.maximum(sides, beside)) * end


def _level(person: Person, sheet: Sheet, width: Array) -> Array:
    """The height of the hair's surface: a dome above, falling back beside the face."""
    t = np.minimum(sheet.v - CENTRE, 0.0) / (TOP + person.hair.top)
    radius = np.abs(sheet.u / np.maximum(width, 0.04)) ** 2.4 + np.abs(t) ** 2.3
    back = 1.0 - 0.7 * step(sheet.v - 0.35, 1.3)
    return (person.depth + 0.06) * np.sqrt(np.maximum(1.0 - radius, 0.0)) * back + 0.05


def sheen(hair: Hair, sheet: Sheet, mask: Array, light: Array) -> Array:
    """The band of light across combed hair, after Kajiya and Kay (1989): [H, W]."""
    smooth = blur(sheet.height, 0.09, sheet.unit)
    slope = np.zeros_like(smooth)
    slope[1:-1] = (smooth[2:] - smooth[:-2]) * np.float32(sheet.unit / 2)
    half = np.array([light[0], light[1], light[2] + 1.0], np.float32)
    half /= np.linalg.norm(half)
    along = half[1] + half[2] * slope
    band = 1.0 - along * along / (1.0 + slope * slope)
    for _ in range(4):
        band *= band
    return band * mask * np.float32(0.14 * (1 - 0.75 * hair.curl))


def draw_beard(person: Person, sheet: Sheet) -> None:
    """Stubble, moustache and beard over the skin of the lower face."""
    hair, mouth = person.hair, person.mouth
    if not (hair.beard or hair.moustache or hair.stubble):
        return
    part = sheet.window(-1.1, 1.1, 0.1, person.chin + 0.2)
    x = np.abs(part.u)
    cheek = mouth - 0.1 - 0.35 * np.clip((x - 0.45) / 0.4, 0, 1.25) ** 1.5
    jaw = step(part.v - cheek, 0.22) * step(outline(person, part) - 0.12, 0.25)
    jaw *= step(np.hypot(part.u / (person.mouth_width * 1.12), (part.v - mouth) / 0.2) - 1.0, 0.3)
    patch = gauss(part.u, 0, 0.09) * gauss(part.v, mouth + 0.24, 0.09)
    lip = mouth - 0.75 * person.upper_lip + 0.5 * x * x
    above = step(person.mouth_width * 1.15 - x, 0.12) * step(lip - part.v, 0.05)
    above *= step(part.v - person.nose_base - 0.075 - 0.25 * x * x, 0.07)
    grain = np.clip(streaks(part.v * 30, part.u * 90 + 11 * np.sin(part.v * 7)), -2, 2)
    part.tint(np.maximum(jaw, 0.8 * above) * hair.stubble * (0.35 + 0.08 * grain), (0.6, 0.62, 0.68))
    cover = np.maximum(
        np.maximum(jaw, patch) * min(1.0, 1.4 * hair.beard), above * min(1.0, 1.4 * hair.moustache)
    )
    cover *= np.clip(0.88 + 0.15 * grain, 0, 0.97)
    part.paint(cover, hair.colour.reshape(3, 1, 1) * (0.8 + 0.16 * grain))
    part.gloss *= 1.0 - 0.9 * cover
    part.height += cover * (0.045 + 0.006 * grain)


def draw_glasses(person: Person, sheet: Sheet) -> None:
    """A pair of glasses: two rims, a bridge, the ends of the temples."""
    if not person.glasses:
        return
    part = sheet.window(-1.1, 1.1, -0.4, 0.5)
    half_u, half_v, power = 0.31, 0.185 + 0.06 * person.glasses, 2.0 + 3.0 * (person.seed % 7) / 6
    thick = 0.02 + 0.014 * person.glasses
    frame = np.zeros_like(part.height)
    for side in (-1, 1):
        x = np.abs((part.u - side * 0.405) / half_u)
        y = np.abs((part.v - 0.05) / half_v)
        ring = (x**power + y**power + 1e-6) ** (1 / power) - 1.0
        np.maximum(frame, step(thick / half_v - 1.6 * np.abs(ring), 0.1), out=frame)
    arch = part.v + 0.02 - 0.05 * (1 - (part.u / 0.1) ** 2)
    bridge = step(0.11 - np.abs(part.u), 0.03) * step(thick - np.abs(arch), 0.03)
    ends = step(np.abs(part.u) - 0.7, 0.03) * step(0.9 * thick - np.abs(part.v + 0.03), 0.03)
    frame = np.maximum(np.maximum(frame, bridge), ends)
    part.paint(frame, person.frame)
    part.gloss += frame * (1.2 - part.gloss)
    part.height += 0.03 * frame
