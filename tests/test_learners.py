"""The other ways to learn: Google's own engine where it is installed, and softmax regression."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_export import DIM, SIZE, build_base, unit_rows, write_export
from test_gallery import gallery_of

from facetpu.artefacts import digest
from facetpu.board.enrol import imprint
from facetpu.board.gallery import normalised
from facetpu.board.people import remove_person
from facetpu.board.softmax import STRANGER, join_softmax, train_softmax
from facetpu.board.threshold import Cohort
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.labels import read_labels
from facetpu.portraits import write_people
from facetpu.runtime import interpreter
from facetpu.tflite.head import quantize_rows
from facetpu.tflite.model import op_number, read_model
from facetpu.tflite.schema import BuiltinOperator

# A stand-in for Google's package, which has no wheel for the Pythons here: its interface, our engine.
STAND_IN = """
from facetpu.board.imprint import ImprintingEngine as Ours

class ImprintingEngine:
    def __init__(self, model_path, keep_classes=False):
        assert isinstance(model_path, str)
        self._engine = Ours(model_path, keep_classes)

    def train(self, embedding, class_id):
        self._engine.train(embedding, class_id)

    def serialize_model(self):
        return bytearray(self._engine.serialize_model())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos") / "people"
    write_people(root, 2, 2)
    return root


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to import packages from, with no pycoral loaded."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "pycoral"]:
        monkeypatch.delitem(sys.modules, name)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "pycoral"]:
        del sys.modules[name]


def package(folder: Path, engine: str | None) -> None:
    """A package pycoral, with Google's engine in it or not."""
    (folder / "pycoral").mkdir()
    (folder / "pycoral" / "__init__.py").write_text("")
    if engine is not None:
        deep = folder / "pycoral" / "learn" / "imprinting"
        deep.mkdir(parents=True)
        for inner in (deep.parent, deep):
            (inner / "__init__.py").write_text("")
        (deep / "engine.py").write_text(engine)


# --- Google's engine ---


def test_googles_engine_is_fed_what_ours_is(
    model: Path, people: Path, packages: Path, tmp_path: Path
) -> None:
    package(packages, STAND_IN)
    imprint(model, people, tmp_path / "theirs", engine="pycoral", accept_all=True)
    imprint(model, people, tmp_path / "ours", accept_all=True)
    assert digest(tmp_path / "theirs" / "model.tflite") == digest(tmp_path / "ours" / "model.tflite")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            None,
            "this pycoral is not Google's but the package of that name on PyPI; uninstall it, then run apt",
        ),
        ("from . import _pywrap", "pycoral cannot be loaded: cannot import name '_pywrap'"),
        ("import tflite_runtime_of_google", "pycoral cannot be loaded: No module named 'tflite_runtime_of"),
    ],
)
def test_a_pycoral_that_is_not_googles_or_cannot_be_loaded_is_named(
    model: Path, people: Path, packages: Path, tmp_path: Path, engine: str | None, message: str
) -> None:
    package(packages, engine)
    done = CliRunner().invoke(
        main, ["imprint", str(model), str(people), str(tmp_path / "out"), "--engine", "pycoral"]
    )
    assert done.exit_code == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_pycoral_the_way_to_it_is_told(model: Path, people: Path, tmp_path: Path) -> None:
    if shutil.which("edgetpu_demo"):
        pytest.skip("Coral's software is installed")
    with pytest.raises(FacetpuError, match="pycoral is not installed; run apt-get install python3-pycoral"):
        imprint(model, people, tmp_path / "out", engine="pycoral")


# --- Softmax regression ---


def strangers(count: int, seed: int) -> Cohort:
    return Cohort(unit_rows(count, seed=seed), np.arange(count, dtype=np.int32))


def test_a_softmax_names_the_people_and_calls_strangers_so() -> None:
    gallery = gallery_of({"Ana": 5, "Bea": 5, "Cyd": 5}, dim=DIM)
    layer = train_softmax(gallery, strangers(300, 9))
    assert layer.weights.shape == (4, DIM)
    rng = np.random.default_rng(1)
    others = normalised(gallery.vectors().repeat(20, axis=0) + 0.05 * rng.normal(size=(60, DIM)))
    assert (others @ layer.weights.T + layer.biases).argmax(axis=1).tolist() == [0] * 20 + [1] * 20 + [2] * 20
    fresh = strangers(300, 10).embeddings @ layer.weights.T + layer.biases
    assert (fresh.argmax(axis=1) == 3).mean() > 0.98
    again = train_softmax(gallery, strangers(300, 9))
    assert np.array_equal(again.weights, layer.weights)


def test_a_softmax_without_strangers_is_refused() -> None:
    gallery = gallery_of({"Ana": 2}, dim=DIM)
    for cohort in (None, strangers(9, 0)):
        with pytest.raises(FacetpuError, match="needs 10 faces of strangers, or it names every face"):
            train_softmax(gallery, cohort)


def run(model: bytes, crop: np.ndarray) -> np.ndarray:
    opened = interpreter(model)
    opened.allocate_tensors()
    opened.set_tensor(opened.get_input_details()[0]["index"], crop[None])
    opened.invoke()
    output: np.ndarray = opened.get_tensor(opened.get_output_details()[0]["index"])
    return output.ravel()


def test_the_joined_model_gives_the_layers_probabilities_in_corals_form() -> None:
    base = build_base()
    layer = train_softmax(gallery_of({"Ana": 5, "Bea": 5}, dim=DIM), strangers(100, 9))
    joined = join_softmax(base, layer)
    record = read_model(joined)
    numbers = [op_number(record.operator_codes[op.opcode_index]) for op in record.subgraphs[0].operators]
    assert numbers[-4:] == [
        BuiltinOperator.L2_NORMALIZATION,
        BuiltinOperator.FULLY_CONNECTED,
        BuiltinOperator.RESHAPE,
        BuiltinOperator.SOFTMAX,
    ]
    for crop in np.random.default_rng(0).integers(0, 256, [5, SIZE, SIZE, 3], np.uint8):
        unit = normalised((run(base, crop).astype(np.float32) - 120) * np.float32(0.02))
        unit = (quantize_rows(unit, 1 / 128, 128).astype(np.float32) - 128) / 128
        logits = np.clip(unit @ layer.weights.T + layer.biases, layer.lowest, layer.highest)
        expected = np.exp(logits - logits.max())
        expected /= expected.sum()
        np.testing.assert_allclose(run(joined, crop) / 256, expected, atol=0.06)


def test_the_softmax_model_stands_beside_the_imprinted_one_and_changes_with_it(
    model: Path, people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    imprint(model, people, out, learner="softmax", accept_all=True)
    names = sorted(folder.name for folder in people.iterdir())
    assert read_labels(out / "labels_softmax.txt") == [*names, STRANGER]
    assert stat.S_IMODE((out / "model_softmax.tflite").stat().st_mode) == 0o600
    crop = np.zeros((SIZE, SIZE, 3), np.uint8)
    assert run((out / "model_softmax.tflite").read_bytes(), crop).shape == (3,)
    remove_person(out, names[0])
    assert read_labels(out / "labels_softmax.txt") == [names[1], STRANGER]
    assert run((out / "model_softmax.tflite").read_bytes(), crop).shape == (2,)
    remaining = tmp_path / "remaining"
    shutil.copytree(people / names[1], remaining / names[1])
    imprint(model, remaining, tmp_path / "fresh", learner="softmax", accept_all=True)
    assert digest(tmp_path / "fresh" / "model_softmax.tflite") == digest(out / "model_softmax.tflite")
