"""What the chain writes opens in the runtimes of old boards, and gives the same there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_export import write_export
from test_board_pythons import CACHE, check, find_python

from facetpu.board.imprint import ImprintingEngine
from facetpu.edgetpu.graph import ops_of
from facetpu.edgetpu.support import NEWEST_BUILTIN, NEWEST_VERSIONS, require_readable
from facetpu.runtime import find_runtime
from facetpu.tflite.build import Builder
from facetpu.tflite.cut import split_model
from facetpu.tflite.dense import split_dense
from facetpu.tflite.model import read_model, type_name
from facetpu.tflite.schema import BuiltinOperator, new

# The oldest that PyPI has for Mendel's Python 3.7, and the TensorFlow of the compiler's and the board's day.
RUNTIMES = ["tflite-runtime==2.7.0", "tensorflow-cpu==2.5.3"]
# The compiler's TFLite is some months younger than TensorFlow 2.5 and knows one version more.
TENSORFLOW_2_5 = {**NEWEST_VERSIONS, "ADD": 3}

LOADER = """
import json, os, sys
import numpy as np
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    import tensorflow
    Interpreter = tensorflow.lite.Interpreter
"""
RUN = """
folder, target = sys.argv[1:]
inputs = dict(np.load(os.path.join(folder, "inputs.npz")))
outputs = {}
for name in inputs:
    net = Interpreter(model_path=os.path.join(folder, name))
    net.allocate_tensors()
    for number, value in enumerate(inputs[name]):
        net.set_tensor(net.get_input_details()[0]["index"], value)
        net.invoke()
        for detail in net.get_output_details():
            outputs["%s %s %d" % (name, detail["name"], number)] = net.get_tensor(detail["index"])
np.savez(target, **outputs)
"""
KNOWN = """
newest = {}
for name in sorted(os.listdir(sys.argv[1])):
    op, version = name[:-7].rsplit("-", 1)
    pid = os.fork()
    if not pid:
        try:
            Interpreter(model_path=os.path.join(sys.argv[1], name))
            known = True
        except ValueError as error:
            known = "Didn't find op for builtin opcode" not in str(error)
        os._exit(0 if known else 1)
    if os.waitpid(pid, 0)[1] != 256:
        newest[op] = max(newest.get(op, 0), int(version))
print(json.dumps(newest))
"""


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of each kind that the chain writes, small ones."""
    folder = tmp_path_factory.mktemp("artefacts")
    export = write_export(folder / "export")
    for path in sorted(export.rglob("*.tflite")):
        shutil.copy(path, folder / path.name)
    whole = (export / "model.tflite").read_bytes()
    (folder / "head.tflite").write_bytes(split_model(whole)[1])
    engine = ImprintingEngine(whole)
    for person in range(4):
        row = np.random.default_rng(person).normal(size=engine.embedding_dim)
        engine.train(row.astype(np.float32), person)
    (folder / "imprinted.tflite").write_bytes(engine.serialize_model())
    (folder / "extractor.tflite").write_bytes(engine.serialize_extractor_model())
    (folder / "dense.tflite").write_bytes(split_dense(dense(), "y", 3))
    shutil.rmtree(export)
    return folder


