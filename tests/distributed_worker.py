"""One worker of a training on several devices: RECORDS RUN BATCH KIND, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Train a tiny network; KIND is none, mirrored (two logical CPUs) or multi_worker."""
    records, run, batch, kind = sys.argv[1:]
    from facetpu.nets.tensorflow import tf

    if kind == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from facetpu.config import TrainConfig
    from facetpu.stages.train import train

    config = TrainConfig.model_validate(
        {
            "network": {"depth_multiplier": 0.25, "image_size": 32, "embedding_dim": 8},
            "steps": 6,
            "batch_size": int(batch),
            "optimizer": {"clip_norm": 2.0, "average": 0.5},
            "distribute": None if kind == "none" else kind,
        }
    )
    train(config, Path(records), Path(run))


main()
