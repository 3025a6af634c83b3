"""Who somebody is: what stays the same from portrait to portrait."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .sheet import Array, linear, ramp

SKINS = linear("#f4cfb6", "#ecbf9d", "#e0a981", "#cc9670", "#b07a58", "#8f5f45", "#714633", "#543226")
IRISES = linear("#2b1a10", "#4a2e18", "#6b4a25", "#68693f", "#5b7a5f", "#5f86a3", "#7c93a5")
HAIRS = {
    "black": linear("#17120f", "#241a15"),
    "brown": linear("#2c1d14", "#5a3a24"),
    "red": linear("#5e2713", "#a8562a"),
    "blond": linear("#84633a", "#dcc190"),
    "grey": linear("#6f6a66", "#d9d6d0"),
}
FRAMES = linear("#15130f", "#3a1d12", "#1d2a3d", "#6d5c2c", "#58606a", "#5a1f24")


def trait(mean: float, spread: float, lean: float = 0.0, low: float = -9.0, high: float = 9.0) -> Any:
    """A field drawn about ``mean``; ``lean`` is half of what a man's mean lies above a woman's."""
    return dataclasses.field(metadata={"trait": (mean, spread, lean, low, high)})


@dataclass(frozen=True, eq=False)
class Hair:
    """Hair of the head, beard and glasses. Lengths in units of 75 mm, shares from 0 to 1."""

    colour: Array
    style: str
    hairline: float  # v in the middle of the forehead
    recession: float  # share of the temples laid bare
    volume: float  # how far it stands off at the sides
    top: float  # and above
    length: float  # v of its ends
    fringe: float
    part: float  # u of the parting
    sweep: float
    wave: float
    curl: float
    bun: float
    beard: float
    moustache: float
    stubble: float

    @property
    def long(self) -> bool:
        """Whether it falls beside the face."""
        return self.length > 0.6


@dataclass(frozen=True, eq=False)
class Person:
    """A face nobody has. Lengths in units of 75 mm, colours in linear light."""

    seed: int
    masculine: float  # -1 to 1
    age: float  # 0 to 1
    tone: float  # 0 light to 1 dark
    skin: Array
    iris: Array
    moles: Array  # [n, 2], u and v
    freckles: float
    glasses: float  # 0 for none
    frame: Array
    hair: Hair

    half_width: float = trait(0.96, 0.045, 0.015)
    jaw: float = trait(0.77, 0.06, 0.035)
    chin: float = trait(1.45, 0.07, 0.035)
    squareness: float = trait(2.55, 0.22, 0.25)
    depth: float = trait(1.05, 0.06)
    cheekbones: float = trait(0.05, 0.03, -0.01)
    cheeks: float = trait(0.0, 0.035)
    chin_point: float = trait(0.09, 0.035, 0.01)
    ears: float = trait(0.95, 0.12, 0.05)
    ruddy: float = trait(0.7, 0.2, low=0.2)

    eye_apart: float = trait(0.435, 0.026)
    eye_width: float = trait(0.198, 0.015, -0.004)
    eye_opening: float = trait(0.102, 0.014, -0.008)
    eye_tilt: float = trait(0.05, 0.07, -0.03)
    crease: float = trait(0.6, 0.4, low=0.0, high=1.0)
    socket: float = trait(0.15, 0.035, 0.012)
    lashes: float = trait(0.6, 0.15, -0.25)
    brow_height: float = trait(0.265, 0.032, -0.02)
    brow_arch: float = trait(0.06, 0.03, -0.02)
    brow_thickness: float = trait(0.05, 0.012, 0.013)
    brow_dark: float = trait(0.75, 0.15, 0.06, low=0.3, high=1.0)

    nose_base: float = trait(0.62, 0.05)
    nose_width: float = trait(0.2, 0.026, 0.01)
    nose_prominence: float = trait(0.35, 0.055, 0.01)
    nose_bridge: float = trait(0.45, 0.25, 0.1)
    nose_tip: float = trait(0.115, 0.018)

    mouth_gap: float = trait(0.29, 0.035, 0.01)
    mouth_width: float = trait(0.345, 0.034, 0.008)
    upper_lip: float = trait(0.072, 0.02, -0.012)
    lower_lip: float = trait(0.1, 0.02, -0.01)
    bow: float = trait(0.4, 0.2)
    lip_red: float = trait(0.6, 0.2, -0.2, low=0.1)

    @property
    def mouth(self) -> float:
        """Where the lips meet, v."""
        return self.nose_base + self.mouth_gap

    @classmethod
    def draw(cls, seed: int) -> Person:
        """The person of ``seed``, always the same."""
        rng = np.random.default_rng([75, seed])
        masculine = float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.0))
        age, tone = float(rng.beta(1.3, 2.2)), float(rng.uniform())
        undertone = 1.0 + np.array([0.02, 0.0, -0.05]) * rng.normal()
        spots = rng.uniform((-0.65, 0.15), (0.65, 1.2), (rng.binomial(3, 0.2), 2))
        drawn: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if "trait" in field.metadata:
                mean, spread, lean, low, high = field.metadata["trait"]
                value = mean + lean * masculine + spread * np.clip(rng.normal(), -2.2, 2.2)
                drawn[field.name] = float(np.clip(value, low, high))
        for name in ("nose_width", "upper_lip", "lower_lip"):
            drawn[name] += 0.03 * max(0.0, tone - 0.5)
        return cls(
            seed=seed,
            masculine=masculine,
            age=age,
            tone=tone,
            skin=(ramp(SKINS, tone) * undertone).astype(np.float32),
            iris=ramp(IRISES, rng.uniform() * (1.0 if tone < 0.4 else 0.3)),
            moles=spots,
            freckles=float(rng.uniform(0.4, 1.0)) if tone < 0.35 and rng.uniform() < 0.3 else 0.0,
            glasses=float(rng.uniform(0.5, 1.0)) if rng.uniform() < 0.22 else 0.0,
            frame=FRAMES[rng.integers(len(FRAMES))],
            hair=_draw_hair(rng, masculine > 0, age, tone),
            **drawn,
        )


def _draw_hair(rng: np.random.Generator, man: bool, age: float, tone: float) -> Hair:
    """Hair that goes with the rest: grey with age, more often black and coily with dark skin."""

    def chance(probability: float) -> bool:
        return bool(rng.uniform() < probability)

    if man:
        styles = {"bald": 0.05 + 0.12 * age, "buzz": 0.15, "short": 0.4, "full": 0.3, "long": 0.06}
    else:
        styles = {"short": 0.14, "bob": 0.24, "shoulder": 0.25, "long": 0.22, "bun": 0.15}
    style = _pick(rng, styles)
    hues = {
        "black": 0.15 + 1.5 * tone,
        "brown": 1.0,
        "red": 0.25,
        "blond": 0.6,
        "grey": 4 * max(0.0, age - 0.35),
    }
    if tone > 0.45:
        hues.update(red=0.0, blond=0.0, brown=0.4)
    coily = chance(0.75 if tone > 0.7 else 0.05)
    full = style not in ("buzz", "bald")
    lengths = {"bob": (0.95, 1.35), "shoulder": (1.6, 1.95), "long": (2.3, 2.4)}
    volumes = {"buzz": 0.035, "bald": 0.0, "short": 0.08, "bun": 0.06}
    bearded = man and chance(0.45)
    return Hair(
        colour=ramp(HAIRS[_pick(rng, hues)], rng.uniform()),
        style=style,
        hairline=float(rng.normal(-0.88, 0.045) - (0.12 * age * rng.uniform() if man else 0.0)),
        recession=float(rng.uniform(0.0, 0.3 + 0.7 * age if man else 0.15)),
        volume=float(volumes.get(style, 0.14) * rng.uniform(0.8, 1.35) * (2.2 if coily and full else 1.0)),
        top=float(rng.uniform(0.08, 0.2) + 0.15 * coily) if full else 0.05,
        length=float(rng.uniform(*lengths.get(style, (0.0, 0.25)))),
        fringe=float(rng.uniform(0.3, 1.0))
        if full and style != "bun" and chance(0.15 if man else 0.3)
        else 0.0,
        part=float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.5)),
        sweep=float(rng.uniform(-1, 1)),
        wave=float(rng.uniform(0.01, 0.06)) if chance(0.5) else 0.0,
        curl=float(rng.uniform(0.6, 1.0)) if coily else float(rng.uniform(0.2, 0.5)) * chance(0.15),
        bun=float(rng.uniform(0.7, 1.2)) if style == "bun" and chance(0.6) else 0.0,
        beard=float(rng.uniform(0.5, 1.0)) if bearded and chance(0.6) else 0.0,
        moustache=float(rng.uniform(0.5, 1.0)) if bearded and chance(0.7) else 0.0,
        stubble=float(rng.uniform(0.1, 0.8)) if man else 0.0,
    )


def _pick(rng: np.random.Generator, odds: dict[str, float]) -> str:
    """One of the names, each as likely as its number says."""
    weights = np.array(list(odds.values()))
    return list(odds)[int(rng.choice(len(odds), p=weights / weights.sum()))]
