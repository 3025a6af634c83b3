"""The commands of the board: learn people, recognise them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common, overwrite


@click.command()
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
@click.option("--accept-all", is_flag=True, help="Enrol blurred, dark, odd photos too, if they show a face.")
@click.option("--report", type=FILE, help="PNG to show every photo on, with what was said of it.")
@click.option("--keep-photos", is_flag=True, help="Keep the photos in OUT, to enrol again with a new base.")
@click.option(
    "--learner",
    type=click.Choice(["imprint", "softmax"]),
    default="imprint",
    show_default=True,
    help="With softmax, train a softmax regression too, strangers being a class of it.",
)
@click.option(
    "--engine",
    type=click.Choice(["numpy", "pycoral"]),
    default="numpy",
    show_default=True,
    help="Who writes the rows: facetpu, or Google's pycoral where it is installed.",
)
@common
@overwrite
def imprint(model: Path, people: Path, out: Path, overwrite: bool, **settings: Any) -> Any:
    """Teach MODEL the people in PEOPLE, one folder of photos each; write the new model to OUT.

    PEOPLE may be a folder that imprint wrote too: its people are taken over, from the photos it keeps
    where its base is another.

    Example: facetpu imprint model people kitchen
    """
    from ..board.enrol import imprint

    return imprint(model, people, out, overwrite=overwrite, **settings)


@click.command()
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
    from ..board.identify import identify, watch

    if (camera is None) == (not photos):
        raise click.UsageError("give PHOTOS or --camera, one of the two")
    if camera is None:
        return identify(model, list(photos), threshold=threshold, draw=draw, overwrite=overwrite)
    if draw is not None:
        raise click.UsageError("--draw is for PHOTOS")
    return watch(model, camera, threshold=threshold)


@click.command()
@click.argument("model", type=FILE)
@click.argument("photo", type=FILE)
@click.argument("other", type=FILE)
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Cosine from which two faces are one person.")
@common
def verify(model: Path, photo: Path, other: Path, threshold: float | None) -> Any:
    """Say whether PHOTO and OTHER show the same person.

    Example: facetpu verify kitchen one.jpg two.jpg
    """
    from ..board.identify import verify

    return verify(model, photo, other, threshold=threshold)


@click.group()
@click.argument("model", type=FILE)
@click.pass_context
def people(ctx: click.Context, model: Path) -> None:
    """List and change the people that MODEL knows."""
    ctx.obj = model


@people.command(name="list")
@common
@click.pass_obj
def list_(model: Path) -> Any:
    """List the people that MODEL knows.

    Example: facetpu people kitchen list
    """
    from ..board.people import list_people

    return list_people(model)


@people.command()
@click.argument("name")
@common
@click.pass_obj
def show(model: Path, name: str) -> Any:
    """Show what MODEL knows of NAME: photos, how well they agree, who is most like them.

    Example: facetpu people kitchen show Ana
    """
    from ..board.people import show_person

    return show_person(model, name)


@people.command()
@click.argument("name")
@common
@click.pass_obj
def remove(model: Path, name: str) -> Any:
    """Forget NAME: every embedding, row and kept photo of theirs is erased.

    Example: facetpu people kitchen remove Ana
    """
    from ..board.people import remove_person

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
    from ..board.people import rename_person

    return rename_person(model, name, new_name)


@people.command()
@click.argument("name")
@click.argument("into")
@common
@click.pass_obj
def merge(model: Path, name: str, into: str) -> Any:
    """Count NAME's photos as INTO's: the two are one person.

    Example: facetpu people kitchen merge Ani Ana
    """
    from ..board.people import merge_people

    return merge_people(model, name, into)


@people.command(name="export")
@click.argument("out", type=FILE)
@common
@overwrite
@click.pass_obj
def export_(model: Path, out: Path, overwrite: bool) -> Any:
    """Write the people that MODEL knows to the file OUT, for another model with the same base.

    Example: facetpu people kitchen export people.npz
    """
    from ..board.people import export_people

    return export_people(model, out, overwrite=overwrite)


@people.command(name="import")
@click.argument("file", type=FILE)
@common
@click.pass_obj
def import_(model: Path, file: Path) -> Any:
    """Add the people in FILE, which export wrote, to those that MODEL knows.

    Example: facetpu people hall import people.npz
    """
    from ..board.people import import_people

    return import_people(model, file)
