"""compare: the same photos through every form of a network, so that a loss is seen where it arises."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import metrics
from ..artefacts import check_new, digest, finished, new_folder, write_manifest, write_text
from ..board.folder import BASE, BASE_EDGETPU
from ..errors import FacetpuError
from ..evaluation.embedders import CHECKPOINTS, EMBEDDINGS, Source, find_source, open_embedder
from ..evaluation.embeddings import embed_crops
from ..evaluation.pairs import Pairs, draw_pairs, read_pairs
from ..evaluation.text_table import text_table

log = logging.getLogger(__name__)

REPORT = "chain.json"
BASE_FLOAT = "base_float.tflite"
CPU_TWIN = "CPU twin"
TIMED = 30  # runs of one crop


class Step(NamedTuple):
    """A form of the network.

    Attributes:
        form: checkpoint, frozen, float, int8, or Edge TPU.
        file: what gave the embeddings.
        bytes: its size.
        accuracy: mean over the folds, 0 to 1.
        std: their deviation.
        auc: of the pairs.
        cosine: mean cosine of its embeddings with the first step's of the same crops.
        lowest_cosine: of the crop that differs most.
        ms: median time of one crop, alone, the reading of its file left out; None for embeddings of a file.
    """

    form: str
    file: str
    bytes: int
    accuracy: float
    std: float
    auc: float
    cosine: float
    lowest_cosine: float
    ms: float | None


class Chain(NamedTuple):
    """The forms of a network, in the order given, on the same pairs."""

    crops: int
    pairs: int
    steps: list[Step]
    notes: list[str]

    def __str__(self) -> str:
        titles = ["", "accuracy", "AUC", "cosine", "lowest", "ms/crop", "bytes"]
        rows = [
            [
                f"{step.form}: {step.file}",
                f"{step.accuracy:.2%} ± {100 * step.std:.2f}",
                f"{step.auc:.4f}",
                f"{step.cosine:.5f}",
                f"{step.lowest_cosine:.5f}",
                "-" if step.ms is None else f"{step.ms:.2f}",
                f"{step.bytes:,}",
            ]
            for step in self.steps
        ]
        head = f"{self.pairs:,} pairs of {self.crops:,} crops; cosine is to the first row's embeddings"
        return "\n".join([head, *("  " + line for line in [*text_table([titles, *rows]), *self.notes])])


def compare(
    crops: Path,
    models: Sequence[Path],
    pairs: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Chain:
    """Verify the same pairs with every one of ``models``.

    Args:
        crops: ``PERSON/PHOTO.png``, of the size that the models take.
        models: runs, frozen graphs, .tflite files, and export folders, which stand for their float base,
            their int8 base and, where there is an Edge TPU, their compiled one.
        pairs: a pairs file; drawn from the crops' people unless given.
        out: a folder for the table.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: a model is none or broken, their embeddings differ in length, or there are no pairs.
    """
    sources, notes = _sources(models)
    drawn = read_pairs(pairs, crops) if pairs else draw_pairs(crops)
    inputs = {f"model {number}": source.digest() for number, (_, source) in enumerate(sources)}
    inputs["crops"] = digest(crops)
    if pairs:
        inputs["pairs"] = digest(pairs)
    if out is not None:
        if finished(out, "compare", {}, inputs):
            log.info("%s: is up to date; nothing to do", out)
            return _read(out / REPORT)
        check_new(out, overwrite)
    steps: list[Step] = []
    first: np.ndarray = np.empty(0)
    for form, source in sources:
        log.info("%s: %s", form, source.path)
        rows = embed_crops(source, crops, drawn.crops)
        first = rows if not steps else first
        if rows.shape != first.shape:
            raise FacetpuError(
                f"{source.path}: gives {rows.shape[1]} numbers a crop and {sources[0][1].path} "
                f"{first.shape[1]}; compare forms of one network"
            )
        steps.append(_step(form, source, rows, first, drawn))
    chain = Chain(len(drawn.crops), len(drawn.same), steps, notes)
    if out is not None:
        with new_folder(out, overwrite) as folder:
            document = {**chain._asdict(), "steps": [step._asdict() for step in steps]}
            write_text(folder / REPORT, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
            write_manifest(folder, "compare", {}, inputs)
    return chain


def _sources(models: Sequence[Path]) -> tuple[list[tuple[str, Source]], list[str]]:
    """Every form that ``models`` name, and what is to be said of those that cannot run here."""
    sources: list[tuple[str, Source]] = []
    notes: list[str] = []
    for model in models:
        if not model.is_dir() or not (model / BASE).is_file():
            sources.append(_form(find_source(model)))
            continue
        for name in (BASE_FLOAT, BASE, BASE_EDGETPU):
            path = model / name
            if not path.is_file():
                continue
            form, source = _form(Source("tflite", path))
            if form == CPU_TWIN:
                notes.append(f"{path}: there is no Edge TPU here; {BASE} is its twin on the CPU")
            else:
                sources.append((form, source))
    return sources, notes


def _form(source: Source) -> tuple[str, Source]:
    """A source with what it is called in the table."""
    if source.kind != "tflite":
        return {"run": "checkpoint"}.get(source.kind, source.kind), source
    from ..board.embed import Embedder

    embedder = Embedder(source.path)
    if source.path.name.endswith("_edgetpu.tflite"):
        return ("Edge TPU" if embedder.path == source.path else CPU_TWIN), source
    return ("float" if embedder.scale == 1 and not embedder.zero_point else "int8"), source


def _step(form: str, source: Source, rows: np.ndarray, first: np.ndarray, pairs: Pairs) -> Step:
    scores = np.einsum("ij,ij->i", rows[pairs.first], rows[pairs.second], dtype=np.float64)
    folds = metrics.verify_folds(scores, pairs.same, pairs.folds)
    cosines = np.einsum("ij,ij->i", rows, first, dtype=np.float64)
    return Step(
        form=form,
        file=source.path.name,
        bytes=_bytes(source),
        accuracy=folds.accuracy,
        std=folds.std,
        auc=metrics.auc(metrics.roc(scores, pairs.same)),
        cosine=float(cosines.mean()),
        lowest_cosine=float(cosines.min()),
        ms=_milliseconds(source),
    )


def _bytes(source: Source) -> int:
    """The size of the file; of a run, that of its newest checkpoint."""
    if source.kind != "run":
        return source.path.stat().st_size
    from ..nets.checkpoint import latest_checkpoint

    newest = Path(str(latest_checkpoint(source.path / CHECKPOINTS)))
    return sum(file.stat().st_size for file in newest.parent.glob(f"{newest.name}.*"))


def _milliseconds(source: Source) -> float | None:
    """The median time of one crop by itself."""
    if source.kind == EMBEDDINGS:
        return None
    embedder = open_embedder(source)
    crop = np.random.default_rng(0).integers(0, 256, (1, embedder.size, embedder.size, 3), np.uint8)
    times = []
    for _ in range(TIMED + 3):
        start = time.perf_counter()
        embedder.embed(crop)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def _read(path: Path) -> Chain:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["steps"] = [Step(**step) for step in fields["steps"]]
    return Chain(**fields)
