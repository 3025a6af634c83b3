"""The commands, in pipeline order. Each parses, imports its stage, calls it and returns the result.

Stages are imported inside the commands: ``facetpu --help`` must not wait for TensorFlow, and the
board has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import __version__
from .options import FILE, FOLDER, common, overwrite


class Commands(click.Group):
    """Lists the commands in the order of the pipeline rather than of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names as they were defined."""
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="facetpu")
def main() -> None:
    """From a folder of photos to a face recogniser on a Coral Edge TPU."""


@main.command()
@click.argument("photos", type=FOLDER)
@click.argument("crops", type=FOLDER)
@click.option(
    "--size", default=112, show_default=True, type=click.IntRange(16, 1024), help="Side of a crop in pixels."
)
@click.option(
    "--template",
    default="arcface",
    show_default=True,
    type=click.Choice(["arcface", "box"]),
    help="Five-point similarity transform, or the box with a margin.",
)
@click.option(
    "--margin",
    default=44,
    show_default=True,
    type=click.IntRange(0),
    help="Pixels around the box (template box).",
)
@click.option(
    "--min-face",
    default=20,
    show_default=True,
    type=click.IntRange(12),
    help="Smallest face to look for, in pixels.",
)
@click.option(
    "--drop-levels",
    default=0,
    show_default=True,
    type=click.IntRange(0, 8),
    help="Finest pyramid levels to leave out: faster, larger faces only.",
)
@click.option("--all-faces", is_flag=True, help="Write every face of a photo, not the main one.")
@click.option("--workers", type=click.IntRange(1), help="Processes; one a core unless given.")
@common
@overwrite
def align(photos: Path, crops: Path, workers: int | None, overwrite: bool, **settings: Any) -> Any:
    """Find the faces in PHOTOS and write aligned crops to CROPS.

    Example: facetpu align photos crops
    """
    from .stages.align import AlignConfig, align

    return align(photos, crops, AlignConfig(**settings), workers=workers, overwrite=overwrite)


@main.command()
@click.argument("crops", type=FOLDER)
@click.argument("records", type=FOLDER)
@click.option(
    "--shards",
    default=8,
    show_default=True,
    type=click.IntRange(1, 99999),
    help="Files to spread the training photos over.",
)
@click.option(
    "--validation",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Share of photos kept for validation.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the split and of the order.")
@common
@overwrite
def pack(crops: Path, records: Path, shards: int, validation: float, seed: int, overwrite: bool) -> Any:
    """Pack the people in CROPS into TFRecords.

    Example: facetpu pack crops records
    """
    from .stages.pack import pack

    return pack(crops, records, shards=shards, validation=validation, seed=seed, overwrite=overwrite)


@main.command()
@click.argument("config", type=FILE)
@click.argument("records", type=FOLDER)
@click.argument("run", type=FOLDER)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in RUN.")
@common
@overwrite
def train(config: Path, records: Path, run: Path, resume: bool, overwrite: bool) -> Any:
    """Train the network of CONFIG on RECORDS into RUN.

    Example: facetpu train configs/small-cpu.yaml records run
    """
    from .stages.train import train

    return train(config, records, run, resume=resume, overwrite=overwrite)


@main.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--edgetpu", is_flag=True, help="Compile the base for the Edge TPU too.")
@click.option(
    "--calibration", type=FOLDER, help="Crops to calibrate with; the run's own records unless given."
)
@click.option(
    "--samples", default=200, show_default=True, type=click.IntRange(1), help="Crops to calibrate on."
)
@click.option("--compiler", help="The edgetpu_compiler to call; found on PATH unless given.")
@common
@overwrite
def export(source: Path, out: Path, edgetpu: bool, overwrite: bool, **settings: Any) -> Any:
    """Turn SOURCE, a run or a frozen graph, into all that a board needs in OUT.

    Example: facetpu export run model --edgetpu
    """
    from .export import export

    return export(source, out, edgetpu=edgetpu, overwrite=overwrite, **settings)


@main.command()
@click.argument("run", type=FOLDER)
@click.argument("out", type=FOLDER)
@common
@overwrite
def freeze(run: Path, out: Path, overwrite: bool) -> Any:
    """Freeze the checkpoint of RUN: constants only, the embedding before its L2 norm.

    Example: facetpu freeze run frozen
    """
    from .stages.freeze import freeze

    return freeze(run, out, overwrite=overwrite)


@main.command()
@click.argument("frozen", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--calibration", type=FOLDER, required=True, help="Crops (or records) to calibrate with.")
@click.option(
    "--samples", default=200, show_default=True, type=click.IntRange(1), help="Crops to calibrate on."
)
@common
@overwrite
def quantize(frozen: Path, out: Path, calibration: Path, samples: int, overwrite: bool) -> Any:
    """Quantise FROZEN to a full-integer base, and write its head.

    Example: facetpu quantize frozen quantized --calibration crops
    """
    from .stages.quantize import quantize

    return quantize(frozen, out, calibration=calibration, samples=samples, overwrite=overwrite)


@main.command()
@click.argument("model", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--tensor", help="Name of the tensor to cut at; the input of the L2 norm unless given.")
@common
@overwrite
def split(model: Path, out: Path, tensor: str | None, overwrite: bool) -> Any:
    """Split MODEL into base.tflite and head.tflite.

    Example: facetpu split model.tflite parts
    """
    from .stages.split import split

    return split(model, out, tensor=tensor, overwrite=overwrite)


@main.command(name="compile")
@click.argument("models", type=FILE, nargs=-1, required=True)
@click.option(
    "-o", "--out", type=FOLDER, required=True, help="Folder for the compiled models and their logs."
)
@click.option("--compiler", help="The edgetpu_compiler to call; found on PATH unless given.")
@click.option(
    "--timeout", default=180, show_default=True, type=click.IntRange(1), help="Seconds the compiler may take."
)
@common
@overwrite
def compile_(models: tuple[Path, ...], out: Path, compiler: str | None, timeout: int, overwrite: bool) -> Any:
    """Compile MODELS for the Edge TPU, together where there are several.

    Example: facetpu compile base.tflite -o compiled
    """
    from .stages.compile import compile_models

    return compile_models(list(models), out, compiler=compiler, timeout=timeout, overwrite=overwrite)


@main.command()
@click.argument("base", type=FILE)
@click.argument("head", type=FILE)
@click.argument("out", type=FILE)
@common
@click.option("--bypass", is_flag=True, help="Give the outputs of BASE too, after those of HEAD.")
@overwrite
def join(base: Path, head: Path, out: Path, bypass: bool, overwrite: bool) -> Any:
    """Join BASE and HEAD into the one model OUT.

    Example: facetpu join base_edgetpu.tflite head.tflite model_edgetpu.tflite
    """
    from .stages.join import join

    return join(base, head, out, bypass=bypass, overwrite=overwrite)


@main.command()
@click.argument("model", type=FILE)
@common
def inspect(model: Path) -> Any:
    """Show what is in MODEL, and where each op of it runs: TPU or CPU, and why.

    Example: facetpu inspect model.tflite
    """
    from .edgetpu.inspect import inspect

    return inspect(model)


@main.command()
@click.argument("model", type=FILE)
@click.argument("people", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--false-accepts",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of strangers that the threshold may let through.",
)
@click.option("--strangers", type=FOLDER, help="Photos of other faces to calibrate the threshold on.")
@common
@overwrite
def imprint(model: Path, people: Path, out: Path, overwrite: bool, **settings: Any) -> Any:
    """Teach MODEL the people in PEOPLE, one folder of photos each; write the new model to OUT.

    Example: facetpu imprint model people kitchen
    """
    from .board.enrol import imprint

    return imprint(model, people, out, overwrite=overwrite, **settings)


@main.command()
@click.argument("model", type=FILE)
@click.argument("photos", type=FILE, nargs=-1)
@click.option("--camera", type=click.IntRange(0), help="Watch this camera instead of photos.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Cosine from which a face is known; the model's unless given.",
)
@click.option("--draw", type=FOLDER, help="Folder for the photos with boxes and names drawn on.")
@common
@overwrite
def identify(
    model: Path,
    photos: tuple[Path, ...],
    camera: int | None,
    threshold: float | None,
    draw: Path | None,
    overwrite: bool,
) -> Any:
    """Say who is in PHOTOS, or in front of a camera; strangers are called so.

    Example: facetpu identify kitchen photo.jpg
    """
    from .board.identify import identify, watch

    if (camera is None) == (not photos):
        raise click.UsageError("give PHOTOS or --camera, one of the two")
    if camera is None:
        return identify(model, list(photos), threshold=threshold, draw=draw, overwrite=overwrite)
    if draw is not None:
        raise click.UsageError("--draw is for PHOTOS")
    return watch(model, camera, threshold=threshold)


@main.command()
@click.argument("model", type=FILE)
@click.argument("photo", type=FILE)
@click.argument("other", type=FILE)
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Cosine from which two faces are one person.")
@common
def verify(model: Path, photo: Path, other: Path, threshold: float | None) -> Any:
    """Say whether PHOTO and OTHER show the same person.

    Example: facetpu verify kitchen one.jpg two.jpg
    """
    from .board.identify import verify

    return verify(model, photo, other, threshold=threshold)


@main.group()
@click.argument("model", type=FILE)
@click.pass_context
def people(ctx: click.Context, model: Path) -> None:
    """List, remove or rename the people that MODEL knows."""
    ctx.obj = model


@people.command(name="list")
@common
@click.pass_obj
def list_(model: Path) -> Any:
    """List the people that MODEL knows.

    Example: facetpu people kitchen list
    """
    from .board.people import list_people

    return list_people(model)


@people.command()
@click.argument("name")
@common
@click.pass_obj
def remove(model: Path, name: str) -> Any:
    """Forget NAME: every embedding and row of theirs is erased.

    Example: facetpu people kitchen remove Ana
    """
    from .board.people import remove_person

    return remove_person(model, name)


@people.command()
@click.argument("name")
@click.argument("new_name")
@common
@click.pass_obj
def rename(model: Path, name: str, new_name: str) -> Any:
    """Call NAME by NEW_NAME from now on.

    Example: facetpu people kitchen rename Ana "Ana Silva"
    """
    from .board.people import rename_person

    return rename_person(model, name, new_name)


@main.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=FOLDER)
@click.option(
    "--pairs", type=FILE, help="Pairs file of the LFW protocol; pairs drawn from CROPS unless given."
)
@click.option("--out", type=FOLDER, help="Folder for the figures and the picture of the curves.")
@common
@overwrite
def evaluate(model: Path, crops: Path, overwrite: bool, **settings: Any) -> Any:
    """Measure how well MODEL, a run, a frozen graph or a .tflite, tells the people in CROPS apart.

    Example: facetpu evaluate model lfw_crops --pairs pairs.txt
    """
    from .stages.evaluate import evaluate

    return evaluate(model, crops, overwrite=overwrite, **settings)


@main.command()
@common
def doctor() -> Any:
    """Show what is installed, which runtime, TPU and compiler there are, and how to get what is missing.

    Example: facetpu doctor
    """
    from .doctor import doctor

    return doctor()


@main.command()
@click.argument("out", type=FOLDER, default="demo")
@click.option(
    "--people", default=360, show_default=True, type=click.IntRange(20), help="People to render and train on."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the people and of the training.")
@common
@overwrite
def demo(out: Path, people: int, seed: int, overwrite: bool) -> Any:
    """Run the whole chain on rendered people, none of them real, in OUT.

    Example: facetpu demo
    """
    from .demo import demo

    return demo(out, people=people, seed=seed, overwrite=overwrite)
