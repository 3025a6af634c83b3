"""The commands on models: export, its single steps, and what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common, overwrite

samples = click.option(
    "--samples", default=200, show_default=True, type=click.IntRange(1), help="Crops to calibrate on."
)
clip = click.option(
    "--clip",
    type=click.FloatRange(90, 100, min_open=True, max_open=True),
    help="Percentage of each activation's numbers that its range must hold; all unless given.",
)


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """``127.5`` or ``123.675,116.28,103.53`` as numbers."""
    try:
        return None if value is None else tuple(float(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a number nor three with commas between them"
        ) from None


def reading(command: Any) -> Any:
    """Add the options that say how another maker's model is to be read."""
    for option in (
        click.option("--config", type=FILE, help="Config of the network, for a checkpoint without .meta."),
        click.option("--input", help="Name of the image in a TensorFlow graph, where it is no placeholder."),
        click.option("--output", help="Name of the embedding in SOURCE, where it cannot be told."),
        click.option(
            "--size", type=click.IntRange(16, 1024), help="Side of a crop, where SOURCE leaves it open."
        ),
        click.option(
            "--channels",
            type=click.Choice(["rgb", "bgr"]),
            default="rgb",
            show_default=True,
            help="Order of the channels that the network was trained with.",
        ),
        click.option("--std", callback=_numbers, help="What is divided by then, likewise."),
        click.option(
            "--mean",
            callback=_numbers,
            help="What the network wants taken from a pixel of 0 to 255, one number or three, as "
            "123.675,116.28,103.53; 127.5 for both unless the network scales its pixels itself.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--edgetpu", is_flag=True, help="Compile the base for the Edge TPU too.")
@click.option(
    "--calibration", type=FOLDER, help="Crops to calibrate with; the run's own records unless given."
)
@samples
@clip
@click.option(
    "--compiler",
    help="The edgetpu_compiler to call: a path, docker:IMAGE or podman:IMAGE; found unless given.",
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(["litert", "web", "android", "ios", "pi"]),
    multiple=True,
    help="Write OUT/litert too: float32, float16, dynamic-range and int8 models for phones and other boards; "
    "OUT/web, which runs in a browser; or OUT/android, ios or pi, with the code that uses it. May be "
    "given several times.",
)
@click.option(
    "--litert-js", type=FOLDER, help="For web: a node_modules with LiteRT.js; asked of npm unless given."
)
@reading
@common
@overwrite
def export(
    source: Path,
    out: Path,
    edgetpu: bool,
    calibration: Path | None,
    samples: int,
    clip: float | None,
    compiler: str | None,
    targets: tuple[str, ...],
    litert_js: Path | None,
    overwrite: bool,
    **settings: Any,
) -> Any:
    """Turn SOURCE, a run or any other face embedder, into all that a board needs in OUT.

    SOURCE may be a folder of train or freeze; or of another maker a frozen graph (.pb), a SavedModel, a
    slim checkpoint, an .onnx, .keras, .h5 or float .tflite.

    Example: facetpu export run model --edgetpu
    """
    from ..export import export
    from ..sources.reading import Settings

    return export(
        source,
        out,
        edgetpu=edgetpu,
        calibration=calibration,
        samples=samples,
        clip=clip,
        compiler=compiler,
        settings=Settings(**settings),
        targets=targets,
        litert_js=litert_js,
        overwrite=overwrite,
    )


@click.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FOLDER)
@reading
@common
@overwrite
def freeze(source: Path, out: Path, overwrite: bool, **settings: Any) -> Any:
    """Freeze SOURCE, a run or any other face embedder: constants only, the embedding before its L2 norm.

    Example: facetpu freeze run frozen
    """
    from ..sources.reading import Settings
    from ..stages.freeze import freeze

    return freeze(source, out, settings=Settings(**settings), overwrite=overwrite)


@click.command()
@click.argument("frozen", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--calibration", type=FOLDER, required=True, help="Crops (or records) to calibrate with.")
@samples
@clip
@common
@overwrite
def quantize(frozen: Path, out: Path, overwrite: bool, **settings: Any) -> Any:
    """Quantise FROZEN to a full-integer base, and write its head.

    Example: facetpu quantize frozen quantized --calibration crops
    """
    from ..stages.quantize import quantize

    return quantize(frozen, out, overwrite=overwrite, **settings)


@click.command()
@click.argument("model", type=FILE)
@click.argument("out", type=FOLDER)
@click.option("--tensor", help="Name of the tensor to cut at; the input of the L2 norm unless given.")
@click.option(
    "--dense",
    type=click.IntRange(2),
    help="Split dense layers into so many parts instead: those too large for the chip, or the one whose "
    "output --tensor names.",
)
@common
@overwrite
def split(model: Path, out: Path, tensor: str | None, dense: int | None, overwrite: bool) -> Any:
    """Split MODEL into base.tflite and head.tflite; or only its large dense layers.

    Example: facetpu split model.tflite parts
    """
    from ..stages.split import split, split_dense_layers

    if dense is not None:
        return split_dense_layers(model, out, dense, tensor=tensor, overwrite=overwrite)
    return split(model, out, tensor=tensor, overwrite=overwrite)


@click.command(name="compile")
@click.argument("models", type=FILE, nargs=-1, required=True)
@click.option(
    "-o", "--out", type=FOLDER, required=True, help="Folder for the compiled models and their logs."
)
@click.option(
    "--compiler",
    help="The edgetpu_compiler to call, or docker:IMAGE or podman:IMAGE; found on PATH, or in the image "
    "edgetpu-compiler, unless given.",
)
@click.option(
    "--timeout", default=180, show_default=True, type=click.IntRange(1), help="Seconds the compiler may take."
)
@common
@overwrite
def compile_(models: tuple[Path, ...], out: Path, compiler: str | None, timeout: int, overwrite: bool) -> Any:
    """Compile MODELS for the Edge TPU, together where there are several.

    Example: facetpu compile base.tflite -o compiled
    """
    from ..stages.compile import compile_models

    return compile_models(list(models), out, compiler=compiler, timeout=timeout, overwrite=overwrite)


@click.command()
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
    from ..stages.join import join

    return join(base, head, out, bypass=bypass, overwrite=overwrite)


@click.command()
@click.argument("model", type=FILE)
@click.option("--html", type=FILE, help="Page to write, with every op and the graph drawn.")
@common
@overwrite
def inspect(model: Path, html: Path | None, overwrite: bool) -> Any:
    """Show what is in MODEL, and where each op of it runs: TPU or CPU, and why.

    Example: facetpu inspect model.tflite --html model.html
    """
    from ..edgetpu.inspect import inspect

    return inspect(model, html=html, overwrite=overwrite)
