"""Names of people, and the ``labels.txt`` that pycoral and our own tools read: ``id  name`` a line."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Iterable

from .artefacts import write_text
from .errors import FacetpuError
from .storage import as_path


def check_name(name: str, where: str) -> str:
    """``name`` in Unicode normal form C, fit to be a folder, a line of ``labels.txt`` and a key.

    Args:
        name: a person's name as given.
        where: the folder or option it came from, for the message.

    Raises:
        FacetpuError: it is empty, starts or ends with white space, holds a control character or a
            slash, or starts with a dot or, as pycoral takes that for the end of the id, a colon.
    """
    normal = unicodedata.normalize("NFC", name)
    if not normal or normal != normal.strip():
        raise FacetpuError(f"{where}: the name {name!r} is empty or has spaces around it; rename it")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in normal):
        raise FacetpuError(f"{where}: the name {name!r} holds a line break or control character; rename it")
    if "/" in normal or "\\" in normal or normal.startswith((".", ":")):
        raise FacetpuError(
            f"{where}: the name {name!r} holds a slash or starts with a dot or colon; rename it"
        )
    return normal


def check_distinct(names: Iterable[str], where: str) -> None:
    """Refuse one person under two spellings: letter case, white space, or composed and decomposed letters.

    Raises:
        FacetpuError: two names differ only so.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())
        other = seen.setdefault(key, name)
        if other is not name:
            raise FacetpuError(f"{where}: {other!r} and {name!r} look like one person; merge or rename them")


def write_labels(path: Path, names: Iterable[str], overwrite: bool = False) -> None:
    """Write one ``id  name`` line a class, in pycoral's form."""
    lines = [f"{index}  {name}\n" for index, name in enumerate(names)]
    write_text(as_path(path), "".join(lines), overwrite)


def read_labels(path: Path) -> list[str]:
    """The names in ``path``, by class id.

    Raises:
        FacetpuError: the file is missing, a line has no id, or the ids are not 0..N-1.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise FacetpuError(f"{path}: no such file; labels.txt stands beside the model") from None
    except UnicodeDecodeError:
        raise FacetpuError(f"{path}: is not UTF-8 text; write the labels again") from None
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = re.match(r"\s*(\d+)[:\s]+(.*?)\s*$", line)
        if match is None or int(match.group(1)) in names:
            raise FacetpuError(f"{path}: line {number} is not 'id  name' with a new id: {line!r}")
        names[int(match.group(1))] = match.group(2)
    if sorted(names) != list(range(len(names))):
        raise FacetpuError(f"{path}: the ids are not 0 to {len(names) - 1}; number the lines in order")
    return [names[index] for index in range(len(names))]
