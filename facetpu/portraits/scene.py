"""What surrounds the head: backdrop, neck and clothes, drawn in the picture's own frame."""

from __future__ import annotations

import cv2
import numpy as np

from .hair import half_width
from .light import shade
from .person import Person
from .pose import Pose
from .sheet import Array, Sheet, blur, cloud, gauss, step, streaks
from .shot import Shot

ROUND, SCOOP, POINTED, SHIRT, ROLLED = range(5)  # necklines


def draw_backdrop(shot: Shot, size: int) -> Array:
    """A room or a garden, out of focus: [3, size, size], linear light."""
    rng = np.random.default_rng(shot.scenery)
    side = size // 2
    ramp = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    angle = rng.uniform(0, np.pi)
    t = np.clip(0.5 + np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None], 0, 1)[..., None]
    near, far = shot.backdrop
    image = (near + t * (far - near)).astype(np.float32)
    for _ in range(int(rng.integers(0, 7))):
        colour = np.clip(shot.backdrop[rng.integers(2)] * rng.uniform(0.35, 1.7), 0, 1).tolist()
        x, y = rng.integers(0, side, 2).tolist()
        if rng.uniform() < 0.5:
            w, h = (rng.uniform(0.04, 0.25, 2) * side).astype(int).tolist()
            cv2.rectangle(image, (x - w, y - h), (x + w, y + h), colour, -1)
        else:
            cv2.circle(image, (x, y), int(rng.uniform(0.03, 0.16) * side), colour, -1, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.02, 0.07)) * side)
    glow = (
        gauss(ramp, rng.uniform(-0.4, 0.4), 0.45)[None] * gauss(ramp, rng.uniform(-0.3, 0.2), 0.45)[:, None]
    )
    image *= (0.55 + 0.5 * glow)[..., None]
    return np.stack(cv2.split(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)))


def draw_body(person: Person, shot: Shot, pose: Pose, alpha: Array, picture: Array) -> None:
    """Draw the hair behind the neck, the neck and the shoulders, in the shadow of the head.

    Args:
        person: whose body.
        shot: its light and clothes.
        pose: of the head.
        alpha: [size, size], where the head will be.
        picture: [3, size, size], drawn upon.
    """
    _draw_back_hair(person, shot, pose, picture)
    base = pose.project(np.array([[0.0, person.chin - 0.25, 0.1]]))[0]
    first = int(np.clip(base[1] - 0.9 * pose.unit, 0, pose.size - 8))
    stride = 2  # cloth and neck are smooth: half the resolution shows no difference
    body = Sheet(
        (np.arange(0, pose.size, stride) - base[0]) / pose.unit,
        (np.arange(first, pose.size, stride) - base[1]) / pose.unit,
        pose.unit / stride,
    )
    _draw_bust(person, shot, body)
    lit = shade(body, shot.light, shot.key, shot.ambient, shot.rim)
    size = (pose.size, pose.size - first)
    *colour, cover = cv2.split(
        cv2.resize(cv2.merge([*lit, body.alpha]), size, interpolation=cv2.INTER_LINEAR)
    )
    dark = 1.0 - 0.62 * _cast(shot, pose, alpha)[first:]
    for plane, paint in zip(picture[:, first:], colour, strict=True):
        plane += cover * (paint * dark - plane)


def _draw_back_hair(person: Person, shot: Shot, pose: Pose, picture: Array) -> None:
    """Long hair behind the neck, in the shade of the head."""
    if not person.hair.long:
        return
    v = np.linspace(0.3, person.hair.length - 0.03, 8)
    half = half_width(person, v) * 0.93
    outline = np.concatenate([np.stack([side * half, v, 0 * v], -1)[::side] for side in (1, -1)])
    mask = np.zeros(picture.shape[1:], np.uint8)
    cv2.fillPoly(mask, [pose.project(outline).round().astype(np.int32)], 255, cv2.LINE_AA)
    colour = person.hair.colour * (0.8 * shot.ambient + 0.12 * shot.key)
    picture += mask.astype(np.float32) / 255 * (colour.reshape(3, 1, 1) - picture)


def _cast(shot: Shot, pose: Pose, alpha: Array) -> Array:
    """The head's shadow on what is below it: [size, size]."""
    shift = np.array([[1, 0, -shot.light[0] * 0.3 * pose.unit], [0, 1, 0.28 * pose.unit]], np.float32)
    return blur(blur(cv2.warpAffine(alpha, shift, alpha.shape[::-1]), 0.12, pose.unit), 0.12, pose.unit)


