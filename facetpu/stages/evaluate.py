"""evaluate: how well a model tells people apart, and knows a stranger; the same on float, int8 and TPU."""

from __future__ import annotations

import csv
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import metrics
from ..artefacts import check_new, digest, finished, new_folder, read_manifest, write_manifest
from ..engines import Engine
from ..errors import FacetpuError
from ..evaluation.embedders import Source, find_source
from ..evaluation.embeddings import embed_crops
from ..evaluation.fairness import group_rates, read_groups
from ..evaluation.figures import Evaluated, Evaluation, read_evaluation
from ..evaluation.identification import identify_draws
from ..evaluation.page import write_evaluation_page
from ..evaluation.pairs import CAP, SEED, Pairs, draw_pairs, read_bin, read_pairs
from ..people import check_folder, people_under

log = logging.getLogger(__name__)

FAR = ("0.1", "0.01", "0.001")
GROUPS_FAR = "0.01"  # the groups are held against each other at the threshold for this rate
SCORES = "pairs.csv"
BIN = ".bin"

# The squared distances that validate_on_lfw of davidsandberg/facenet tries, as cosines of unit rows.
FACENET_THRESHOLDS = 1 - np.arange(0, 4, 0.01) / 2


class EvaluateConfig(NamedTuple):
    """What to measure, and how.

    Attributes:
        metric: ``cosine``, or ``euclidean`` for squared distances of L2-normalised embeddings at facenet's
            own thresholds. Both rank pairs alike; euclidean figures compare with facenet's to the digit.
        flip: average the embedding of a crop with that of its mirror image.
        identify: numbers of photos to enrol a person and identify the rest with; none for pairs alone.
        repeats: draws of the enrolled photos.
        false_accepts: share of strangers that the threshold of identification may let through.
        enrolled: a file of names, one a line; everybody with photos enough unless given.
        strangers: a file of names; everybody who is not enrolled unless given.
        groups: a CSV of what people or photos are, for error rates by group.
    """

    metric: str = "cosine"
    flip: bool = False
    identify: Sequence[int] = ()
    repeats: int = 10
    false_accepts: float = 0.01
    enrolled: Path | None = None
    strangers: Path | None = None
    groups: Path | None = None


