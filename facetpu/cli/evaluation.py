"""The commands that measure a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, PLACE, common, on_engine, overwrite

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


def _numbers(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """``1,5,10`` as numbers."""
    fields = (text or "").replace(" ", "").split(",") if text else []
    if not all(field.isdecimal() and int(field) > 0 for field in fields):
        raise click.BadParameter(f"{text!r} is not numbers of photos such as 5 or 1,5,10", ctx, option)
    return tuple(int(field) for field in fields)


@click.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=FOLDER)
@click.option(
    "--pairs",
    type=FILE,
    help="Pairs of LFW, CFP (its Split/FP), CALFW, CPLFW or AgeDB; drawn from CROPS unless given.",
)
@click.option("--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True)
@click.option("--flip", is_flag=True, help="Average each crop's embedding with its mirror image's.")
@click.option(
    "--identify",
    metavar="N[,N...]",
    callback=_numbers,
    help="Enrol N photos a person too, and identify the rest among strangers.",
)
@click.option(
    "--repeats", type=click.IntRange(1), default=10, show_default=True, help="Draws of the N photos."
)
@click.option(
    "--false-accepts",
    type=SHARE,
    default=0.01,
    show_default=True,
    help="Share of strangers that identification may let through.",
)
@click.option(
    "--enrolled", type=FILE, help="Names to enrol, one a line; all with photos enough unless given."
)
@click.option("--strangers", type=FILE, help="Names of the strangers; everybody else unless given.")
@click.option("--groups", type=FILE, help="CSV of person or photo and groups, for error rates by group.")
@click.option("--out", type=FOLDER, help="Folder for the report, its pictures and all scores.")
@on_engine
@common
@overwrite
def evaluate(
    model: Path,
    crops: Path,
    pairs: Path | None,
    out: Path | None,
    engine: str,
    address: str | None,
    overwrite: bool,
    **settings: Any,
) -> Any:
    """Measure how well MODEL tells the people in CROPS apart, and whether it knows a stranger.

    MODEL is a run, a frozen graph, a .tflite, an export folder or an .npz that embed wrote; CROPS may be
    insightface's .bin.

    Example: facetpu evaluate model lfw_crops --pairs pairs.txt --identify 5 --out report
    """
    from ..engines import choose_engine
    from ..stages.evaluate import EvaluateConfig, evaluate

    runs = choose_engine(engine, address)
    return evaluate(model, crops, pairs, out, overwrite, EvaluateConfig(**settings), runs)


@click.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=PLACE)
@click.argument("out", type=FILE)
@click.option("--flip", is_flag=True, help="Average each crop's embedding with its mirror image's.")
@on_engine
@common
@overwrite
def embed(
    model: Path, crops: Path, out: Path, engine: str, address: str | None, overwrite: bool, flip: bool
) -> Any:
    """Write the embeddings of all CROPS to OUT, an .npz that stands for MODEL when measuring.

    Example: facetpu embed model lfw_crops lfw.npz
    """
    from ..engines import choose_engine
    from ..stages.embed import embed

    return embed(model, crops, out, flip, overwrite, choose_engine(engine, address))


@click.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=FOLDER)
@click.argument("test", type=FOLDER, required=False)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    type=click.Choice(["imprinted", "mean", "nearest", "k-nn", "svm", "softmax"]),
    help="One to compare, again for more; all unless given.",
)
@click.option(
    "--photos", type=click.IntRange(1), default=5, show_default=True, help="Photos to learn, without TEST."
)
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True, help="Draws, without TEST.")
@click.option(
    "--false-accepts",
    type=SHARE,
    default=0.01,
    show_default=True,
    help="Share of strangers that a threshold may let through.",
)
@click.option("--unknown", default="unknown", show_default=True, help="The folder of strangers.")
@click.option("--out", type=FOLDER, help="Folder for the table and for what each says of each photo.")
@common
@overwrite
def classify(
    model: Path,
    crops: Path,
    test: Path | None,
    out: Path | None,
    overwrite: bool,
    classifiers: tuple[str, ...],
    **settings: Any,
) -> Any:
    """Learn the people in CROPS with several classifiers, and compare them on TEST or on the photos left.

    Example: facetpu classify model crops --photos 5
    """
    from ..stages.classify import ClassifyConfig, classify

    config = ClassifyConfig(**settings)
    if classifiers:
        config = config._replace(classifiers=classifiers)
    return classify(model, crops, test, out, overwrite, config)


@click.command()
@click.argument("crops", type=FOLDER)
@click.argument("models", type=FILE, nargs=-1, required=True)
@click.option("--pairs", type=FILE, help="Pairs file, as for evaluate; drawn from CROPS unless given.")
@click.option("--out", type=FOLDER, help="Folder for the table.")
@common
@overwrite
def compare(crops: Path, models: tuple[Path, ...], overwrite: bool, **settings: Any) -> Any:
    """Run the same CROPS through each of MODELS, from checkpoint to Edge TPU, and show where it loses.

    An export folder stands for its float, its int8 and its compiled base.

    Example: facetpu compare lfw_crops run frozen model --pairs pairs.txt
    """
    from ..stages.compare import compare

    return compare(crops, models, overwrite=overwrite, **settings)


@click.command()
@click.argument("model", type=FILE)
@click.argument("crops", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Cosine that joins two faces; from the model unless given.",
)
@click.option("--method", type=click.Choice(["whispers", "dbscan"]), default="whispers", show_default=True)
@click.option("--check", is_flag=True, help="Hold the people found against the folders of CROPS.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the whispers' order.")
@common
@overwrite
def cluster(model: Path, crops: Path, out: Path, overwrite: bool, **settings: Any) -> Any:
    """Sort the faces in CROPS into one folder for each person, whom nobody has named, in OUT.

    Example: facetpu cluster model crops sorted
    """
    from ..stages.cluster import cluster

    return cluster(model, crops, out, overwrite=overwrite, **settings)


@click.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--out",
    type=FILE,
    default=Path("report.html"),
    show_default=True,
    help="The page; one file, pictures in it.",
)
@common
@overwrite
def report(folders: tuple[Path, ...], out: Path, overwrite: bool) -> Any:
    """Collect what stands in FOLDERS, a run, an export, evaluations, on one page to hand on.

    Example: facetpu report run model evaluation --out report.html
    """
    from ..stages.report import report

    return report(folders, out, overwrite)
