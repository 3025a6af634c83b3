"""What changes from portrait to portrait: pose, expression, light, camera, clothes and backdrop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sheet import Array, linear

BACKDROPS = linear(
    "#8fa3ad", "#c9c3b8", "#7d8f7a", "#b08d74", "#4f5d73", "#d8cdbf", "#5e6b64",
    "#93a8c2", "#a7a2b8", "#6d5a52", "#c7b79b", "#3f4a54"
)  # fmt: skip
CLOTHES = linear(
    "#20283a", "#e9e4da", "#7b2f34", "#3f5d4a", "#c9a24f", "#8aa1b8", "#2a2a2c", "#b5654a",
    "#5b4a72", "#9db3a0", "#d9b8b0", "#4b6f8f"
)  # fmt: skip


class Shot(NamedTuple):
    """One portrait's circumstances. Angles in radians, lengths in units of 75 mm."""

    yaw: float
    pitch: float
    roll: float
    scale: float  # a unit's share of the picture's side
    place: tuple[float, float]  # of the point between the eyes, shares of the side
    # Expression
    smile: float
    open_mouth: float
    brows: float
    lids: float
    gaze: tuple[float, float]
    # Light
    light: Array  # towards the key light, camera's axes, unit length
    key: Array  # its colour
    ambient: Array
    rim: float
    # Camera
    exposure: float
    contrast: float
    softness: float  # blur's sigma, share of the picture's side
    noise: float
    # What surrounds the face
    backdrop: Array  # two colours [2, 3]
    scenery: int
    cloth: Array
    collar: int
    pattern: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Shot:
        """The circumstances of the next portrait from ``rng``."""

        def spread(sd: float, limit: float = 2.2) -> float:
            return float(sd * np.clip(rng.normal(), -limit, limit))

        azimuth, elevation = spread(0.6), 0.55 + spread(0.22)
        light = np.array(
            [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        )
        warmth = spread(0.05)
        warm = np.array([1 + warmth, 1.0, 1 - 1.3 * warmth])
        cool = np.array([1 - 0.5 * warmth, 1.0, 1 + 0.7 * warmth])
        mirth = float(np.clip(rng.normal(0.5, 0.35), -0.2, 1.1))
        return cls(
            yaw=spread(0.17),
            pitch=spread(0.08),
            roll=spread(0.06),
            scale=float(rng.uniform(0.205, 0.26)),
            place=(0.5 + spread(0.02), 0.455 + spread(0.02)),
            smile=mirth,
            open_mouth=float(max(0.0, rng.normal(-0.1, 0.5)) * (mirth > 0.2)),
            brows=spread(0.35),
            lids=float(np.clip(rng.normal(1.0, 0.1) - 0.12 * max(mirth, 0), 0.55, 1.15)),
            gaze=(spread(0.25), spread(0.12)),
            light=light.astype(np.float32),
            key=(float(rng.uniform(0.62, 0.95)) * warm).astype(np.float32),
            ambient=(float(rng.uniform(0.26, 0.42)) * cool).astype(np.float32),
            rim=float(rng.uniform(0, 0.5) * rng.choice([-1, 0, 1])),
            exposure=float(np.exp(spread(0.1))),
            contrast=float(rng.uniform(0.9, 1.1)),
            softness=float(rng.uniform(0.0012, 0.0035)),
            noise=float(rng.uniform(0.003, 0.012)),
            backdrop=BACKDROPS[rng.integers(len(BACKDROPS), size=2)] * np.float32(rng.uniform(0.6, 1.1)),
            scenery=int(rng.integers(1 << 31)),
            cloth=CLOTHES[rng.integers(len(CLOTHES))],
            collar=int(rng.integers(5)),
            pattern=int(rng.integers(5)),
        )
