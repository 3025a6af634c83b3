"""The batches of a training's steps, mined triplets and the teacher's targets among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import FacetpuError
from .learner import Learner
from .mining import mine, mining_rows
from .records import Batch, Held, hold, some_photos, training_batches
from .sampling import Choose, read_index, sampler
from .teacher import Targets, read_targets

log = logging.getLogger(__name__)


class Feed:
    """The batches of ``learner``; mined triplets are kept in the folder ``run``."""

    def __init__(self, learner: Learner, run: Path) -> None:
        self.learner = learner
        self.crew = learner.crew
        self.config = learner.config
        self.records = learner.records
        self.run = run
        self.targets = self._read_targets()
        self.choose = self._sampler()
        self.held: Held | None = None

    def _read_targets(self) -> Targets | None:
        config = self.config
        if config.teacher is None:
            return None
        with self.crew.chief_first():  # the others find its embeddings beside the records, if they see them
            targets = read_targets(config.teacher, self.records)
        if targets.dim != config.network.embedding_dim:
            raise FacetpuError(
                f"{config.teacher.model}: gives embeddings of {targets.dim} and network.embedding_dim "
                f"is {config.network.embedding_dim}; make them equal"
            )
        return targets

    def batches(self) -> Iterator[Batch]:
        """The batches of every step that is left; mined ones in stretches, each with its own triplets."""
        self.held = hold(self.records)
        if self.config.loss.name != "triplet_mined":
            yield from self._stretch(self.learner.done, self.choose)
            return
        every = self.config.loss.mine_every
        while True:
            begin = self.learner.done // every * every
            batches = self._stretch(self.learner.done, self._mined(begin))
            for _ in range(begin + every - self.learner.done):
                yield next(batches)

    def _stretch(self, start: int, choose: Choose | None) -> Iterator[Batch]:
        teach = self.targets.of if self.targets else None
        return iter(
            training_batches(self.records, self.config, start, choose, teach, self.crew.share, self.held)
        )

    def _sampler(self) -> Choose | None:
        """The choice of photos that the config asks for, checked before anything is trained."""
        config = self.config
        if config.sampling.by == "photos" and config.loss.name != "triplet_mined":
            return None
        labels = read_index(self.records.train).labels
        return sampler(labels, config.sampling, config.batch_size, config.seed)

    def _mined(self, begin: int) -> Choose:
        """The batches of mined triplets from step ``begin`` on, which the chief mines."""
        config = self.config
        triplets = self.crew.tell_rows(self._mine(begin) if self.crew.chief else None, width=3)

        def choose(step: int) -> np.ndarray:
            count = config.batch_size // 3
            places = np.arange((step - begin) * count, (step - begin + 1) * count) % len(triplets)
            return np.asarray(triplets[places].reshape(-1))

        return choose

    def _mine(self, begin: int) -> np.ndarray:
        """Triplets for the steps from ``begin`` on; a resumed training finds them on disk."""
        config, folder = self.config, self.run / "mined"
        path = folder / f"step-{begin}.npy"
        if not (path.is_file() and begin < self.learner.done):
            folder.mkdir(exist_ok=True)
            labels = read_index(self.records.train).labels
            rows = mining_rows(labels, config.loss.mine_from, [config.seed, begin, 3])
            embeddings = self.learner.embed(some_photos(self.records, rows, config.batch_size))
            margin, unknown = self.learner.objective.margin, self.records.unknown
            triplets = mine(embeddings, labels[rows], margin, unknown, [config.seed, begin, 4])
            np.save(path, rows[triplets])
            log.info("step %d: mined %d triplets among %d photos", begin, len(triplets), len(rows))
        return np.asarray(np.load(path))
