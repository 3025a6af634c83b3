"""Records of photos beside crops in a bucket, in files of some seconds of work each.

The journal is an SQLite file, which a bucket cannot hold. So what is noted in it is kept beside the crops
too, and a run that is started again, on whatever machine, has it from there.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..artefacts import write_bytes

SECONDS = 5.0  # of work that a kill may lose
MOST = 10_000  # records in a file

Record = tuple[str, dict[str, Any]]  # a photo and what came of it


def keep(records: Iterable[Record], folder: Path) -> Iterator[Record]:
    """Pass ``records`` on, and write them to files in ``folder``."""
    part: list[Record] = []
    written = time.monotonic()
    try:
        for record in records:
            part.append(record)
            yield record
            if len(part) == MOST or time.monotonic() - written > SECONDS:
                _write(part, folder)
                part, written = [], time.monotonic()
    finally:
        if part:
            _write(part, folder)


def kept(folder: Path) -> Iterator[Record]:
    """The records in ``folder``."""
    for file in sorted(folder.glob("*.json"), key=str):
        yield from map(tuple, json.loads(file.read_text(encoding="utf-8")))


def _write(records: list[Record], folder: Path) -> None:
    write_bytes(folder / f"{uuid.uuid4().hex}.json", json.dumps(records).encode("utf-8"))
