"""The command that serves a house to browsers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ..options import FILE, FOLDER, common
from .board import recognising

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


def _hours(ctx: click.Context, option: click.Parameter, text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    hours = float(match.group(1)) * _HOURS[match.group(2)] if match else 0.0
    if not 0 < hours <= 24 * 3660:
        raise click.BadParameter(f"{text!r} is no time; write 30m, 72h or 14d")
    return hours


@click.command()
@click.argument("model", type=FILE)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    default=["0"],
    show_default=True,
    help="Watch this camera, as identify does; again for more.",
)
@click.option("--new", type=FOLDER, help="Folder to make from the export folder MODEL, knowing nobody yet.")
@click.option("--state", type=FOLDER, help="Folder for events and the token; MODEL.state unless given.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at; other than this machine's own for itself, it takes a token.",
)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for any.")
@click.option("--certificate", type=FILE, help="PEM file of a certificate, for HTTPS.")
@click.option("--key", type=FILE, help="PEM file of its key.")
@click.option(
    "--keep-events",
    "keep_events_hours",
    default="72h",
    show_default=True,
    callback=_hours,
    metavar="TIME",
    help="Time until an event and its picture are deleted: 30m, 72h, 14d.",
)
@click.option(
    "--mqtt",
    "broker",
    metavar="URL",
    envvar="FACETPU_MQTT",
    show_envvar=True,
    help="Broker to tell what happens: mqtt://user:password@host:1883/prefix.",
)
@recognising
@common
def serve(
    model: Path,
    cameras: tuple[str, ...],
    new: Path | None,
    state: Path | None,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    broker: str | None,
    **settings: Any,
) -> Any:
    """Show who is in front of the cameras on a web page, and enrol, correct and erase people there.

    MODEL is a folder that imprint wrote; what the page changes is changed in it. Ctrl-C ends.

    Example: facetpu serve kitchen --camera 0 --host 0.0.0.0
    """
    from ..serve.answers import Settings
    from ..serve.server import serve

    return serve(model, list(cameras), state, new, host, port, certificate, key, Settings(**settings), broker)
