"""From a person and a shot to a picture, its true box and its true landmarks."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .hair import draw_beard, draw_glasses, draw_hair, shine
from .head import draw_head
from .light import shade
from .person import Person
from .scene import draw_backdrop, draw_body
from .sheet import Array, Sheet, blur
from .shot import Shot

PIVOT_V, PIVOT_Z = 0.6, 0.25  # the head turns about its middle, not about the eyes
EXTENT = (-1.65, 1.65, -2.15, 2.45)  # left, right, top, bottom of the head's sheet


class Portrait(NamedTuple):
    """A rendered photo and what is true of it.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        box: x1, y1, x2, y2 of the face, forehead to chin, in pixels.
        landmarks: float32 [5, 2], left eye, right eye, nose tip, mouth corners, as seen.
    """

    image: Array
    box: tuple[float, float, float, float]
    landmarks: Array


def render(person: Person, rng: np.random.Generator, size: int = 200) -> Portrait:
    """The next portrait of ``person`` that ``rng`` gives, ``size`` pixels square."""
    return take(person, Shot.draw(rng), size, rng)


def take(person: Person, shot: Shot, size: int, rng: np.random.Generator) -> Portrait:
    """The portrait of ``person`` under ``shot``; ``rng`` gives the film's grain."""
    head = Sheet.over(*EXTENT, unit=max(20.0, 0.27 * size))
    draw_head(person, shot, head)
    draw_beard(person, head)
    mask = draw_hair(person, head)
    draw_glasses(person, head)
    pose = Pose(shot, size)
    light = pose.to_head(shot.light)
    lit = shade(head, light, shot.key, shot.ambient, shot.rim)
    lit += (shine(person, head, mask, light, shot.key) * shot.key.reshape(3, 1, 1)) * (
        0.35 + person.hair.reshape(3, 1, 1)
    )
    face, alpha = pose.look(head, lit)

    picture = draw_backdrop(shot, size)
    _stand(person, shot, pose, picture, alpha, size)
    picture += alpha * (face - picture)
    return Portrait(_develop(picture, shot, rng), *_truth(person, shot, pose, head))


class Pose:
    """Where the head stands in the picture: turned by yaw, then pitch, then roll, then scaled."""

    def __init__(self, shot: Shot, size: int) -> None:
        """Of ``shot``, in a picture ``size`` pixels square."""
        self.size = size
        self.unit = shot.scale * size
        self.place = np.array(shot.place) * size
        self.yaw, self.pitch, self.roll = shot.yaw, shot.pitch, shot.roll

    def to_head(self, light: Array) -> Array:
        """A direction in the camera's axes, in the head's."""
        x, y, z = light
        cr, sr = np.cos(self.roll), np.sin(self.roll)
        x, y = cr * x + sr * y, -sr * x + cr * y
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        y, z = cp * y + sp * z, -sp * y + cp * z
        cy, sy = np.cos(self.yaw), np.sin(self.yaw)
        x, z = cy * x - sy * z, sy * x + cy * z
        return np.array([x, y, z], np.float32)

    def project(self, u: Array, v: Array, z: Array) -> Array:
        """Pixels [n, 2] of places on the head."""
        v, z = v - PIVOT_V, z - PIVOT_Z
        x = u * np.cos(self.yaw) + z * np.sin(self.yaw)
        depth = -u * np.sin(self.yaw) + z * np.cos(self.yaw)
        y = v * np.cos(self.pitch) - depth * np.sin(self.pitch) + PIVOT_V
        turned = np.stack(
            [x * np.cos(self.roll) - y * np.sin(self.roll), x * np.sin(self.roll) + y * np.cos(self.roll)], -1
        )
        return turned * self.unit + self.place

    def look(self, head: Sheet, lit: Array) -> tuple[Array, Array]:
        """The head as the camera sees it: colour [3, size, size] and coverage [size, size].

        Each pixel looks for the place (u, v) that projects to it: a few fixed-point steps on a
        smoothed height map, at half the resolution, since places vary slowly from pixel to pixel.
        """
        half = self.size // 2
        grid = (
            np.arange(half, dtype=np.float32) * 2 + 0.5 - self.place[:, None].astype(np.float32)
        ) / np.float32(self.unit)
        gx, gy = grid[0][None, :], grid[1][:, None]
        x = gx * np.float32(np.cos(self.roll)) + gy * np.float32(np.sin(self.roll))
        y = -gx * np.float32(np.sin(self.roll)) + gy * np.float32(np.cos(self.roll)) - np.float32(PIVOT_V)
        smooth = cv2.GaussianBlur(head.height, (0, 0), 0.05 * head.unit)
        cy, sy, cp, sp = (np.float32(f(a)) for a in (self.yaw, self.pitch) for f in (np.cos, np.sin))
        u, v = x / cy, y / cp + np.float32(PIVOT_V)
        left, top = head.u[0, 0], head.v[0, 0]
        for _ in range(5):
            z = cv2.remap(
                smooth,
                (u - left) * head.unit,
                (v - top) * head.unit,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            z -= np.float32(PIVOT_Z)
            u = (x - z * sy) / cy
            v = (y + (z * cy - u * sy) * sp) / cp + np.float32(PIVOT_V)
        maps = cv2.resize(
            cv2.merge([(u - left) * head.unit, (v - top) * head.unit]),
            (self.size, self.size),
            interpolation=cv2.INTER_LINEAR,
        )
        layers = cv2.merge([*lit, head.alpha])
        seen = cv2.remap(
            layers, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0)
        )
        seen = np.ascontiguousarray(seen.transpose(2, 0, 1))
        return seen[:3], seen[3]


