"""The settings of a training, read from YAML; a key it does not know is an error, never ignored."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .artefacts import write_text
from .errors import FacetpuError

DEPTH_MULTIPLIER = 0.5
# Networks that come in one width only.
ONE_WIDTH = ("mobilefacenet", "inception_resnet_v1", "squeezenet", "vgg16", "resnet50", "se_resnet50")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Section):
    """What is trained: a network that turns a square image into an embedding."""

    name: str = "mobilenet_v1"
    depth_multiplier: float | None = Field(default=None, gt=0, le=4)  # of MobileNets: 0.5 unless given
    image_size: int = Field(default=112, ge=32, le=1024)  # pixels a side
    embedding_dim: int = Field(default=128, ge=2, le=4096)
    # Share of the old moving average kept at each step: about 1 - 10 / steps suits a short run.
    batch_norm_decay: float = Field(default=0.99, ge=0, lt=1)
    # Only these are trained, as ["Embedding", "MobilenetV1/Conv2d_13*"], with the new head; all unless given.
    trainable_scopes: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _has_multiplier(self) -> Network:
        if self.depth_multiplier is not None and self.name in ONE_WIDTH:
            raise ValueError(f"{self.name} has no depth_multiplier; leave it out")
        return self

    @property
    def multiplier(self) -> float:
        """The depth multiplier, the usual one where none is given."""
        return DEPTH_MULTIPLIER if self.depth_multiplier is None else self.depth_multiplier


class Optimizer(_Section):
    """How the weights move: the learning rate rises linearly, then falls to zero along a cosine."""

    name: Literal["momentum", "adam"] = "momentum"
    learning_rate: float = Field(default=0.1, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)  # share of all steps
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=4e-5, ge=0)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of ``step`` (from 0) out of ``steps``."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Augmentation(_Section):
    """How far each picture is changed at random; zero leaves it as it is."""

    flip: bool = True
    shift: float = Field(default=0.04, ge=0, lt=0.5)  # of the side, both ways
    zoom: float = Field(default=0.05, ge=0, lt=0.5)  # 0.05: between 0.95 and 1.05 times the size
    rotation: float = Field(default=0.0, ge=0, le=180)  # degrees, both ways
    brightness: float = Field(default=0.1, ge=0, le=1)  # of the range 0..255, both ways
    contrast: float = Field(default=0.2, ge=0, lt=1)
    saturation: float = Field(default=0.2, ge=0, le=1)


class TrainConfig(_Section):
    """All that a training depends on, beside its records."""

    network: Network = Network()
    loss: str = "softmax"
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    batch_size: int = Field(default=64, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    checkpoint_every: int = Field(default=500, ge=1)  # steps
    validate_every: int = Field(default=500, ge=1)  # steps
    keep_checkpoints: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        return self

    def total_steps(self, photos: int) -> int:
        """How many batches the run has, over ``photos`` training photos."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * photos / self.batch_size))


def read_config(path: Path) -> TrainConfig:
    """The settings in the YAML file ``path``.

    Raises:
        FacetpuError: the file is missing or no YAML, a key is unknown, or a value is out of range.
    """
    path = Path(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise FacetpuError(f"{path}: no such file; configs/ holds some to start from") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise FacetpuError(f"{path}: is not YAML: {_where(error)}") from None
    if not isinstance(settings, dict):
        raise FacetpuError(f"{path}: holds no settings; configs/ holds files to start from")
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        raise FacetpuError(f"{path}: {_first(error)}") from None


def write_config(path: Path, config: TrainConfig) -> None:
    """Write every setting of ``config`` to ``path``, defaults included."""
    text = yaml.safe_dump(config.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    write_text(path, text, overwrite=True)


def nearest(word: str, words: Any) -> str:
    """``; did you mean X?`` where one of ``words`` is close to ``word``, else the list of them."""
    words = sorted(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; it is one of {', '.join(words)}"


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return f"{'.'.join(location)} is not a setting{nearest(location[-1], _keys_beside(location))}"
    message = problem["msg"].replace("Value error, ", "").replace("Input should", "should")
    if not location:
        return message
    return f"{'.'.join(location)}: {message}, not {problem['input']!r}"


def _keys_beside(location: list[str]) -> Any:
    """The settings in the section where ``location`` stands."""
    section: Any = TrainConfig
    for name in location[:-1]:
        section = section.model_fields[name].annotation
    return section.model_fields


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else problem
