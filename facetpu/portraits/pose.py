"""Where a head stands in the picture, and how the camera sees it."""

from __future__ import annotations

import cv2
import numpy as np

from .sheet import Array, Sheet
from .shot import Shot

PIVOT_V, PIVOT_Z = 0.6, 0.25  # a head turns about its middle, not about the point between the eyes


class Pose:
    """A head turned by yaw, then pitch, then roll; seen from afar, without perspective."""

    def __init__(self, shot: Shot, size: int) -> None:
        """Of ``shot``, in a picture ``size`` pixels square."""
        self.size = size
        self.unit = shot.scale * size  # pixels a unit
        self.place = np.array(shot.place, np.float32) * size
        yaw, pitch, roll = (_turn(angle) for angle in (shot.yaw, shot.pitch, shot.roll))
        self.yaw, self.pitch, self.roll = yaw, pitch, roll
        about_y = np.array([[yaw[0], 0, yaw[1]], [0, 1, 0], [-yaw[1], 0, yaw[0]]])
        about_x = np.array([[1, 0, 0], [0, pitch[0], -pitch[1]], [0, pitch[1], pitch[0]]])
        about_z = np.array([[roll[0], -roll[1], 0], [roll[1], roll[0], 0], [0, 0, 1]])
        self.rotation = (about_z @ about_x @ about_y).astype(np.float32)

    def to_head(self, direction: Array) -> Array:
        """A direction in the camera's axes, in the head's."""
        return self.rotation.T @ direction

    def project(self, places: Array) -> Array:
        """Pixels [n, 2] of places [n, 3] on the head."""
        pivot = np.array([0.0, PIVOT_V, PIVOT_Z])
        turned = ((places - pivot) @ self.rotation.T)[:, :2]
        return (turned + self._pivot()) * self.unit + self.place

    def look(self, head: Sheet, lit: Array) -> tuple[Array, Array]:
        """The head as the camera sees it: colour [3, size, size] and coverage [size, size].

        Each pixel looks for the place (u, v) that projects to it: a few fixed-point steps on a
        smoothed height map, at half the resolution, since places change slowly across the picture.
        """
        smooth = cv2.GaussianBlur(np.maximum(head.height, np.float32(0.25)), (0, 0), 0.06 * head.unit)
        left, top, unit = head.u[0, 0], head.v[0, 0], np.float32(head.unit)
        (cy, sy), (cp, sp) = self.yaw, self.pitch
        x, y = self._unrolled()
        u, v = x / cy, y / cp + np.float32(PIVOT_V)
        for _ in range(6):
            z = cv2.remap(
                smooth, (u - left) * unit, (v - top) * unit, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            z -= np.float32(PIVOT_Z)
            # Half-way steps: full ones swing about the place where the head's sides fall off steeply.
            u += np.float32(0.6) * ((x - z * sy) / cy - u)
            v += np.float32(0.6) * ((y + (z * cy - u * sy) * sp) / cp + np.float32(PIVOT_V) - v)
        maps = cv2.merge([(u - left) * unit, (v - top) * unit])
        maps = cv2.resize(maps, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        seen = cv2.remap(cv2.merge([*lit, head.alpha]), maps, None, cv2.INTER_LINEAR)
        planes = cv2.split(seen)
        return np.stack(planes[:3]), planes[3]

    def _unrolled(self) -> tuple[Array, Array]:
        """Every second pixel's place in units about the pivot, with the roll undone: x, y [n, n]."""
        pixels = np.arange(0.5, self.size, 2, dtype=np.float32)
        pivot = self._pivot().astype(np.float32)
        x = ((pixels - self.place[0]) / np.float32(self.unit) - pivot[0])[None, :]
        y = ((pixels - self.place[1]) / np.float32(self.unit) - pivot[1])[:, None]
        cos, sin = self.roll
        return x * cos + y * sin, y * cos - x * sin

    def _pivot(self) -> Array:
        """Where the pivot lies in the picture, in units from ``place``: the neck leans with the roll."""
        return PIVOT_V * np.array([-self.roll[1], self.roll[0]])


def _turn(angle: float) -> tuple[np.float32, np.float32]:
    """Its cosine and sine."""
    return np.float32(np.cos(angle)), np.float32(np.sin(angle))
