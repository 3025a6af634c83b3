"""Who somebody is: what stays the same from portrait to portrait."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sheet import Array, along_palette, linear

SKIN = linear("#f4cfb6", "#ecbf9d", "#e0a981", "#cf9266", "#b5764b", "#945a38", "#744329", "#55301f")
HAIR = {
    "black": linear("#17120f", "#241a15"),
    "brown": linear("#2c1d14", "#5a3a24"),
    "red": linear("#5e2713", "#a8562a"),
    "blond": linear("#84633a", "#dcc190"),
    "grey": linear("#6f6a66", "#d9d6d0"),
}
IRIS = linear("#2b1a10", "#4a2e18", "#6b4a25", "#68693f", "#5b7a5f", "#5f86a3", "#7c93a5")


class Person(NamedTuple):
    """A face nobody has. Lengths in units of 75 mm, the rest from 0 to 1 unless said otherwise."""

    seed: int
    masculine: float  # -1 to 1
    age: float
    # The head
    half_width: float
    jaw: float
    chin: float
    squareness: float
    depth: float
    cheekbones: float
    cheeks: float
    chin_point: float
    ear: float
    # The eyes and brows
    eye_apart: float
    eye_width: float
    eye_opening: float
    eye_tilt: float
    crease: float
    socket: float
    brow_height: float
    brow_arch: float
    brow_thickness: float
    brow_dark: float
    lashes: float
    # The nose and mouth
    nose_base: float
    nose_width: float
    nose_prominence: float
    nose_bridge: float
    nose_tip: float
    mouth_gap: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    bow: float
    lip_red: float
    # Colours, linear light
    skin: Array
    ruddy: float
    freckles: float
    moles: tuple[tuple[float, float], ...]
    iris: Array
    hair: Array
    # Hair
    bald: bool
    hairline: float
    recession: float
    volume: float
    top: float
    length: float
    fringe: float
    part: float
    sweep: float
    wave: float
    curl: float
    bun: float
    beard: float
    moustache: float
    stubble: float
    glasses: float
    frame_round: float
    frame_colour: Array

    @property
    def mouth(self) -> float:
        """Where the lips meet, v."""
        return self.nose_base + self.mouth_gap

    @classmethod
    def draw(cls, seed: int) -> Person:
        """The person of ``seed``; the same for ever under one version of NumPy's generators."""
        return _draw(seed)


def _draw(seed: int) -> Person:
    rng = np.random.default_rng([75, seed])
    masculine = float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.0))
    age = float(rng.beta(1.3, 2.2))
    tone = float(rng.uniform())

    def trait(mean: float, spread: float, lean: float = 0.0) -> float:
        """A draw about ``mean``; ``lean`` is how far a man's mean lies above a woman's, halved."""
        return float(mean + lean * masculine + spread * np.clip(rng.normal(), -2.2, 2.2))

    def chance(probability: float) -> bool:
        return bool(rng.uniform() < probability)

    face = {
        "half_width": trait(0.95, 0.045, 0.015),
        "jaw": trait(0.77, 0.06, 0.035),
        "chin": trait(1.46, 0.07, 0.035),
        "squareness": trait(2.55, 0.22, 0.25),
        "depth": trait(1.05, 0.06),
        "cheekbones": trait(0.05, 0.03, -0.01),
        "cheeks": trait(0.0, 0.035),
        "chin_point": trait(0.09, 0.035, 0.01),
        "ear": trait(1.0, 0.13, 0.05),
        "eye_apart": trait(0.435, 0.026),
        "eye_width": trait(0.198, 0.015, -0.004),
        "eye_opening": trait(0.108, 0.014, -0.008),
        "eye_tilt": trait(0.05, 0.07, -0.03),
        "crease": float(np.clip(trait(0.6, 0.4), 0, 1)),
        "socket": trait(0.15, 0.035, 0.012),
        "brow_height": trait(0.265, 0.032, -0.02),
        "brow_arch": trait(0.06, 0.03, -0.02),
        "brow_thickness": trait(0.05, 0.012, 0.013),
        "brow_dark": float(np.clip(trait(0.75, 0.15, 0.06), 0.3, 1)),
        "lashes": trait(0.6, 0.15, -0.25),
        "nose_base": trait(0.63, 0.05),
        "nose_width": trait(0.2, 0.026, 0.01),
        "nose_prominence": trait(0.36, 0.055, 0.01),
        "nose_bridge": trait(0.5, 0.25, 0.1),
        "nose_tip": trait(0.115, 0.018),
        "mouth_gap": trait(0.29, 0.035, 0.01),
        "mouth_width": trait(0.345, 0.034, 0.008),
        "upper_lip": trait(0.07, 0.02, -0.012),
        "lower_lip": trait(0.1, 0.02, -0.01),
        "bow": trait(0.4, 0.2),
        "lip_red": float(np.clip(trait(0.55, 0.2, -0.2), 0.1, 1.2)),
    }
    face["nose_width"] += 0.03 * max(0.0, tone - 0.6)
    face["lower_lip"] += 0.03 * max(0.0, tone - 0.5)
    face["upper_lip"] += 0.03 * max(0.0, tone - 0.5)
    undertone = np.array([1.0, 1.0, 1.0]) + np.array([0.02, 0.0, -0.05]) * rng.normal()
    moles = tuple(
        (float(rng.uniform(-0.65, 0.65)), float(rng.uniform(0.15, 1.2))) for _ in range(rng.binomial(3, 0.2))
    )
    return Person(
        seed=seed,
        masculine=masculine,
        age=age,
        skin=(along_palette(SKIN, tone) * undertone).astype(np.float32),
        ruddy=float(rng.uniform(0.3, 1.0)),
        freckles=float(rng.uniform(0.4, 1.0)) if tone < 0.35 and chance(0.3) else 0.0,
        moles=moles,
        iris=along_palette(IRIS, rng.uniform() if tone < 0.4 else rng.uniform(0, 0.3)),
        **face,
        **_hair(rng, masculine, age, tone),
    )