def evaluate(
    model: Path,
    crops: Path,
    pairs: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    config: EvaluateConfig | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """Verify pairs of ``crops`` by the LFW protocol with the embeddings of ``model``; identify people.

    Args:
        model: a run, a frozen graph or its folder, a .tflite, an export folder (its quantised base), or
            an .npz of embeddings.
        crops: ``PERSON/PHOTO.png``, of the size that the model takes; or insightface's .bin of pairs.
        pairs: a pairs file in any layout of ``pair_files``; drawn from the crops' people unless given.
        out: a folder for the figures, the report and its pictures, and the score of each pair.
        overwrite: replace ``out``.
        config: what to measure; pairs by cosine unless given.
        engine: what runs the model; this process unless given.

    Raises:
        FacetpuError: the model is none or broken, a crop has another size or cannot be read, there are
            no pairs to verify, or people to enrol have no photos enough.
    """
    config = config or EvaluateConfig()
    source = find_source(model)
    _check(crops, pairs, config)
    settings = _settings(config, pairs is None and crops.suffix != BIN)
    inputs: dict[str, str] = {}
    if out is not None:
        inputs = _inputs(source, crops, pairs, config)
        if finished(out, "evaluate", settings, inputs):
            log.info("%s: is up to date; nothing to do", out)
            return read_evaluation(out)
        check_new(out, overwrite)
    with tempfile.TemporaryDirectory() as unpacked:
        if crops.suffix == BIN:
            drawn, root = read_bin(crops, Path(unpacked)), Path(unpacked)
        else:
            drawn, root = read_pairs(pairs, crops) if pairs else draw_pairs(crops), crops
            _check_alignment(source, model, crops)
        evaluated = _measure(source, root, drawn, config, engine)
        if out is not None:
            with new_folder(out, overwrite) as folder:
                write_evaluation_page(folder, evaluated, root, crops.stem)
                _write_scores(folder / SCORES, evaluated)
                figures = {name: getattr(evaluated.evaluation, name) for name in ("model", "accuracy", "auc")}
                write_manifest(folder, "evaluate", settings, inputs, **figures)
    return evaluated.evaluation


def _check(crops: Path, pairs: Path | None, config: EvaluateConfig) -> None:
    if crops.suffix == BIN and crops.is_file():
        if pairs or config.identify or config.groups:
            raise FacetpuError(f"{crops}: holds its own pairs and no names, so it is for verification alone")
        return
    check_folder(crops)
    if not config.identify and (config.enrolled or config.strangers):
        raise FacetpuError(
            "a list of the enrolled or of strangers is for identification; give --identify too"
        )
    for file in (pairs, config.enrolled, config.strangers, config.groups):
        if file is not None and not file.exists():
            raise FacetpuError(f"{file}: no such file")


def _settings(config: EvaluateConfig, drawn: bool) -> dict[str, Any]:
    """What the figures depend on besides the files."""
    settings: dict[str, Any] = (
        {"protocol": "drawn", "cap": CAP, "seed": SEED} if drawn else {"protocol": "lfw"}
    )
    settings.update(metric=config.metric, flip=config.flip, identify=sorted(set(config.identify)))
    if config.identify:
        settings.update(repeats=config.repeats, false_accepts=config.false_accepts)
    return settings


def _inputs(source: Source, crops: Path, pairs: Path | None, config: EvaluateConfig) -> dict[str, str]:
    """The digests of all files that the figures depend on."""
    lists = {"enrolled": config.enrolled, "strangers": config.strangers, "groups": config.groups}
    files = {"crops": crops, "pairs": pairs, **lists}
    given = {name: digest(file) for name, file in files.items() if file is not None}
    return {"model": source.digest(), **given}


def _measure(
    source: Source, root: Path, pairs: Pairs, config: EvaluateConfig, engine: Engine | None
) -> Evaluated:
    by_person = people_under(root) if config.identify else {}
    photos = {photo.relative_to(root): name for name, files in by_person.items() for photo in files}
    crops = sorted({*pairs.crops, *photos})
    groups = read_groups(config.groups, pairs.crops) if config.groups else {}
    lists = _lists(config, by_person) if config.identify else None
    embeddings = embed_crops(source, root, crops, config.flip, engine)
    row = {crop: number for number, crop in enumerate(crops)}
    of_pairs = embeddings[[row[crop] for crop in pairs.crops]]
    cosines = np.einsum("ij,ij->i", of_pairs[pairs.first], of_pairs[pairs.second], dtype=np.float64)
    if np.ptp(cosines) == 0:
        raise FacetpuError(
            f"{source.path}: gives all {len(cosines)} pairs the score {cosines[0]:.6f}, so it is broken; "
            "train or export it again"
        )
    evaluation, curve = _verification(source.path.name, of_pairs, pairs, cosines, config)
    if groups:
        threshold = metrics.threshold_at_far(cosines[~pairs.same], float(GROUPS_FAR))
        evaluation = evaluation._replace(groups=group_rates(groups, pairs, cosines, threshold))
    if lists is not None:
        names = list(by_person)
        number = {name: position for position, name in enumerate(names)}
        owners = np.array([number.get(photos.get(crop, ""), -1) for crop in crops])
        identification = identify_draws(
            embeddings, owners, names, *lists, config.identify, config.repeats, config.false_accepts
        )
        evaluation = evaluation._replace(identification=identification)
    return Evaluated(evaluation, pairs, cosines, curve, crops, embeddings)


def _verification(
    model: str, embeddings: np.ndarray, pairs: Pairs, cosines: np.ndarray, config: EvaluateConfig
) -> tuple[Evaluation, metrics.Roc]:
    euclidean = config.metric == "euclidean"
    curve = metrics.roc(cosines, pairs.same)
    folds = metrics.verify_folds(cosines, pairs.same, pairs.folds, FACENET_THRESHOLDS if euclidean else None)
    different = cosines[~pairs.same]
    thresholds = {far: metrics.threshold_at_far(different, float(far)) for far in FAR}
    val = metrics.validate_folds(cosines, pairs.same, pairs.folds, float(FAR[-1]))
    evaluation = Evaluation(
        model=model,
        metric=config.metric,
        flip=config.flip,
        accuracy=folds.accuracy,
        std=folds.std,
        auc=metrics.auc(curve),
        eer=metrics.equal_error_rate(curve),
        tar={far: metrics.tar_at_far(curve, float(far)) for far in FAR},
        thresholds={far: shown(cosine, config.metric) for far, cosine in thresholds.items()},
        val=val.val,
        val_std=val.std,
        val_far=val.far,
        threshold=shown(folds.threshold, config.metric),
        rank1=_rank1(embeddings, pairs),
        people=None if pairs.people is None else len(np.unique(pairs.people)),
        crops=len(pairs.crops),
        pairs=len(pairs.same),
        missing=pairs.missing,
        missing_crops=list(pairs.missing_crops),
        folds=folds.folds,
    )
    return evaluation, curve


def shown(cosine: float, metric: str) -> float:
    """A cosine in the metric asked for: itself, or the squared distance of two rows of length 1."""
    return 2 - 2 * cosine if metric == "euclidean" else cosine


def _rank1(embeddings: np.ndarray, pairs: Pairs) -> float | None:
    """Each person's first crop enrolled, the others identified among all of them."""
    if pairs.people is None:
        return None
    people, first = np.unique(pairs.people, return_index=True)
    others = np.setdiff1d(np.arange(len(pairs.people)), first)
    if not len(others):
        return None
    return metrics.rank1(embeddings[first], people, embeddings[others], pairs.people[others])


def _lists(config: EvaluateConfig, by_person: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the people to enrol, and of the strangers."""
    names = list(by_person)
    most = max(config.identify)
    if config.enrolled is not None:
        enrolled = _named(config.enrolled, names)
    else:
        listed = set(_named(config.strangers, names)) if config.strangers else set()
        enrolled = [
            number
            for number, name in enumerate(names)
            if len(by_person[name]) > most and number not in listed
        ]
    if config.strangers is None:
        return np.array(enrolled, int), np.setdiff1d(np.arange(len(names)), enrolled)
    strangers = _named(config.strangers, names)
    both = set(strangers) & set(enrolled)
    if both:
        raise FacetpuError(f"{config.strangers}: {names[min(both)]} is enrolled, and so no stranger")
    return np.array(enrolled, int), np.array(strangers, int)


def _named(file: Path, names: list[str]) -> list[int]:
    """The numbers of the people that ``file`` lists."""
    listed = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not listed:
        raise FacetpuError(f"{file}: names nobody; write one name a line, or leave the list out")
    number = {name: position for position, name in enumerate(names)}
    unknown = [name for name in listed if name not in number]
    if unknown:
        raise FacetpuError(f"{file}: {unknown[0]} has no folder of crops; mend the name or leave it out")
    return sorted({number[name] for name in listed})


def _check_alignment(source: Source, model: Path, crops: Path) -> None:
    """Warn of crops cut in another way than those the model was trained on: it costs per cents."""
    of_model, of_crops = source.alignment(), read_manifest(crops).get("alignment")
    if of_model and of_crops and of_model != of_crops:
        log.warning("%s is for crops cut as %s, and %s are cut as %s", model, of_model, crops, of_crops)


def _write_scores(path: Path, evaluated: Evaluated) -> None:
    """Every pair with its score, so that the ones it gets wrong can be looked at."""
    pairs, metric = evaluated.pairs, evaluated.evaluation.metric
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["fold", "first", "second", "same", metric])
        columns = (pairs.folds, pairs.first, pairs.second, pairs.same, evaluated.cosines)
        for fold, a, b, same, cosine in zip(*columns, strict=True):
            first, second = pairs.crops[a].as_posix(), pairs.crops[b].as_posix()
            rows.writerow([fold, first, second, int(same), f"{shown(cosine, metric):.6f}"])
