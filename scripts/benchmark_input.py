"""Steps a second of a training, against the same step on one batch held in memory: CONFIG RECORDS [STEPS].

The two take turns, so that other work on the machine slows both alike. The target is 95%.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from facetpu.config import read_config
from facetpu.training.records import read_records
from facetpu.training.trainer import Trainer

WARM_UP = 5
TURNS = 6


def main() -> None:
    config, records = read_config(Path(sys.argv[1])), read_records(Path(sys.argv[2]))
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(config, records, Path(run))
        trainer.rate.assign(1e-4)
        batches = trainer._batches()
        held = next(batches)

        def rate(from_disk: bool) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                batch = next(batches) if from_disk else held
                float(trainer.update(batch.pixels, batch.labels, batch.targets))
            return steps / (time.perf_counter() - start)

        for _ in range(WARM_UP):
            trainer.update(held.pixels, held.labels, held.targets)
        pairs = [(rate(True), rate(False)) for _ in range(TURNS)]
    shares = [disk / memory for disk, memory in pairs]
    disk, memory = (statistics.median(side) * config.batch_size for side in zip(*pairs, strict=True))
    print(
        f"{disk:.1f} images/s from records, {memory:.1f} from memory: "
        f"{statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%} over {TURNS} turns)"
    )


main()
