"""Training settings: read from YAML, with one line for what is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from facetpu.config import Optimizer, TrainConfig, read_config, write_config
from facetpu.errors import FacetpuError


def test_a_config_survives_being_written_and_read(tmp_path: Path) -> None:
    config = TrainConfig(epochs=2.5, seed=7, network={"depth_multiplier": 0.25})
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nbatchsize: 3\n", "batchsize is not a setting; did you mean batch_size?"),
        (
            "epochs: 1\noptimizer:\n  learning_rat: 3\n",
            "optimizer.learning_rat is not a setting; did you mean learning_rate?",
        ),
        (
            "epochs: 1\noptimizer:\n  name: sgd\n",
            "optimizer.name: should be 'momentum' or 'adam', not 'sgd'",
        ),
        ("epochs: 1\nbatch_size: 0\n", "batch_size: should be greater than or equal to 1, not 0"),
        ("seed: 1\n", "give either epochs or steps"),
        ("epochs: 1\nsteps: 1\n", "give either epochs or steps"),
        ("", "holds no settings; configs/ holds files to start from"),
        ("a: [1\n", "is not YAML: expected ',' or ']', but got '<stream end>', line 2"),
    ],
)
def test_a_wrong_config_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FacetpuError) as error:
        read_config(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_missing_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match="no such file"):
        read_config(tmp_path / "none.yaml")


def test_every_config_that_is_shipped_is_valid() -> None:
    configs = sorted(Path(__file__).parents[1].joinpath("configs").glob("*.yaml"))
    assert configs
    for path in configs:
        assert read_config(path)
        assert path.read_text(encoding="utf-8").startswith("# facetpu ")


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    optimizer = Optimizer(learning_rate=0.4, warmup=0.2)
    rates = [optimizer.learning_rate_at(step, 100) for step in range(100)]
    assert rates[:20] == pytest.approx([0.4 * (step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.4 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_epochs_and_steps_both_give_the_length() -> None:
    assert TrainConfig(steps=7).total_steps(photos=1000) == 7
    assert TrainConfig(epochs=3, batch_size=10).total_steps(photos=105) == 32
    assert TrainConfig(epochs=0.001).total_steps(photos=10) == 1
