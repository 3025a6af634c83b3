"""What a portrait is drawn on: planes of height, colour and coverage over face coordinates.

Coordinates are in units of 75 mm: u to the right, v down, the eyes at v = 0, z towards the viewer.
Colours are linear light, 0 to 1, one plane a channel. All is float32.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

Array = np.ndarray


class Sheet:
    """Planes over a grid of face coordinates, ``u`` a row and ``v`` a column so that they broadcast.

    Attributes:
        u: [1, W]; v: [H, 1]; unit: pixels a unit.
        height: [H, W], z in units.
        colour: [3, H, W], what the surface reflects.
        alpha: [H, W], how much of each pixel the thing covers.
        gloss: [H, W], strength of the highlights.
    """

    def __init__(self, u: Array, v: Array, unit: float) -> None:
        """An empty sheet over the columns ``u`` [W] and the rows ``v`` [H]."""
        self.u = np.asarray(u, np.float32)[None, :]
        self.v = np.asarray(v, np.float32)[:, None]
        self.unit = unit
        shape = (self.v.size, self.u.size)
        self.height = np.zeros(shape, np.float32)
        self.colour = np.zeros((3, *shape), np.float32)
        self.alpha = np.zeros(shape, np.float32)
        self.gloss = np.zeros(shape, np.float32)

    @classmethod
    def over(cls, left: float, right: float, top: float, bottom: float, unit: float) -> Sheet:
        """A sheet from ``left`` to ``right`` and ``top`` to ``bottom`` at ``unit`` pixels a unit."""
        return cls(
            np.arange(round((right - left) * unit)) / unit + left,
            np.arange(round((bottom - top) * unit)) / unit + top,
            unit,
        )

    @property
    def pixel(self) -> float:
        """The side of a pixel in units: edges softer than this show no steps."""
        return 1.0 / self.unit

    def copy(self) -> Sheet:
        """A sheet with planes of its own."""
        other = Sheet(self.u[0], self.v[:, 0], self.unit)
        for name in ("height", "colour", "alpha", "gloss"):
            getattr(other, name)[:] = getattr(self, name)
        return other

    def height_at(self, places: Array) -> Array:
        """Heights at places [n, 2], each u and v."""
        at = (places - (self.u[0, 0], self.v[0, 0])) * self.unit
        columns, rows = at.T.astype(np.float32)
        return cv2.remap(self.height, columns, rows, cv2.INTER_LINEAR).ravel()

    def window(self, left: float, right: float, top: float, bottom: float) -> Sheet:
        """The part of this sheet between the four, sharing its planes."""
        columns = slice(*np.searchsorted(self.u[0], (left, right)))
        rows = slice(*np.searchsorted(self.v[:, 0], (top, bottom)))
        part = Sheet.__new__(Sheet)
        part.u, part.v, part.unit = self.u[:, columns], self.v[rows], self.unit
        part.height, part.alpha = self.height[rows, columns], self.alpha[rows, columns]
        part.colour, part.gloss = self.colour[:, rows, columns], self.gloss[rows, columns]
        return part

    def paint(self, mask: Array, colour: Array) -> None:
        """Lay ``colour``, [3] or [3, H, W], over the sheet where ``mask`` is 1."""
        self.colour += mask * (
            colour.reshape(3, -1, 1) - self.colour if colour.ndim == 1 else colour - self.colour
        )

    def tint(self, mask: Array, factor: tuple[float, float, float]) -> None:
        """Multiply the colour by ``factor`` where ``mask`` is 1, by 1 where it is 0."""
        for plane, amount in zip(self.colour, factor, strict=False):
            plane *= 1.0 + mask * (amount - 1.0)

    def hills(self, hills: list[tuple[float, float, float, float, float]]) -> Array:
        """The sum of Gaussian hills (amount, centre u, centre v, spread u, spread v): [H, W].

        Each is the product of a row and a column, so that all of them are one matrix product.
        """
        amount, u, v, spread_u, spread_v = np.array(hills, np.float32).T
        rows = gauss(self.u, u[:, None], spread_u[:, None])
        columns = gauss(self.v, v, spread_v) * amount
        return columns @ rows


def gauss(x: Array, centre: Array | float, spread: Array | float) -> Array:
    """A bell of height 1 about ``centre``."""
    t = (x - centre) / spread
    return np.exp(-0.5 * t * t)


def step(x: Array, soft: float) -> Array:
    """0 where ``x`` is negative, 1 where it is positive, smooth over a band ``soft`` wide."""
    t = np.clip(x * (1.0 / soft) + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blur(plane: Array, radius: float, unit: float) -> Array:
    """A box blur of ``radius`` units, the same on every sheet whatever its scale."""
    side = 2 * max(1, round(radius * unit)) + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REPLICATE)


def cloud(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Smooth noise of spread about 1 whose lumps are ``cell`` pixels wide: [H, W]."""
    height, width = shape
    coarse = rng.standard_normal((int(height / cell) + 3, int(width / cell) + 3), np.float32)
    size = (int(coarse.shape[1] * cell) + 1, int(coarse.shape[0] * cell) + 1)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[:height, :width]


@functools.lru_cache(maxsize=1)
def grain() -> Array:
    """White noise that tiles, softened a little: what strands of hair and cloth are woven from."""
    noise = np.random.default_rng(75).standard_normal((256, 256), np.float32)
    tiled = np.tile(noise, (3, 3))
    soft = cv2.GaussianBlur(tiled, (0, 0), 0.8)[256:512, 256:512]
    return np.ascontiguousarray(soft / soft.std())


def streaks(along: Array, across: Array) -> Array:
    """The grain, looked up at two coordinates in its pixels: small steps along give long streaks."""
    across, along = np.broadcast_arrays(across.astype(np.float32), along.astype(np.float32))
    return cv2.remap(
        grain(),
        np.ascontiguousarray(across),
        np.ascontiguousarray(along),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def linear(*hexes: str) -> Array:
    """Colours written as on the web, as linear light: [n, 3]."""
    rgb = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in hexes], np.float32) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def ramp(palette: Array, t: float) -> Array:
    """The colour at ``t``, 0 to 1, of a palette [n, 3] read as a ramp."""
    place = np.clip(t, 0, 1) * (len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    return palette[low] + (place - low) * (palette[low + 1] - palette[low])
