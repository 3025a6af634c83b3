"""Damaged models, each from its number alone, and what facetpu makes of them.

``python tests/mutants.py FOLDER FIRST LAST EVERY`` takes those mutants through check, inspect, split, join,
Coral's imprinting engine as ours, and every EVERYth through the whole of imprint too. It prints a JSON line
for each step as it begins and as it ends, and the memory it took at last. It is a process of its own, since
what is looked for may end it: a step has 5 seconds, and all of them 1 GB of memory.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 5
GIGABYTE = 1 << 30
EDGES = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, -1, -2, -128, -(2**31))


def seeds() -> dict[str, bytes]:
    """The whole models: bases, heads and both, converted and compiled."""
    import small_export
    import small_models
    from compiled_models import compile_model
    from networks import base_network

    from facetpu.mtcnn.weights import write_networks
    from facetpu.tflite.concat import join_models

    base = small_export.build_base()
    with tempfile.TemporaryDirectory() as folder:
        write_networks(Path(folder))
        detector = (Path(folder) / "pnet.tflite").read_bytes()
    return {
        "pnet": detector,
        "base": base,
        "model": small_export.build_model(base),
        "head": small_models.head(description="0 1.5\n"),
        "converted": small_models.converted(),
        "joined": join_models(small_models.base(), small_models.head(), bypass=True),
        "network": base_network(),
        "compiled": compile_model(small_models.base()),
        "partial": compile_model(small_models.converted(), left=2),
    }


def mutant(number: int, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """The name of the model that mutant ``number`` was made of, and the mutant."""
    rng = random.Random(number)
    name = rng.choice(sorted(whole))
    kind = rng.choice([flipped, flipped, cut_short, *6 * [edited]])
    return name, kind(whole[name], rng)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Up to 8 bytes changed, often among the last, where the ops are, or the first."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        low, high = rng.choice([(0, len(data)), (0, 200), (len(data) - 3000, len(data))])
        changed[rng.randrange(max(0, low), min(high, len(data)))] = rng.choice(
            [0, 1, 255, rng.randrange(256)]
        )
    return bytes(changed)


def cut_short(data: bytes, rng: random.Random) -> bytes:
    """The first part, or with a part missing in the middle."""
    start = rng.randrange(len(data))
    return data[:start] + (data[start + rng.randint(1, 64) :] if rng.random() < 0.3 else b"")


def edited(data: bytes, rng: random.Random) -> bytes:
    """One to three fields of its tables changed, in a file that is whole otherwise."""
    from facetpu.errors import FacetpuError
    from facetpu.tflite.flatbuffer import encode
    from facetpu.tflite.model import read_model
    from facetpu.tflite.schema import IDENTIFIER, SCHEMA

    model = read_model(data)
    for _ in range(rng.randint(1, 3)):
        record = rng.choice([record for record in records(model) if record.fields])
        field = rng.choice(record.fields)
        try:
            setattr(
                record, field.name, changed(getattr(record, field.name), field, rng, list(records(model)))
            )
        except (TypeError, ValueError, IndexError):
            continue
    try:
        return encode(SCHEMA, model, identifier=IDENTIFIER)
    except (FacetpuError, TypeError, ValueError):  # no such file can be written: flip bytes instead
        return flipped(data, rng)


def records(record: Any, depth: int = 0) -> Iterator[Any]:
    """``record`` and all that is in it."""
    yield record
    for field in record.fields:
        value = getattr(record, field.name)
        for item in value if isinstance(value, list) else [value]:
            if hasattr(item, "fields") and depth < 8:
                yield from records(item, depth + 1)


def changed(value: Any, field: Any, rng: random.Random, others: list[Any]) -> Any:
    """Another value for ``field``."""
    if rng.random() < 0.1:
        return field.default
    if field.kind == "scalar":
        if field.of == "bool":
            return not value
        if field.of.startswith("float"):
            return rng.choice([0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-40])
        low, high = np.iinfo(field.of).min, np.iinfo(field.of).max
        return min(high, max(low, rng.choice([*EDGES, value + 1, value - 1, rng.randrange(64)])))
    if field.kind == "array":
        array = np.array([] if value is None else value)
        kind = rng.randrange(4)
        if kind == 0 or not array.size:
            return np.append(array, rng.choice(EDGES[:12])).astype(array.dtype if array.size else np.int32)
        if kind == 1:
            return array[: rng.randrange(array.size)]
        with np.errstate(all="ignore"):
            array[rng.randrange(array.size)] = np.array(rng.choice(EDGES)).astype(array.dtype)
        return array
    if field.kind in ("text", "bytes"):
        return rng.choice(["", "x" * 300, "\x00\x1b[2J", "0 1.5\n1 nan\n", "embedding", None])
    if field.many and value:
        kind = rng.randrange(3)
        items = list(value)
        if kind == 0:
            del items[rng.randrange(len(items))]
        elif kind == 1:
            items.append(rng.choice(items))
        else:
            rng.shuffle(items)
        return items
    alike = [other for other in others if type(other).__name__ == field.of or field.kind == "union"]
    return rng.choice([None, *alike]) if not field.many else [rng.choice(alike)]


class Bench:
    """Where the mutants are tried: an export folder, a photo, and good models to join them with."""

    def __init__(self, folder: Path) -> None:
        from PIL import Image
        from small_export import write_export

        from facetpu.portraits import write_people

        self.folder, self.whole = folder, seeds()
        self.people = folder / "people"
        write_people(self.people, 1, 1)
        (photo,) = self.people.rglob("*.jpg")
        Image.open(photo).resize((100, 100)).save(photo)
        self.export = write_export(folder / "export")
        self.path = folder / "mutant.tflite"

    def steps(self, name: str, data: bytes) -> dict[str, Callable[[], Any]]:
        """What is tried on a mutant of the model ``name``."""
        self.path.write_bytes(data)
        return {
            "check": lambda: self.check(data),
            "inspect": self.inspect,
            "split": lambda: self.split(data),
            "join": lambda: self.join(data),
            "engine": lambda: self.engine(data),
            "imprint": lambda: self.imprint(name, data),
        }

    def check(self, data: bytes) -> None:
        from facetpu.edgetpu.support import check, require_readable
        from facetpu.tflite.model import read_model

        model = read_model(data)
        assert all(bool(op.reason) == (op.target == "CPU") for op in check(model))
        require_readable(model, "mutant")

    def inspect(self) -> None:
        from facetpu.edgetpu.inspect import inspect
        from facetpu.options import as_document

        found = inspect(self.path)
        json.loads(as_document(found))
        str(found)

    def split(self, data: bytes) -> None:
        from facetpu.errors import FacetpuError
        from facetpu.tflite.concat import join_models
        from facetpu.tflite.cut import split_model
        from facetpu.tflite.model import read_model

        names = [tensor.name for tensor in read_model(data).subgraphs[0].tensors]
        refusals = []
        tried = [None, *names[:: max(1, len(names) // 3)]]
        for name in tried:
            try:
                parts = split_model(data, name)
                for part in parts:
                    read_model(part)
                read_model(join_models(*parts))
            except FacetpuError as error:
                refusals.append(error)
        if len(refusals) == len(tried):
            raise refusals[0]

    def join(self, data: bytes) -> None:
        from facetpu.errors import FacetpuError
        from facetpu.tflite.concat import join_models
        from facetpu.tflite.model import read_model

        refusals = []
        for name in ("head", "base"):
            for pair in ((data, self.whole[name]), (self.whole[name], data)):
                try:
                    read_model(join_models(*pair))
                except FacetpuError as error:
                    refusals.append(error)
        if len(refusals) == 4:
            raise refusals[0]

    def engine(self, data: bytes) -> None:
        from facetpu.board.imprint import ImprintingEngine
        from facetpu.tflite.model import read_model

        for keep in (True, False):
            engine = ImprintingEngine(data, keep_classes=keep)
            engine.train(np.ones(engine.embedding_dim, np.float32), engine.num_classes)
            read_model(engine.serialize_model())
            read_model(engine.serialize_extractor_model())

    def imprint(self, name: str, data: bytes) -> None:
        from facetpu.board.enrol import imprint

        target = {"base": "base.tflite", "pnet": "detector/pnet.tflite"}.get(name, "model.tflite")
        good = (self.export / target).read_bytes()
        (self.export / target).write_bytes(data)
        try:
            imprint(self.export, self.people, self.folder / "known", overwrite=True)
        finally:
            (self.export / target).write_bytes(good)


def main(folder: str, first: int, last: int, every: int) -> None:
    """Try the mutants from ``first`` to before ``last``, in ``folder``."""
    from facetpu.errors import FacetpuError

    logging.getLogger("facetpu").setLevel(logging.CRITICAL)
    bench = Bench(Path(folder))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(first, last):
        name, data = mutant(number, bench.whole)
        for step, act in bench.steps(name, data).items():
            if step == "imprint" and number % every:
                continue
            print(json.dumps({"mutant": number, "of": name, "step": step}), flush=True)
            signal.alarm(SECONDS)
            try:
                act()
                said = ""
            except FacetpuError as error:
                said = str(error) or "an error without a word"
            signal.alarm(0)
            print(json.dumps({"said": said}), flush=True)
    print(json.dumps({"kilobytes": _peak()}))


def _peak() -> int:
    """The most memory that this process ever held, in kB; ``ru_maxrss`` begins with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
