"""The report of an evaluation: one page with its curves, its worst pairs and its people, and the PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..artefacts import write_text
from ..image import read_image
from ..page import write_page
from .curves import PEOPLE, draw_cmc, draw_det, draw_map, draw_open_set, draw_photos, draw_roc, draw_scores
from .figures import REPORT, Evaluated, as_json
from .identification import share

PAGE = "evaluation.html"
WORST = 12  # pairs of either kind that are shown
MAP_CROPS = 40  # of a person on the map


class ShownPair(NamedTuple):
    """A pair that the model gets wrong, with its pictures."""

    first: np.ndarray
    second: np.ndarray
    names: list[str]
    cosine: float


def write_evaluation_page(folder: Path, evaluated: Evaluated, root: Path, title: str) -> None:
    """Write figures, pictures and page into ``folder``.

    Args:
        folder: where to.
        evaluated: what to show.
        root: the crops' folder.
        title: what the crops are called.
    """
    evaluation, pairs, cosines = evaluated.evaluation, evaluated.pairs, evaluated.cosines
    write_text(folder / REPORT, as_json(evaluation))
    scores = 2 - 2 * cosines if evaluation.metric == "euclidean" else cosines
    draw_roc(folder / "roc.png", evaluated.curve, int(np.sum(~pairs.same)))
    draw_det(folder / "det.png", evaluated.curve)
    draw_scores(folder / "scores.png", scores, pairs.same, evaluation.threshold, evaluation.metric_name())
    pictures = {"roc": folder / "roc.png", "det": folder / "det.png", "scores": folder / "scores.png"}
    identification = evaluation.identification
    if identification:
        pictures["cmc"] = folder / "cmc.png"
        draw_cmc(pictures["cmc"], identification)
        if len(identification.rates) > 1:
            pictures["photos"] = folder / "photos.png"
            draw_photos(pictures["photos"], identification)
        if identification.curve:
            pictures["open_set"] = folder / "open_set.png"
            draw_open_set(pictures["open_set"], identification)
    method = _draw_people(folder / "map.png", evaluated)
    if method:
        pictures["map"] = folder / "map.png"
    write_page(
        folder / PAGE,
        "evaluation.html",
        e=evaluation,
        crops=title,
        pictures=pictures,
        map_method=method,
        worst=_worst_pairs(evaluated, root),
        share=share,
    )


def _worst_pairs(evaluated: Evaluated, root: Path) -> dict[str, list[ShownPair]]:
    """The different pairs most alike, and the same-person pairs least alike."""
    pairs, cosines = evaluated.pairs, evaluated.cosines
    alike = [index for index in np.argsort(-cosines, kind="stable") if not pairs.same[index]][:WORST]
    unlike = [index for index in np.argsort(cosines, kind="stable") if pairs.same[index]][:WORST]

    def shown(index: int) -> ShownPair:
        crops = [pairs.crops[pairs.first[index]], pairs.crops[pairs.second[index]]]
        first, second = (read_image(root / crop) for crop in crops)
        return ShownPair(first, second, [_caption(crop) for crop in crops], float(cosines[index]))

    return {"alike": [shown(index) for index in alike], "unlike": [shown(index) for index in unlike]}


def _caption(crop: Path) -> str:
    """A crop by its name, with its person's where that does not say it."""
    return crop.stem if crop.parent.name in crop.stem else crop.with_suffix("").as_posix()


def _draw_people(path: Path, evaluated: Evaluated) -> str | None:
    """The people with the most crops on a map; the method that drew it, None where there are too few."""
    people: dict[str, list[int]] = {}
    for row, crop in enumerate(evaluated.crops):
        if len(crop.parts) > 1:
            people.setdefault(crop.parts[0], []).append(row)
    largest = sorted(people, key=lambda name: (-len(people[name]), name))[: len(PEOPLE)]
    rows = [row for name in largest for row in people[name][:MAP_CROPS]]
    if len(largest) < 2 or len(rows) < 10:
        return None
    points, method = project(evaluated.embeddings[rows])
    draw_map(path, points, [evaluated.crops[row].parts[0] for row in rows])
    return method


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
    """Embeddings on a plane, by t-SNE where scikit-learn is installed and by principal components else.

    Args:
        embeddings: float [N,D], N > 3.

    Returns:
        float [N,2], and the name of the method.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # scikit-learn brings it
    except ImportError:
        centred = embeddings - embeddings.mean(axis=0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        return left[:, :2] * sizes[:2], "principal components"
    settings: dict[str, Any] = {"metric": "cosine", "init": "random", "random_state": 0}
    perplexity = min(30, (len(embeddings) - 1) / 3)
    with threadpool_limits(1):  # its threads wait for each other at every step: slower on a busy machine
        return TSNE(perplexity=perplexity, **settings).fit_transform(embeddings), "t-SNE"
