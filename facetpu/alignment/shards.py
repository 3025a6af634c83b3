"""A folder's photos divided among the jobs of an array, and what they did brought together again.

Job I of N writes a folder of its own, ``CROPS.I-of-N``, which is complete and in order as it is. The
undivided run takes such folders over instead of doing their work again, and so ends with the bytes that it
would have ended with alone, also where a job failed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import FacetpuError
from .crop_tables import read_records
from .journal import Journal

log = logging.getLogger(__name__)

GATHERED = ".shards"  # in the partial folder: where shards wait until their crops are moved


class Shard(NamedTuple):
    """Part ``number``, from 1, of ``total``."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``I/N`` names.

        Raises:
            FacetpuError: it names none.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if match is None:
            raise FacetpuError(f"{text!r} is not of the form I/N; give 1/8 for the first of eight")
        shard = cls(int(match.group(1)), int(match.group(2)))
        if not 1 <= shard.number <= shard.total:
            raise FacetpuError(f"{text!r} is none of the shards 1/N to N/N; they count from 1")
        return shard

    def folder(self, crops: Path) -> Path:
        """Where this shard's crops go."""
        return crops.with_name(f"{crops.name}.{self.number}-of-{self.total}")


def gather(crops: Path, partial: Path, journal: Journal, is_made: Callable[[Path, Shard], bool]) -> None:
    """Move what the shards beside ``crops`` made into ``partial``, and note it in ``journal``.

    Whenever this is killed, the next call goes on.

    Args:
        crops: the folder that they are shards of.
        partial: where its crops are being made.
        journal: what is done of them.
        is_made: whether a shard's folder is finished, and is of the same photos and settings.
    """
    gathered = partial / GATHERED
    gathered.mkdir(exist_ok=True)
    for folder, shard in _shards_of(crops):
        if is_made(folder, shard):
            os.replace(folder, gathered / folder.name)
        else:
            log.warning("%s: is not of these photos with these settings, and is left alone", folder)
    for folder in sorted(gathered.iterdir()):
        for photo, record, written in read_records(folder):
            entry = journal.entry(photo)
            if entry and not entry.record and all(_moved(crop, folder, partial) for crop in written):
                journal.note(photo, record)


def _shards_of(crops: Path) -> list[tuple[Path, Shard]]:
    pattern = re.compile(re.escape(crops.name) + r"\.([0-9]{1,9})-of-([0-9]{1,9})")
    found = ((folder, pattern.fullmatch(folder.name)) for folder in sorted(crops.parent.iterdir()))
    return [(folder, Shard(int(name[1]), int(name[2]))) for folder, name in found if name]


def _moved(crop: str, source: Path, target: Path) -> bool:
    """Whether ``crop`` is in ``target`` now, moved there from ``source`` by this or an earlier call."""
    (target / crop).parent.mkdir(parents=True, exist_ok=True)
    if (source / crop).is_file():
        os.replace(source / crop, target / crop)
    return (target / crop).is_file()