def _stand(person: Person, shot: Shot, pose: Pose, picture: Array, alpha: Array, size: int) -> None:
    """Draw the neck and the shoulders into ``picture``, in the shadow of the head."""
    base = pose.project(np.array([0.0]), np.array([person.chin - 0.25]), np.array([0.1]))[0]
    first = int(np.clip(base[1] - 0.9 * pose.unit, 0, size - 8))
    neck = (float(base[0] - pose.place[0]) / pose.unit, float(base[1] - pose.place[1]) / pose.unit)
    coarse = 2 if size >= 160 else 1
    columns = (np.arange(0, size, coarse) - pose.place[0]) / pose.unit
    rows = (np.arange(first, size, coarse) - pose.place[1]) / pose.unit
    body = Sheet(columns, rows, pose.unit / coarse)
    draw_body(person, shot, body, neck)
    lit = shade(body, shot.light, shot.key, shot.ambient, shot.rim)
    layers = cv2.resize(cv2.merge([*lit, body.alpha]), (size, size - first), interpolation=cv2.INTER_LINEAR)
    layers = layers.transpose(2, 0, 1)
    drop = int(0.28 * pose.unit)
    shift = int(-shot.light[0] * 0.3 * pose.unit)
    cast = np.zeros_like(alpha)
    source = alpha[: size - drop]
    cast[drop:] = np.roll(source, shift, axis=1)
    cast = blur(blur(cast, 0.12, pose.unit), 0.12, pose.unit)[first:]
    light = 1.0 - 0.62 * cast
    part = picture[:, first:]
    part += layers[3] * (layers[:3] * light - part)


def _develop(picture: Array, shot: Shot, rng: np.random.Generator) -> Array:
    """Lens and film: blur, grain, and a tone curve whose shoulder keeps light skin from clipping."""
    image = cv2.merge(list(picture))
    size = image.shape[0]
    image = cv2.GaussianBlur(image, (0, 0), max(0.3, shot.softness * size))
    grain = rng.integers(-128, 128, image.shape[:2], np.int8).astype(np.float32)
    image *= np.float32(shot.exposure * 1023 / 4)
    index = np.clip(image, 0, 1023).astype(np.uint16)
    x = np.linspace(0, 4, 1024)
    tone = (1.0 - np.exp(-1.6 * x)) ** (1 / 2.2)
    tone = np.clip(0.5 + (tone - 0.5) * shot.contrast, 0, 1)
    print_ = (tone * 255).astype(np.float32)[index]
    print_ += (grain * np.float32(2 * shot.noise))[..., None]
    return np.clip(print_ + 0.5, 0, 255).astype(np.uint8)


def _truth(
    person: Person, shot: Shot, pose: Pose, head: Sheet
) -> tuple[tuple[float, float, float, float], Array]:
    """The box about forehead, cheeks and chin, and the five landmarks, in pixels."""
    half = person.mouth_width * (1.0 + 0.13 * shot.smile)
    corner = person.mouth - 0.06 * shot.smile
    places = np.array(
        [
            [-person.eye_apart, 0.0],
            [person.eye_apart, 0.0],
            [0.0, person.nose_base - 0.09],
            [-half, corner],
            [half, corner],
            *(
                (s * person.half_width * w, v)
                for s in (-1, 1)
                for w, v in ((0.92, -0.4), (0.98, 0.1), (0.9, 0.6))
            ),
            *((s * 0.2, person.chin - 0.02) for s in (-1, 1)),
            *((s * 0.4, -0.75) for s in (-1, 1)),
        ]
    )
    columns = ((places[:, 0] - head.u[0, 0]) * head.unit).astype(np.float32)
    rows = ((places[:, 1] - head.v[0, 0]) * head.unit).astype(np.float32)
    z = cv2.remap(head.height, columns, rows, cv2.INTER_LINEAR)[:, 0]
    pixels = pose.project(places[:, 0], places[:, 1], z)
    (x1, y1), (x2, y2) = pixels.min(axis=0), pixels.max(axis=0)
    return (float(x1), float(y1), float(x2), float(y2)), pixels[:5].astype(np.float32)
