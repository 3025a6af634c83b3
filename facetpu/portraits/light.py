"""Light on a sheet: key, ambient, cast shadows, highlights."""

from __future__ import annotations

import cv2
import numpy as np

from .sheet import Array, Sheet, blur, step

WRAP = (0.34, 0.18, 0.13)  # light scatters under the skin, red the farthest


def shade(sheet: Sheet, light: Array, key: Array, ambient: Array, rim: float = 0.0) -> Array:
    """The sheet's colour under the light, linear: [3, H, W].

    Args:
        sheet: what to light.
        light: unit vector towards the key light in the sheet's axes.
        key: its colour [3].
        ambient: colour [3] of the light from all around.
        rim: strength of a light from behind; its sign is the side it comes from.
    """
    normal_u, normal_v, normal_z = normals(sheet.height, sheet.unit)
    facing = normal_u * light[0] + normal_v * light[1] + normal_z * light[2]
    lit = 1.0 - 0.8 * shadow(sheet, light)
    open_sky = (0.72 + 0.28 * normal_z - 0.22 * normal_v) * occlusion(sheet)
    half = np.array([light[0], light[1], light[2] + 1.0], np.float32)
    half /= np.linalg.norm(half)
    shine = np.maximum(normal_u * half[0] + normal_v * half[1] + normal_z * half[2], 0.0)
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine
    shine = shine * shine * 0.10 + shine * 0.045
    shine *= sheet.gloss * lit
    edge = 0.0
    if rim:
        edge = np.maximum(np.sign(rim) * normal_u - 0.55, 0.0) * (abs(rim) * 1.6)
    out = np.empty_like(sheet.colour)
    for channel in range(3):
        wrap = WRAP[channel]
        diffuse = np.maximum((facing + wrap) * (1.0 / (1.0 + wrap)), 0.0)
        diffuse *= lit
        diffuse *= key[channel]
        diffuse += open_sky * ambient[channel]
        diffuse += edge
        out[channel] = sheet.colour[channel] * diffuse + shine * key[channel]
    return out


def normals(height: Array, unit: float) -> tuple[Array, Array, Array]:
    """The unit normals of a height map, three planes [H, W]."""
    slope_u = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=unit / 8)
    slope_v = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=unit / 8)
    size = 1.0 / np.sqrt(1.0 + slope_u * slope_u + slope_v * slope_v)
    return -slope_u * size, -slope_v * size, size


def occlusion(sheet: Sheet) -> Array:
    """How open to the sky each place is, from how deep it lies below its surroundings."""
    depth = blur(sheet.height, 0.1, sheet.unit) - sheet.height
    wide = blur(sheet.height, 0.3, sheet.unit) - sheet.height
    return np.clip(1.0 - 2.6 * np.maximum(depth, 0.0) - 1.0 * np.maximum(wide, 0.0), 0.25, 1.0)


def shadow(sheet: Sheet, light: Array) -> Array:
    """Where something stands between a place and the light: the height map stepped towards the light."""
    over = np.full(sheet.height.shape, -1.0, np.float32)
    slope = light[2] / max(float(np.hypot(light[0], light[1])), 0.15)
    direction = light[:2] / max(float(np.hypot(light[0], light[1])), 1e-3)
    for distance in (0.06, 0.11, 0.18, 0.27, 0.4):
        move = np.array(
            [[1, 0, -direction[0] * distance * sheet.unit], [0, 1, -direction[1] * distance * sheet.unit]],
            np.float32,
        )
        moved = cv2.warpAffine(
            sheet.height,
            move,
            sheet.height.shape[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        np.maximum(over, (moved - sheet.height - slope * distance) / (0.35 + distance), out=over)
    return blur(step(over - 0.03, 0.16), 0.025, sheet.unit)
