"""From a person to pictures, each with its true box and its true landmarks."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .hair import draw_beard, draw_glasses, dress, sheen
from .head import draw_face, draw_skull
from .light import shade
from .person import Person
from .pose import Pose
from .scene import draw_backdrop, draw_body
from .sheet import Array, Sheet
from .shot import Shot

EXTENT = (-1.65, 1.65, -2.15, 2.45)  # left, right, top and bottom of a head's sheet


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
    return Sitter(person, size).portrait(Shot.draw(rng), rng)


class Sitter:
    """A person in the studio: what does not change between portraits is drawn once."""

    def __init__(self, person: Person, size: int = 200) -> None:
        """``person``, for pictures ``size`` pixels square."""
        self.person = person
        self.size = size
        self.skull = Sheet.over(*EXTENT, unit=max(20.0, 0.27 * size))
        draw_skull(person, self.skull)
        self.hairdo = dress(person, self.skull)

    def portrait(self, shot: Shot, rng: np.random.Generator) -> Portrait:
        """The portrait under ``shot``; ``rng`` gives the grain of the film."""
        pose = Pose(shot, self.size)
        head = self.skull.copy()
        draw_face(self.person, shot, head)
        draw_beard(self.person, head)
        if self.hairdo:
            self.hairdo.lay(head)
        draw_glasses(self.person, head)
        light = pose.to_head(shot.light)
        lit = shade(head, light, shot.key, shot.ambient, shot.rim)
        if self.hairdo:
            band = sheen(self.person.hair, head, self.hairdo.bulk, light)
            lit += band * (shot.key * (0.35 + self.person.hair.colour)).reshape(3, 1, 1)
        face, alpha = pose.look(head, lit)

        picture = draw_backdrop(shot, self.size)
        draw_body(self.person, shot, pose, alpha, picture)
        picture += alpha * (face - picture)
        return Portrait(_develop(picture, shot, rng), *_truth(self.person, shot, pose, head))


def _develop(picture: Array, shot: Shot, rng: np.random.Generator) -> Array:
    """Lens and film: blur, grain, and a tone curve whose shoulder keeps light skin from clipping."""
    image = cv2.merge(list(picture))
    image = cv2.GaussianBlur(image, (0, 0), max(0.3, shot.softness * len(image)))
    steps, brightest = 1024, 4.0
    exposure = np.float32(shot.exposure * (steps - 1) / brightest)
    light = np.linspace(0, brightest, steps)
    tone = (1.0 - np.exp(-1.6 * light)) ** (1 / 2.2)
    curve = (0.5 + (tone - 0.5) * shot.contrast).astype(np.float32) * 255
    image = curve[np.minimum(image * exposure, steps - 1).astype(np.uint16)]
    grain = rng.integers(-128, 128, image.shape[:2], np.int8).astype(np.float32)
    image += (grain * np.float32(2 * shot.noise))[..., None]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _truth(
    person: Person, shot: Shot, pose: Pose, head: Sheet
) -> tuple[tuple[float, float, float, float], Array]:
    """The box about forehead, cheeks and chin, and the five landmarks, in pixels."""
    half = person.mouth_width * (1.0 + 0.13 * shot.smile)
    corner = person.mouth - 0.07 * shot.smile
    landmarks = [
        (-person.eye_apart, 0.0),
        (person.eye_apart, 0.0),
        (0.0, person.nose_base - 0.09),
        (-half, corner),
        (half, corner),
    ]
    edge = [(0.4, -0.75), (0.2, person.chin - 0.02)]
    edge += [(share * person.half_width, v) for share, v in ((0.92, -0.4), (0.98, 0.1), (0.9, 0.6))]
    places = np.array(landmarks + edge + [(-u, v) for u, v in edge], np.float32)
    pixels = pose.project(np.column_stack([places, head.height_at(places)]))
    (x1, y1), (x2, y2) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return (x1, y1, x2, y2), pixels[:5].astype(np.float32)
