"""classify: imprinted rows against other classifiers, on the same photos and the same strangers."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..artefacts import check_new, digest, finished, new_folder, write_manifest, write_text
from ..errors import FacetpuError
from ..evaluation.classifiers import CLASSIFIERS, Judged, Split, judge
from ..evaluation.embedders import find_source
from ..evaluation.embeddings import embed_crops
from ..evaluation.identification import FPIR, Spread, share
from ..evaluation.text_table import text_table
from ..people import people_under

log = logging.getLogger(__name__)

REPORT, PREDICTIONS = "classifiers.json", "predictions.csv"


class ClassifyConfig(NamedTuple):
    """How to compare.

    Attributes:
        classifiers: names of ``classifiers.CLASSIFIERS``.
        photos: to learn each person from, where the crops are not two folders.
        repeats: draws of those photos.
        false_accepts: share of strangers that a threshold may let through.
        unknown: the folder whose photos are strangers, if there is one.
        seed: of the draws.
    """

    classifiers: Sequence[str] = tuple(CLASSIFIERS)
    photos: int = 5
    repeats: int = 10
    false_accepts: float = 0.01
    unknown: str = "unknown"
    seed: int = 0


class Row(NamedTuple):
    """A classifier's figures, each as (mean, deviation) over the draws; shares are 0 to 1.

    The attributes are those of ``classifiers.Judged``; ``fit_ms`` is for all people, ``face_us`` for one
    face.
    """

    classifier: str
    top1: Spread
    dir: dict[str, Spread] | None
    right: Spread | None
    misnamed: Spread | None
    accepted: Spread | None
    fit_ms: float
    face_us: float


class Comparison(NamedTuple):
    """Classifiers on the same photos."""

    model: str
    people: int
    learnt: int  # photos, in each draw
    told: int
    strangers: int
    repeats: int
    false_accepts: float
    classifiers: list[Row]

    def __str__(self) -> str:
        judged = all(row.right is not None for row in self.classifiers)
        head = f"{self.model}: {self.people} people, {self.learnt} photos learnt, {self.told} told apart"
        titles = ["", "top-1"]
        if self.strangers:
            head += f", {self.strangers} of strangers"
            titles += ["DIR at FPIR 1%", "at 10%"]
        if judged:
            titles += ["right*", "misnamed*", "strangers*"]
        head += f"; {self.repeats} draws" if self.repeats > 1 else ""
        table = text_table([[*titles, "fit ms", "us/face"], *map(_cells, self.classifiers)])
        note = [f"  * at a threshold for {self.false_accepts:.0%} of other strangers"] if judged else []
        return "\n".join([head, *("  " + line for line in table), *note])


def _cells(row: Row) -> list[str]:
    rates = [row.dir[rate] for rate in FPIR] if row.dir else []
    judged = [value for value in (row.right, row.misnamed, row.accepted) if value is not None]
    shares = map(share, [row.top1, *rates, *judged])
    return [row.classifier, *shares, f"{row.fit_ms:.1f}", f"{row.face_us:.1f}"]


def classify(
    model: Path,
    crops: Path,
    test: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    config: ClassifyConfig | None = None,
) -> Comparison:
    """Learn the people of ``crops`` with each classifier and tell the photos of ``test`` apart.

    Args:
        model: as for ``evaluate``.
        crops: a folder for each person, and one of strangers who set the threshold.
        test: a folder for each of the same people, and one of other strangers. Unless given, the photos of
            ``crops`` are drawn apart: some of each person to learn, the rest to tell; half the
            strangers to set the threshold on, half to judge it.
        out: a folder for the table and for what each classifier says of each photo, in the last draw.
        overwrite: replace ``out``.
        config: how to compare.

    Raises:
        FacetpuError: fewer than two people, somebody without photos enough, a person in ``test`` who is
            not in ``crops``, a broken model, or scikit-learn is not installed.
    """
    config = config or ClassifyConfig()
    source = find_source(model)
    folders = [crops] if test is None else [crops, test]
    settings = {**config._asdict(), "classifiers": list(config.classifiers)}
    inputs = {"model": source.digest()}
    listed = [people_under(folder) for folder in folders]
    inputs.update({name: digest(folder) for name, folder in zip(("crops", "test"), folders, strict=False)})
    if out is not None:
        if finished(out, "classify", settings, inputs):
            log.info("%s: is up to date; nothing to do", out)
            return _read(out / REPORT)
        check_new(out, overwrite)
    names = _people(listed, folders, config)
    files = [
        (folder, photo) for folder, people in zip(folders, listed, strict=True) for photo in _photos(people)
    ]
    embeddings = np.concatenate(
        [
            embed_crops(source, folder, [photo.relative_to(folder) for of, photo in files if of is folder])
            for folder in folders
        ]
    )
    number = {name: position for position, name in enumerate(names)}
    people = np.array([number.get(photo.relative_to(folder).parts[0], -1) for folder, photo in files])
    splits = _splits(people, np.array([folder is test for folder, _ in files]), test is not None, config)
    comparison, last = _compare(source.path.name, embeddings, people, splits, config, len(names))
    if out is not None:
        with new_folder(out, overwrite) as folder:
            write_text(
                folder / REPORT, json.dumps(_document(comparison), indent=1, ensure_ascii=False) + "\n"
            )
            shown = [photo.relative_to(root).as_posix() for root, photo in files]
            _write_predictions(folder / PREDICTIONS, shown, names, splits[-1].test, last)
            write_manifest(folder, "classify", settings, inputs)
    return comparison


def _people(listed: list[dict[str, list[Path]]], folders: list[Path], config: ClassifyConfig) -> list[str]:
    """The names of the known people, checked to have photos enough."""
    names = sorted(set(listed[0]) - {config.unknown})
    if len(names) < 2:
        raise FacetpuError(
            f"{folders[0]}: has {len(names)} known people, and classifiers tell two or more apart"
        )
    if len(folders) == 1:
        poor = [name for name in names if len(listed[0][name]) <= config.photos]
        if poor:
            raise FacetpuError(
                f"{folders[0] / poor[0]}: has {len(listed[0][poor[0]])} photos, and learning {config.photos} "
                f"and telling the rest takes {config.photos + 1} or more; add photos or learn fewer"
            )
        return names
    strange = sorted(set(listed[1]) - {*names, config.unknown})
    if strange:
        raise FacetpuError(
            f"{folders[1] / strange[0]}: is of nobody in {folders[0]}; put strangers into a folder "
            f"{config.unknown!r}"
        )
    if not set(listed[1]) & set(names):
        raise FacetpuError(
            f"{folders[1]}: holds nobody of {folders[0]}; give other photos of the same people"
        )
    return names


def _photos(people: dict[str, list[Path]]) -> list[Path]:
    return [photo for photos in people.values() for photo in photos]


def _splits(people: np.ndarray, in_test: np.ndarray, two: bool, config: ClassifyConfig) -> list[Split]:
    known = people >= 0
    if two:
        parts = (known & ~in_test, known & in_test, ~known & ~in_test, ~known & in_test)
        return [Split(*map(np.flatnonzero, parts))]
    rng = np.random.default_rng(config.seed)
    splits = []
    for _ in range(config.repeats):
        order = rng.permutation(len(people))
        of_people = [order[people[order] == person] for person in range(people.max() + 1)]
        strangers = order[people[order] < 0]
        splits.append(
            Split(
                np.concatenate([rows[: config.photos] for rows in of_people]),
                np.sort(np.concatenate([rows[config.photos :] for rows in of_people])),
                strangers[: len(strangers) // 2],
                strangers[len(strangers) // 2 :],
            )
        )
    return splits


def _compare(
    model: str,
    embeddings: np.ndarray,
    people: np.ndarray,
    splits: list[Split],
    config: ClassifyConfig,
    size: int,
) -> tuple[Comparison, dict[str, Judged]]:
    rows, last = [], {}
    for name in config.classifiers:
        judged, fit, tell = [], 0.0, 0.0
        for split in splits:
            start = time.perf_counter()
            scorer = CLASSIFIERS[name](embeddings[split.train], people[split.train])
            fitted = time.perf_counter()
            scorer(embeddings[split.test])
            told = time.perf_counter()
            fit, tell = fit + fitted - start, tell + (told - fitted) / len(split.test)
            judged.append(judge(scorer, embeddings, people, split, config.false_accepts, FPIR))
        last[name] = judged[-1]
        rows.append(_row(name, judged, 1e3 * fit / len(splits), 1e6 * tell / len(splits)))
    first = splits[0]
    counts = (size, len(first.train), len(first.test), len(first.strangers), len(splits))
    return Comparison(model, *counts, config.false_accepts, rows), last


def _row(name: str, judged: list[Judged], fit_ms: float, face_us: float) -> Row:
    dirs = [one.dir for one in judged if one.dir]
    return Row(
        classifier=name,
        top1=_spread([one.top1 for one in judged]),
        dir={rate: _spread([one[rate] for one in dirs]) for rate in dirs[0]} if dirs else None,
        right=_spread_of(judged, "right"),
        misnamed=_spread_of(judged, "misnamed"),
        accepted=_spread_of(judged, "accepted"),
        fit_ms=fit_ms,
        face_us=face_us,
    )


def _spread_of(judged: list[Judged], field: str) -> Spread | None:
    values = [getattr(one, field) for one in judged]
    return None if None in values else _spread(values)


def _spread(values: Sequence[float]) -> Spread:
    return (float(np.mean(values)), float(np.std(values)))


def _write_predictions(
    path: Path, photos: list[str], names: list[str], told: np.ndarray, judged: dict[str, Judged]
) -> None:
    """Whom each classifier sees on each photo, with its score; a name below the threshold is bracketed."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["photo", *(column for name in judged for column in (name, f"{name} score"))])
        for index, photo in enumerate(told):
            row = [photos[photo]]
            for one in judged.values():
                refused = one.threshold is not None and one.score[index] < one.threshold
                name = names[one.best[index]]
                row += [f"[{name}]" if refused else name, f"{one.score[index]:.4f}"]
            rows.writerow(row)


def _document(comparison: Comparison) -> dict[str, object]:
    return {**comparison._asdict(), "classifiers": [row._asdict() for row in comparison.classifiers]}


def _read(path: Path) -> Comparison:
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["classifiers"] = [Row(**row) for row in fields["classifiers"]]
    return Comparison(**fields)