def _draw_bust(person: Person, shot: Shot, sheet: Sheet) -> None:
    """Neck and torso on an empty ``sheet`` whose origin is where the neck meets the head."""
    man = 0.5 + 0.5 * person.masculine
    x, v = np.abs(sheet.u), sheet.v
    half = (0.49 + 0.12 * man) * (1.0 + 0.1 * (np.clip(v, -1.0, 0.6) - 0.2) ** 2)
    slope = 0.62 + 0.2 * x**1.6 - 0.3 * np.exp(-np.maximum(x - half, 0.0) / 0.16)
    shoulder = slope + 2.2 * np.maximum(x - 1.55 - 0.2 * man, 0.0) ** 2
    torso = step(v - shoulder, 3.0 * sheet.pixel)
    neck = step(half - x, 3.0 * sheet.pixel) * step(v + 0.9, 0.05)
    column = 0.6 * gauss(x / half, 0.0, 0.62) - 0.35 * np.clip(v, 0.0, 1.0)
    depth = np.maximum(v - shoulder, 0.0)
    chest = 0.75 * np.sqrt(np.maximum(1.0 - (x / 2.4) ** 2, 0.0)) * (1.0 - np.exp(-depth / 0.25)) ** 0.7 - 0.1
    # The greater of the two, rounded where they meet.
    sheet.height += 0.5 * (column + chest + np.sqrt((column - chest) ** 2 + 0.02))
    sheet.colour += person.skin.reshape(3, 1, 1) * np.float32(0.94)
    sheet.gloss += 0.35
    sheet.alpha += np.maximum(neck, torso)
    _draw_clothes(shot, sheet, neck, torso)


def _draw_clothes(shot: Shot, sheet: Sheet, neck: Array, torso: Array) -> None:
    """Cloth below the neckline: plain, striped or woven."""
    rng = np.random.default_rng(shot.scenery + 1)
    x, v = np.abs(sheet.u), sheet.v
    width, depth, power = {
        ROUND: (0.72, 0.9, 2.2),
        SCOOP: (0.8, 1.12, 2.0),
        POINTED: (0.62, 1.3, 1.0),
        SHIRT: (0.5, 1.2, 1.0),
        ROLLED: (0.9, 0.3, 2.0),
    }[shot.collar]
    neckline = depth - 0.5 * np.minimum(x / width, 1.3) ** power
    cloth = step(v - neckline, 0.03) * (np.maximum(torso, neck) if shot.collar == ROLLED else torso)
    tone = 1.0 + 0.05 * streaks(v * 60, sheet.u * 60)
    if shot.pattern == 1:
        tone *= 1.0 - 0.3 * step(np.sin(v * 28), 0.6)
    if shot.pattern == 2:
        tone *= 1.0 - 0.12 * step(np.sin(sheet.u * 40), 0.8)
    colour = shot.cloth.reshape(3, 1, 1) * tone
    # Beyond the shoulders too, where the soft edge would else blend with skin.
    bare = neck * (1.0 - torso) * (shot.collar != ROLLED)
    sheet.paint(step(v - neckline, 0.03) * (1.0 - bare), colour)
    sheet.height += cloth * (0.05 + 0.035 * cloud(rng, sheet.height.shape, 0.35 * sheet.unit))
    if shot.collar == SHIRT:
        flaps = _collar(sheet) * torso
        sheet.paint(flaps, np.minimum(colour * np.float32(1.2) + np.float32(0.02), 0.9))
        sheet.height += 0.07 * flaps
    else:
        hem = np.exp(-(((v - neckline - 0.05) / 0.05) ** 2)) * cloth
        sheet.height += 0.03 * hem
    sheet.gloss *= 1.0 - 0.9 * cloth


def _collar(sheet: Sheet) -> Array:
    """The two flaps of a shirt's collar."""
    mask = np.zeros(sheet.height.shape, np.uint8)
    flap = np.array([(0.66, 0.22), (0.08, 0.8), (0.3, 1.1), (0.82, 0.62)])
    for side in (-1, 1):
        pixels = (flap * (side, 1) - (sheet.u[0, 0], sheet.v[0, 0])) * sheet.unit
        cv2.fillPoly(mask, [pixels.round().astype(np.int32)], 255, cv2.LINE_AA)
    return mask.astype(np.float32) / 255
