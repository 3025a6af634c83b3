"""The commands on photos: from a folder of them to records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import FacetpuError
from ..options import FILE, PLACE, common, on_engine, overwrite


def _shard(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """The value of --shard."""
    if text is None:
        return None
    from ..alignment.shards import Shard

    try:
        return Shard.parse(text)
    except FacetpuError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("photos", type=PLACE)
@click.argument("crops", type=PLACE)
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
@click.option("--all-faces", is_flag=True, help="Write every face of a photo, not one.")
@click.option(
    "--face",
    default="main",
    show_default=True,
    type=click.Choice(["main", "largest", "central", "best"]),
    help="Which face of several: main is large and near the centre, best the surest.",
)
@click.option(
    "--format",
    default="png",
    show_default=True,
    type=click.Choice(["png", "jpeg"]),
    help="Of the crops; jpeg is of quality 95, smaller, and faster to write.",
)
@click.option(
    "--detector",
    type=FILE,
    metavar="MODEL",
    help="Find faces with this SSD .tflite, on an Edge TPU if it is compiled; R-Net and O-Net confirm them.",
)
@click.option(
    "--shard",
    metavar="I/N",
    callback=_shard,
    help="Do part I of N, in CROPS.I-of-N; a run without this takes the parts over.",
)
@click.option("--review", is_flag=True, help="Write CROPS/review.html: what to look at before training.")
@click.option("--workers", type=click.IntRange(1), help="Processes; one a core unless given.")
@on_engine
@common
@overwrite
def align(
    photos: Path,
    crops: Path,
    detector: Path | None,
    shard: Any,
    review: bool,
    workers: int | None,
    engine: str,
    address: str | None,
    overwrite: bool,
    **settings: Any,
) -> Any:
    """Find the faces in PHOTOS and write aligned crops to CROPS.

    Example: facetpu align photos crops --review
    """
    from ..engines import choose_engine
    from ..stages.align import AlignConfig, align

    return align(
        photos,
        crops,
        AlignConfig(**settings),
        workers,
        overwrite,
        shard=shard,
        detector=detector,
        review=review,
        engine=choose_engine(engine, address, workers),
    )


@click.command()
@click.argument("crops", type=PLACE)
@click.argument("records", type=PLACE)
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
@click.option(
    "--held-out",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Share of people kept out of training, to validate on.",
)
@click.option("--unknown", type=PLACE, help="Crops of other people: one more class, unknown.")
@click.option("--unlabelled", type=PLACE, help="Crops of whomever, for a teacher's embeddings.")
@on_engine
@common
@overwrite
def pack(crops: Path, records: Path, engine: str, address: str | None, **settings: Any) -> Any:
    """Pack the people in CROPS into TFRecords.

    Example: facetpu pack crops records
    """
    from ..engines import choose_engine
    from ..stages.pack import pack

    return pack(crops, records, engine=choose_engine(engine, address), **settings)