@pytest.fixture(scope="module")
def converted(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and the base that TensorFlow's converter of today makes of a network."""
    from crops import write_crops

    from facetpu.config import TrainConfig
    from facetpu.stages.freeze import freeze
    from facetpu.stages.pack import pack
    from facetpu.stages.quantize import quantize
    from facetpu.stages.train import train

    folder = tmp_path_factory.mktemp("converted")
    write_crops(folder / "crops", people=3, photos=6)
    pack(folder / "crops", folder / "records", shards=1, validation=0.2)
    network = {"depth_multiplier": 0.25, "image_size": 32, "embedding_dim": 16}
    config = TrainConfig.model_validate({"network": network, "steps": 2, "batch_size": 8})
    train(config, folder / "records", folder / "run")
    freeze(folder / "run", folder / "frozen")
    quantize(folder / "frozen", folder / "quantized", folder / "crops", samples=10)
    for name in ("base", "base_float", "head"):
        shutil.copy(folder / "quantized" / f"{name}.tflite", artefacts / f"converted_{name}.tflite")
    return artefacts


@pytest.fixture(scope="module", params=RUNTIMES)
def old_python(request: pytest.FixtureRequest) -> Path:
    """Python 3.7 with one of the old runtimes; kept for the next run."""
    home = CACHE / request.param.replace("==", "-")
    if not (home / ".ready").is_file():
        python = find_python("3.7")
        if python is None:
            pytest.skip("there is no Python 3.7 here")
        shutil.rmtree(home, ignore_errors=True)
        check([python, "-m", "venv", home])
        check(
            [home / "bin" / "python", "-m", "pip", "install", "-q", "--no-compile", request.param, "numpy<2"]
        )
        (home / ".ready").touch()
    return home / "bin" / "python"


def dense() -> bytes:
    random = np.random.default_rng(0)
    net = Builder()
    x = net.input("x", [1, 12], np.int8, 0.05)
    weights = net.constant("weights", random.integers(-127, 128, [9, 12], np.int8), 0.02)
    bias = net.constant("bias", random.integers(-99, 99, 9, np.int32), 0.001)
    y = net.activation("y", [1, 9], np.int8, 0.2)
    net.op("FULLY_CONNECTED", [x, weights, bias], [y], new("FullyConnectedOptions"), version=4)
    return net.finish([y])


def versions(path: Path) -> list[tuple[str, int]]:
    return sorted({(op.name, op.version) for op in ops_of(read_model(path))})


def test_every_op_is_of_a_version_that_tensorflow_2_5_runs(artefacts: Path) -> None:
    for path in sorted(artefacts.glob("*.tflite")):
        require_readable(read_model(path), str(path))
        newer = [(op, number) for op, number in versions(path) if number > TENSORFLOW_2_5.get(op, 1)]
        assert newer == [], path.name
    assert versions(artefacts / "imprinted.tflite") == [
        ("CONV_2D", 1), ("L2_NORMALIZATION", 1), ("MUL", 1), ("RESHAPE", 1), ("SOFTMAX", 1),
    ]  # fmt: skip


@pytest.mark.slow
def test_an_old_runtime_gives_the_same(old_python: Path, converted: Path, tmp_path: Path) -> None:
    models = sorted(converted.glob("*.tflite"))
    for path in models:
        newer = [(op, number) for op, number in versions(path) if number > TENSORFLOW_2_5.get(op, 1)]
        assert newer == [], path.name
    np.savez(converted / "inputs.npz", **{path.name: inputs(path) for path in models})
    check([old_python, "-c", LOADER + RUN, converted, tmp_path / "old.npz"])
    old = dict(np.load(tmp_path / "old.npz"))
    here = {kernels: outputs(converted, kernels) for kernels in ("BUILTIN", "BUILTIN_REF")}
    assert set(old) == set(here["BUILTIN"])
    apart = {
        model: min(levels_apart(old, found, model) for found in here.values())
        for model in sorted({name.split()[0] for name in old})
    }
    # What a converter makes of a whole network comes out one level apart from one runtime to the next;
    # every other model to the byte as this runtime's own reference or optimised kernels give it.
    assert {model: levels for model, levels in apart.items() if levels > model.startswith("converted")} == {}


def levels_apart(old: dict[str, np.ndarray], new: dict[str, np.ndarray], model: str) -> float:
    """The most by which a model's outputs differ, in levels of its integers; of floats, what passes 1e-4."""
    most = 0.0
    for name in old:
        if name.split()[0] == model:
            apart = np.abs(old[name].astype(np.float64) - new[name]).max()
            most = max(most, 0.0 if old[name].dtype.kind == "f" and apart < 1e-4 else float(apart))
    return most


def inputs(path: Path) -> np.ndarray:
    """Five random inputs of a model with one: [5, *shape]."""
    graph = read_model(path).subgraphs[0]
    tensor = graph.tensors[int(graph.inputs[0])]
    low = -128 if type_name(tensor) == "int8" else 0
    values = np.random.default_rng(7).integers(low, low + 256, [5, *tensor.shape])
    return values.astype(type_name(tensor))


def outputs(folder: Path, kernels: str) -> dict[str, np.ndarray]:
    """What today's runtime gives, by its reference kernels or by its optimised ones without XNNPACK."""
    module: Any = find_runtime().module
    kind = {"BUILTIN": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}.get(kernels, kernels)
    found = {}
    for name, values in np.load(folder / "inputs.npz").items():
        net = module.Interpreter(
            model_path=str(folder / name),
            experimental_op_resolver_type=getattr(module.OpResolverType, kind),
        )
        net.allocate_tensors()
        for number, value in enumerate(values):
            net.set_tensor(net.get_input_details()[0]["index"], value)
            net.invoke()
            for detail in net.get_output_details():
                found[f"{name} {detail['name']} {number}"] = net.get_tensor(detail["index"])
    return found


@pytest.mark.slow
def test_the_table_of_versions_is_tensorflow_2_5s(old_python: Path, tmp_path: Path) -> None:
    """Every version of every op is shown to the runtime, which knows it or does not."""
    if "tensorflow" not in str(old_python):
        pytest.skip("is about TensorFlow 2.5")
    ops = [op.name for op in BuiltinOperator if op <= NEWEST_BUILTIN and op != BuiltinOperator.CUSTOM]
    for op in ops:
        for version in range(1, 12):
            net = Builder()
            made = net.activation("y", [1])
            net.op(op, [net.input("x", [1])], [made], version=version)
            (tmp_path / f"{op}-{version}.tflite").write_bytes(net.finish([made]))
    known = json.loads(check([old_python, "-c", LOADER + KNOWN, tmp_path]).splitlines()[-1])
    unknown = {op for op in ops if op not in known}
    assert unknown == {"CONCAT_EMBEDDINGS", "CALL", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"}
    assert known == {op: TENSORFLOW_2_5.get(op, 1) for op in ops if op not in unknown}