def _hair(rng: np.random.Generator, masculine: float, age: float, tone: float) -> dict:
    """The traits of hair, beard and glasses."""

    def chance(probability: float) -> bool:
        return bool(rng.uniform() < probability)

    man = masculine > 0
    weights = {
        "black": 0.2 + 2 * tone,
        "brown": 1.0,
        "red": 0.25,
        "blond": 0.6,
        "grey": 4 * max(0.0, age - 0.35),
    }
    if tone > 0.45:
        weights.update(red=0.0, blond=0.03, brown=0.4)
    names, odds = list(weights), np.array(list(weights.values()))
    hue = names[int(rng.choice(len(names), p=odds / odds.sum()))]
    coily = chance(0.75 if tone > 0.7 else 0.05)
    wave = float(rng.choice([0.0, rng.uniform(0.02, 0.06)]))
    if man:
        style = rng.choice(
            ["bald", "buzz", "short", "full", "long"], p=[0.07 + 0.1 * age, 0.13, 0.4, 0.3 - 0.1 * age, 0.1]
        )
    else:
        style = rng.choice(["short", "bob", "shoulder", "long", "bun"], p=[0.14, 0.24, 0.25, 0.22, 0.15])
    length = {"bob": rng.uniform(0.95, 1.35), "shoulder": rng.uniform(1.6, 1.95), "long": 2.4}.get(
        str(style), rng.uniform(-0.02, 0.25)
    )
    volume = {"buzz": 0.05, "bald": 0.03, "short": 0.1, "bun": 0.07}.get(str(style), 0.15) * rng.uniform(
        0.8, 1.35
    )
    fringe = (
        rng.uniform(0.3, 1.0)
        if style not in ("buzz", "bald", "bun") and chance(0.2 if man else 0.32)
        else 0.0
    )
    bearded = man and chance(0.45)
    return {
        "hair": along_palette(HAIR[hue], rng.uniform()),
        "bald": style == "bald",
        "hairline": float(rng.normal(-0.9, 0.045) - (0.12 * age * rng.uniform() if man else 0)),
        "recession": float(rng.uniform(0, 0.3 + 0.7 * age) if man else rng.uniform(0, 0.15)),
        "volume": float(volume * (2.3 if coily and volume > 0.09 else 1.0)),
        "top": float(
            rng.uniform(0.07, 0.17)
            + (0.12 * rng.uniform() if style in ("full", "short") else 0)
            + (0.2 if coily and volume > 0.09 else 0)
        )
        if style not in ("buzz", "bald")
        else 0.05,
        "length": float(length),
        "fringe": float(fringe),
        "part": float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.5)),
        "sweep": float(rng.uniform(-1, 1)),
        "wave": wave * (0.4 if style in ("buzz", "short") else 1.0),
        "curl": float(rng.uniform(0.6, 1.0)) if coily else float(chance(0.15) * rng.uniform(0.2, 0.5)),
        "bun": float(rng.uniform(0.7, 1.2)) if style == "bun" and chance(0.6) else 0.0,
        "beard": float(rng.uniform(0.5, 1.0)) if bearded and chance(0.5) else 0.0,
        "moustache": float(rng.uniform(0.5, 1.0)) if bearded and chance(0.7) else 0.0,
        "stubble": float(rng.uniform(0.1, 0.8)) if man else 0.0,
        "glasses": float(rng.uniform(0.5, 1.0)) if chance(0.22) else 0.0,
        "frame_round": float(rng.uniform(2.0, 5.0)),
        "frame_colour": linear(
            str(rng.choice(["#15130f", "#3a1d12", "#1d2a3d", "#6d5c2c", "#58606a", "#5a1f24"]))
        )[0],
    }
