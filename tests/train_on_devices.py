"""Train in a process of its own, as each worker of several is: TRAININGS (JSON), CPUS, STEPS A FIGURE.

TensorFlow settles what devices it has, and which workers it belongs to, once in a process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from conftest import tiny

from facetpu.config import TrainConfig
from facetpu.errors import FacetpuError
from facetpu.nets.tensorflow import tf


def main() -> None:
    trainings, cpus, every = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpus)
    network = tiny.__wrapped__()
    next(network)
    from facetpu.stages.train import train
    from facetpu.training import trainer

    trainer.SUMMARY_EVERY = every
    for training in trainings:
        config = TrainConfig.model_validate(training["config"])
        try:
            print(
                train(config, Path(training["records"]), Path(training["run"]), training.get("resume", False))
            )
        except FacetpuError as error:
            sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
