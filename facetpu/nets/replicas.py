"""What the copies of a network on several devices tell each other while they train on one batch.

Each copy, a replica, has an equal share of the batch and runs under ``tf.distribute``'s ``Strategy.run``.
Outside of that there is one replica, and these functions give back what they get.
"""

from __future__ import annotations

from typing import Any

from .tensorflow import tf


def replicas() -> int:
    """How many there are, over all machines."""
    return int(tf.distribute.get_replica_context().num_replicas_in_sync)


def place_here() -> int:
    """Which of this machine's replicas this is; they share the variables, and the first writes to them."""
    if replicas() == 1:
        return 0
    return _place() % len(tf.distribute.get_strategy().extended.worker_devices)


def first_replica() -> bool:
    """Whether this is the first of all replicas, over all machines."""
    return replicas() == 1 or _place() == 0


def summed(values: Any) -> Any:
    """A tensor, or a list of them, added up over the replicas; its gradient is added up likewise."""
    if replicas() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def gathered(rows: Any) -> Any:
    """The ``rows`` of every replica, one after another in the replicas' order.

    Args:
        rows: ``[B, ...]``, of the same shape in each.

    Returns:
        ``[replicas * B, ...]``.
    """
    if replicas() == 1:
        return rows
    # A sum with zeros is exact, and unlike all_gather needs no word about shapes beforehand.
    empty = tf.zeros_like(rows)
    return summed(tf.concat([rows if place == _place() else empty for place in range(replicas())], 0))


def _place() -> int:
    # A constant tensor, of a number that is known.
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
