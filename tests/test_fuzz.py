"""Damaged models are refused in words, or taken: none crashes, hangs or eats the machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models

from facetpu import trial
from facetpu.board.imprint import ImprintingEngine
from facetpu.errors import FacetpuError
from facetpu.tflite.build import Builder
from facetpu.tflite.flatbuffer import encode
from facetpu.tflite.model import read_model, write_model
from facetpu.tflite.schema import IDENTIFIER, SCHEMA, new
from facetpu.trial import require_runnable

MUTANTS = Path(__file__).with_name("mutants.py")
STEPS = {"check", "inspect", "split", "join", "engine", "imprint"}


def outcomes(folder: Path, first: int, last: int, every: int) -> Counter[tuple[str, bool]]:
    """How often each step took a mutant, and refused one; fails on any other end."""
    command = [sys.executable, MUTANTS, folder, str(first), str(last), str(every)]
    paths = {"PYTHONPATH": str(MUTANTS.parents[1])}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, errors="replace")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"{lines[-1:]} ended with {done.returncode}: {done.stderr[-3000:]}"
    *steps, used = lines
    assert used["kilobytes"] < 1 << 20
    found: Counter[tuple[str, bool]] = Counter()
    for begun, ended in zip(steps[::2], steps[1::2], strict=True):
        assert "\n" not in ended["said"], begun
        found[begun["step"], not ended["said"]] += 1
    return found


def test_some_hundred_mutants(tmp_path: Path) -> None:
    found = outcomes(tmp_path, 0, 240, every=4)
    assert {step for step, _ in found} == STEPS
    for step in STEPS:  # some are harmless, some are not: else nothing was tried
        assert found[step, True], step
        assert found[step, False], step


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 5000, 500))
def test_five_thousand_mutants(tmp_path: Path, first: int) -> None:
    found = outcomes(tmp_path, first, first + 500, every=1)
    assert sum(found.values()) == 500 * len(STEPS)


# -- what the mutants found


def without_inputs(model: Any, op: int) -> None:
    model.subgraphs[0].operators[op].inputs = np.empty(0, np.int32)


def constant(model: Any, op: int, place: int) -> Any:
    """The buffer of an op's constant input."""
    graph = model.subgraphs[0]
    return model.buffers[graph.tensors[graph.operators[op].inputs[place]].buffer]


HEADS = {
    "a list of metadata buffers that are not there": lambda model: setattr(
        model, "metadata_buffer", np.array([99], np.int32)
    ),
    "an L2 norm without input": lambda model: without_inputs(model, 0),
    "a reshape without input": lambda model: without_inputs(model, 3),
    "a convolution's output without shape": lambda model: setattr(
        model.subgraphs[0].tensors[model.subgraphs[0].operators[1].outputs[0]], "shape", None
    ),
    "an empty factor": lambda model: setattr(constant(model, 2, 1), "data", np.empty(0, np.uint8)),
    "a kernel cut short": lambda model: setattr(constant(model, 1, 1), "data", np.zeros(17, np.uint8)),
    "a new shape of five bytes": lambda model: setattr(constant(model, 3, 1), "data", np.zeros(5, np.uint8)),
}


@pytest.mark.parametrize("damage", HEADS)
def test_a_damaged_head_is_refused_in_words(damage: str) -> None:
    model = read_model(small_models.head())
    HEADS[damage](model)
    data = encode(SCHEMA, model, identifier=IDENTIFIER)
    with pytest.raises(FacetpuError):
        ImprintingEngine(data, keep_classes=True)


def test_a_reshape_with_another_ops_options_is_taken_by_its_constant() -> None:
    model = read_model(small_models.head())
    reshape = model.subgraphs[0].operators[3]
    reshape.builtin_options = new("Conv2DOptions")
    engine = ImprintingEngine(write_model(model))
    engine.train(np.ones(engine.embedding_dim, np.float32), 0)
    assert read_model(engine.serialize_model()).subgraphs[0].tensors[-1].shape.tolist() == [1, 1]


# -- what only a first run finds


def filled(side: int, ops: int = 1) -> bytes:
    """A model that makes ``side`` x ``side`` numbers out of nothing and takes their sines in turn."""
    net = Builder()
    net.input("image", [1, 4])
    shape = net.constant("shape", np.array([1, side, side, 1], np.int32))
    last = net.activation("filled", [1, side, side, 1])
    net.op("FILL", [shape, net.constant("value", np.array(0.5, np.float32))], [last])
    for number in range(ops):
        source, last = last, net.activation(f"out{number}", [1, side, side, 1])
        net.op("SIN", [source], [last])
    return net.finish([last])


def test_a_model_that_runs_passes() -> None:
    require_runnable(small_models.base(), "m")
    require_runnable(filled(10), "m")


def test_a_model_that_crashes_the_runtime_is_refused() -> None:
    model = read_model(small_models.converted())
    model.subgraphs[0].tensors[0].quantization.zero_point = np.array([-128], np.int64)
    with pytest.raises(FacetpuError, match=r"^m: crashes the TFLite runtime for one run: it is damaged; get"):
        require_runnable(write_model(model), "m")


def test_a_copy_that_fails_for_its_own_reasons_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_limit_memory", lambda: os.kill(os.getpid(), signal.SIGSEGV))
    require_runnable(small_models.base(), "m")


def test_a_model_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1)
    with pytest.raises(FacetpuError, match=r"^m: takes more than 1 s for one run: it is damaged; get it"):
        require_runnable(filled(5000, ops=300), "m")


def test_a_model_that_takes_too_much_memory_is_refused() -> None:
    with pytest.raises(
        FacetpuError, match=r"^m: \w+ [\d.]+ refuses it: 1 GB of memory is not enough for it$"
    ):
        require_runnable(filled(1 << 15), "m")


def test_what_the_runtime_refuses_is_refused_in_its_words() -> None:
    net = Builder()
    image = net.input("image", [1, 4])
    out = net.activation("out", [1, 5])
    net.op("RESHAPE", [image], [out], new("ReshapeOptions", new_shape=np.array([1, 5], np.int32)))
    with pytest.raises(FacetpuError, match=r"^m: \w+ [\d.]+ refuses it: .*reshape"):
        require_runnable(net.finish([out]), "m")
