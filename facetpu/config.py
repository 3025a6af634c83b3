"""The settings of a training, read from YAML; a key it does not know is an error, never ignored."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

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
    # Round weights and activations to what int8 can hold: to train a trained network on, for the Edge TPU.
    quantization_aware: bool = False

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
    """How the weights move: the learning rate rises linearly, then follows its schedule."""

    name: Literal["momentum", "adam"] = "momentum"
    learning_rate: float = Field(default=0.1, gt=0)
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    drops: list[float] = [0.5, 0.75, 0.9]  # of schedule steps: at these shares of all steps ...
    drop: float = Field(default=0.1, gt=0, lt=1)  # ... the learning rate is multiplied by this
    warmup: float = Field(default=0.05, ge=0, le=1)  # share of all steps
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=4e-5, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)  # of all gradients together
    # Share of the old average kept at each step, of averaged weights, which are what is exported then.
    average: float | None = Field(default=None, gt=0, lt=1)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of ``step`` (from 0) out of ``steps``."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "cosine":
            share = (step - warm) / max(1, steps - warm)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        if self.schedule == "steps":
            passed = sum(step >= share * steps for share in self.drops)
            return float(self.learning_rate * self.drop**passed)
        return self.learning_rate


class Loss(_Section):
    """What is brought down. ``loss: arcface`` stands for ``loss: {name: arcface}``."""

    name: str = "softmax"
    weight: float = Field(default=1.0, ge=0)  # 0 where a teacher alone is to be followed
    margin: float | None = Field(default=None, ge=0, le=2)  # the authors' unless given
    # Shares of the training between which the margin grows from nothing to its full width.
    margin_ramp: tuple[float, float] = (0.0, 0.0)
    scale: float | None = Field(default=None, gt=0)  # of the cosines; trained, from 10, unless given
    center_weight: float = Field(default=0.0, ge=0)  # of the centre loss beside it
    center_rate: float = Field(default=0.5, gt=0, le=1)
    mine_every: int = Field(default=500, ge=1)  # steps between two minings, of triplet_mined
    mine_from: int = Field(default=4000, ge=3)  # photos that are compared then


class Sampling(_Section):
    """Which photos make a batch."""

    # photos: each once an epoch. people: each person as often as any other. identities: some people,
    # photos_per_person photos of each, as triplets need.
    by: Literal["photos", "people", "identities"] = "photos"
    photos_per_person: int = Field(default=4, ge=2)


class Teacher(_Section):
    """A trained embedder whose embeddings are to be learnt."""

    model: str  # a run, a frozen graph, .tflite or .onnx
    weight: float = Field(default=1.0, gt=0)  # of its loss beside the labels'
    # Of an .onnx: what its pixels of 0 to 255 are reduced by and divided by, a number a channel.
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    # The people's embeddings have a mean of their own, which tells nobody apart.
    centered: bool = True
    # Asked about every picture as it is augmented, and not only once about each photo and its mirror image.
    live: bool = False


class Augmentation(_Section):
    """How far each picture is changed at random; zero leaves it as it is."""

    flip: bool = True
    shift: float = Field(default=0.04, ge=0, lt=0.5)  # of the side, both ways
    zoom: float = Field(default=0.05, ge=0, lt=0.5)  # 0.05: between 0.95 and 1.05 times the size
    rotation: float = Field(default=0.0, ge=0, le=180)  # degrees, both ways
    brightness: float = Field(default=0.1, ge=0, le=1)  # of the range 0..255, both ways
    contrast: float = Field(default=0.2, ge=0, lt=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    # Share of pictures that are crossed with another person's to a face of nobody, for a live teacher.
    mix: float = Field(default=0.0, ge=0, le=1)
    # These change every other picture.
    blur: float = Field(default=0.0, ge=0, le=3)  # pixels, the largest deviation of the Gaussian
    jpeg: int = Field(default=100, ge=5, le=100)  # the lowest quality; 100 leaves it as it is
    occlusion: float = Field(
        default=0.0, ge=0, lt=1
    )  # of the side, the largest rectangle of its mean colour on it


class Devices(_Section):
    """What is trained on. ``devices: mirrored`` stands for ``devices: {strategy: mirrored}``."""

    # one. mirrored: all GPUs of this machine. multi_worker: the machines that TF_CONFIG names.
    strategy: Literal["one", "mirrored", "multi_worker"] = "one"
    workers: int | None = Field(default=None, ge=1)  # of multi_worker: as many as there are, unless given

    @model_validator(mode="after")
    def _has_workers(self) -> Devices:
        if self.workers is not None and self.strategy != "multi_worker":
            raise ValueError(f"{self.strategy} has no workers; leave it out, or set strategy to multi_worker")
        return self


class TrainConfig(_Section):
    """All that a training depends on, beside its records."""

    network: Network = Network()
    warm_start: str | None = None  # a run, a slim checkpoint or a quantised .tflite to begin with
    loss: Loss = Loss()
    teacher: Teacher | None = None
    optimizer: Optimizer = Optimizer()
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    devices: Devices = Devices()
    batch_size: int = Field(default=64, ge=1)  # photos a step, over all devices
    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    checkpoint_every: int = Field(default=500, ge=1)  # steps
    validate_every: int = Field(default=500, ge=1)  # steps
    keep_checkpoints: int = Field(default=3, ge=1)
    keep_best: bool = False  # export the checkpoint that validates best rather than the last
    patience: int | None = Field(default=None, ge=1)  # validations without a better one before the end

    @field_validator("loss", mode="before")
    @classmethod
    def _by_name(cls, loss: Any) -> Any:
        return {"name": loss} if isinstance(loss, str) else loss

    @field_validator("devices", mode="before")
    @classmethod
    def _by_strategy(cls, devices: Any) -> Any:
        return {"strategy": devices} if isinstance(devices, str) else devices

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if not self.loss.weight and self.teacher is None:
            raise ValueError("loss.weight is 0 and there is no teacher: nothing to learn from")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> TrainConfig:
        if self.loss.name in ("triplet", "triplet_batch_hard") and self.sampling.by != "identities":
            raise ValueError(f"loss {self.loss.name} compares people's photos: set sampling.by to identities")
        return self

    @model_validator(mode="after")
    def _has_weights_to_round(self) -> TrainConfig:
        if self.network.quantization_aware and self.warm_start is None:
            raise ValueError(
                "network.quantization_aware trains a trained network on: set warm_start to its run"
            )
        return self

    @model_validator(mode="after")
    def _somebody_knows(self) -> TrainConfig:
        if self.augmentation.mix and not (self.teacher and self.teacher.live):
            raise ValueError("augmentation.mix makes faces of nobody: set teacher.live to learn from them")
        if self.augmentation.mix and self.loss.weight and self.loss.name == "triplet_mined":
            raise ValueError(
                "augmentation.mix takes photos out of mined triplets: set it to 0, or take triplet"
            )
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainConfig:
        each = 3 if self.loss.name == "triplet_mined" else self.sampling.photos_per_person
        if (self.loss.name == "triplet_mined" or self.sampling.by == "identities") and self.batch_size % each:
            raise ValueError(f"batch_size is {self.batch_size} and must be a multiple of {each}")
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
        section = next(iter(get_args(section)), section)  # of Section | None
    return section.model_fields


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}, line {mark.line + 1}" if mark else problem
