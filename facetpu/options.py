"""What every command shares: its options, its logging, and how its result and its errors are shown."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, NoReturn, TypeVar

import click

from .errors import FacetpuError, missing_module, os_error
from .storage import place

Command = TypeVar("Command", bound=Callable[..., Any])


class _Place(click.ParamType):
    """A folder of this machine, or the URL of one."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A ``Path``, or what :func:`facetpu.storage.place` makes of a URL."""
        try:
            return place(value)
        except FacetpuError as error:
            self.fail(str(error), param, ctx)


PLACE = _Place()
FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path)


def common(command: Command) -> Command:
    """Add the options that all commands take, show what the command returns, and its errors as one line.

    The command returns a NamedTuple: its fields are the JSON document, its ``str`` the text. Where it
    has a ``problem``, what was done is shown, then the problem as an error. A command that has no end
    returns an iterator of them: each is shown as it comes, as one line.
    """

    @functools.wraps(command)
    def run(as_json: bool, verbose: int, quiet: bool, **arguments: Any) -> None:
        _configure_logging(verbose, quiet)
        with _errors_as_one_line(as_json):
            result = command(**arguments)
            if isinstance(result, Iterator):
                for item in result:
                    _show(as_document(item, indent=None) if as_json else str(item))
            elif result is not None:
                _show(as_document(result) if as_json else str(result))
            problem = getattr(result, "problem", None)
            if problem:
                _fail(problem)

    run = click.option("-q", "--quiet", is_flag=True, help="Show warnings and errors only.")(run)
    run = click.option("-v", "--verbose", count=True, help="Show more; twice shows everything.")(run)
    run = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(run)
    if not any(option.name == "overwrite" for option in getattr(command, "__click_params__", [])):
        # Every command takes it, so that scripts may pass it to all; here there is nothing to replace.
        run = click.option("--overwrite", is_flag=True, hidden=True, expose_value=False)(run)
    return run  # type: ignore[return-value]


@contextlib.contextmanager
def _errors_as_one_line(as_json: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        _fail(str(stop) or "stopped; run the same command again to go on", as_json, 130)
    except FacetpuError as error:
        _fail(str(error), as_json)
    except ImportError as error:
        advice = missing_module(error)
        if advice is None:
            raise
        _fail(str(advice), as_json)
    except BrokenPipeError:  # whoever read stdout has had enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _fail(str(os_error(error)), as_json)
    except MemoryError:
        _fail("out of memory; use fewer --workers or a smaller batch", as_json)


def overwrite(command: Command) -> Command:
    """Add ``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Replace what facetpu wrote there before.")(command)


def on_engine(command: Command) -> Command:
    """Add ``--engine`` and ``--address``: where the work is done."""
    address = click.option(
        "--address",
        metavar="auto|HOST:PORT|ray://HOST:PORT",
        help="Of the Ray cluster; the one this machine belongs to unless given.",
    )
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where to work: on this machine, or on a Ray cluster.",
    )
    return engine(address(command))


def as_document(result: Any, indent: int | None = 2) -> str:
    """A NamedTuple, nested ones included, as one JSON document."""
    # URLs, which are no Paths, as text.
    return json.dumps(_plain(result), indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def _show(text: str) -> None:
    # A path may hold bytes that are no text: as \udcff they can be printed, and are JSON too.
    click.echo(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _fail(message: str, as_json: bool = False, code: int = 1) -> NoReturn:
    message = " ".join(message.split("\n"))
    if as_json:
        click.echo(json.dumps({"error": message}, ensure_ascii=False))
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)


def _configure_logging(verbose: int, quiet: bool) -> None:
    level = logging.WARNING if quiet else logging.DEBUG if verbose > 1 else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(levelname)s %(name)s: %(message)s" if verbose else "%(message)s")
    )
    logger = logging.getLogger("facetpu")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
