"""The loop of a worker that is not the chief: it takes its part in every step, and writes nothing."""

from __future__ import annotations

import math
from pathlib import Path

from ..config import TrainConfig
from ..errors import FacetpuError
from .devices import Crew
from .feed import Feed
from .learner import Learner
from .records import Records


class Follower:
    """A learner that does what the chief's does, and what it is fed with."""

    def __init__(self, config: TrainConfig, records: Records, run: Path, crew: Crew) -> None:
        self.learner = Learner(config, records, crew)
        self.feed = Feed(self.learner, run)

    def train(self) -> None:
        """Train to the last step, or to where the chief ends.

        Raises:
            FacetpuError: another worker is gone, or the loss is no longer a number.
        """
        learner, share = self.learner, self.learner.crew.share
        batches = self.feed.batches()
        while learner.done < learner.steps:
            if learner.validates_here and learner.ends_here(stale=0):
                break
            loss = learner.advance(next(batches))
            if not math.isfinite(loss):
                raise FacetpuError(
                    f"worker {share.worker} of {share.workers}: the loss is {loss} at step {learner.done}; "
                    "see what worker 0 says of it"
                )
