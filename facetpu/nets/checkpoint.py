"""Checkpoints that a plain ``tf.compat.v1.train.Saver`` reads by slim's names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import FacetpuError
from .tensorflow import tf, v1

PREFIX = "model.ckpt"
AVERAGE = "/ExponentialMovingAverage"  # what slim adds to the name of an averaged weight
BEST = "best"  # the folder, in a run's checkpoints, of the one that validated best


def by_name(variables: Iterable[Any]) -> dict[str, Any]:
    """``variables`` by the names that a checkpoint holds them under."""
    return {variable.name.split(":")[0]: variable for variable in variables}


def latest_checkpoint(folder: Path) -> str | None:
    """The prefix of the newest whole checkpoint in ``folder``, or None."""
    return tf.train.latest_checkpoint(str(folder)) if Path(folder).is_dir() else None


def chosen_checkpoint(run: Path) -> str | None:
    """The checkpoint of ``run`` to export: the best where it was kept, else the newest; None without any."""
    folder = Path(run) / "checkpoints"
    return latest_checkpoint(folder / BEST) or latest_checkpoint(folder)


def averaged(prefix: str, variables: dict[str, Any]) -> dict[str, Any]:
    """``variables`` by the names of their averages where the checkpoint ``prefix`` holds such."""
    held = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    return {
        name + AVERAGE if name + AVERAGE in held else name: variable for name, variable in variables.items()
    }


def check_checkpoint(prefix: str, variables: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network.

    Args:
        prefix: of the checkpoint.
        variables: what the network at hand wants, by name.

    Raises:
        FacetpuError: a variable is missing from the checkpoint or has another shape there.
    """
    try:
        held = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FacetpuError(f"{prefix}: is no checkpoint that can be read: {reason}") from None
    for name, variable in variables.items():
        if name not in held:
            raise FacetpuError(f"{prefix}: is of another network: it holds no {name}; check the config")
        wanted = variable.shape.as_list()
        if held[name] != wanted:
            raise FacetpuError(
                f"{prefix}: is of another network: {name} has shape {held[name]} there and {wanted} here; "
                "check the config"
            )


def make_saver(variables: dict[str, Any], keep: int) -> Any:
    """A Saver of ``variables`` for a folder that may be moved; it keeps the newest ``keep`` checkpoints."""
    return v1.train.Saver(variables, max_to_keep=keep, save_relative_paths=True)
