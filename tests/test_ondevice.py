"""The folders for phones and for a bare Raspberry Pi: the code in them tells people apart as facetpu does."""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_export import DIM, OUTPUT_SCALE, OUTPUT_ZERO_POINT, SIZE, unit_rows, write_export

from facetpu.artefacts import read_manifest, write_manifest
from facetpu.board.embed import Embedder
from facetpu.board.folder import ModelFolder
from facetpu.board.gallery import normalised
from facetpu.board.recogniser import base_digest
from facetpu.board.threshold import (
    SMALLEST_COHORT,
    Cohort,
    read_cohort,
    score_threshold,
    without_people,
    write_cohort,
)
from facetpu.errors import FacetpuError
from facetpu.image import ARCFACE_LANDMARKS, ARCFACE_SIZE, Face, align_face
from facetpu.ondevice.bundle import CODE, write_device_bundle
from facetpu.runtime import interpreter
from facetpu.tflite.head import build_head
from facetpu.tflite.metadata import read_metadata

NAMES = ["ann", "bob", "eve"]
# Faces in a photo of 400 x 300 pixels: small, middling, large, and beyond its borders; all turned. No side of
# theirs falls on a pixel's border, where rounding would decide which pixels are averaged.
_TURNED = ARCFACE_LANDMARKS @ np.array([(0.9, 0.3), (-0.3, 0.9)])
LANDMARKS = [
    _TURNED * scale + shift for scale, shift in ((0.5, 20.3), (1.3, 60.7), (2.6, 10.1), (4.2, -150.4))
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_export(tmp_path_factory.mktemp("ondevice") / "model")
    head = build_head(unit_rows(3), 10.0, OUTPUT_SCALE, OUTPUT_ZERO_POINT)
    (folder / "head.tflite").write_bytes(head)
    return folder


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Path:
    """The folder for a Raspberry Pi."""
    return write_device_bundle(exported, "pi", exported.with_name("pi")).folder


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Three crops of each of ``NAMES``, much alike, then three of strangers: uint8 [12, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(5)
    faces = rng.integers(30, 226, [6, 7, 7, 3])
    whole = np.kron(faces, np.ones((1, SIZE // 7, SIZE // 7, 1))).astype(int)
    numbers = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5]
    noise = rng.integers(-4, 5, [len(numbers), SIZE, SIZE, 3])
    return np.clip(whole[numbers] + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Smooth colours, uint8 [300, 400, 3]."""
    coarse = np.random.default_rng(2).integers(0, 256, [30, 40, 3]).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC))


def check_aligned(crops: np.ndarray, photo: np.ndarray) -> None:
    """See that ``crops`` are those of ``LANDMARKS``, but for a rounding here and there."""
    for crop, points in zip(crops, LANDMARKS, strict=True):
        wanted = align_face(photo, Face((0, 0, 1, 1), 1.0, points), "arcface", SIZE)
        assert np.abs(crop.astype(int) - wanted).max() <= 1
        assert (crop != wanted).mean() < 0.001


def write_crops(folder: Path, crops: np.ndarray) -> list[Path]:
    paths = [folder / f"{number:02}.png" for number in range(len(crops))]
    for path, crop in zip(paths, crops, strict=True):
        Image.fromarray(crop).save(path)
    return paths


def in_a_bare_python(folder: Path, code: str) -> None:
    """Run ``code`` beside the Pi's file where there is no facetpu to import."""
    alone = "import sys; sys.modules['facetpu'] = None\n"
    subprocess.run([sys.executable, "-c", alone + code], cwd=folder, check=True)


def means(embeddings: np.ndarray) -> np.ndarray:
    return normalised(embeddings[:9].reshape(3, 3, -1).sum(axis=1))


def test_a_bundle_holds_all_that_the_device_needs(exported: Path, bundle: Path) -> None:
    for target, code in CODE.items():
        out = write_device_bundle(exported, target, exported.with_name(target)).folder
        assert sorted(
            path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
        ) == sorted(
            [
                *("detector/onet.tflite", "detector/pnet.tflite", "detector/rnet.tflite", "labels.txt"),
                *("manifest.json", "recogniser.tflite", "strangers.tsv", code.name),
            ]
        )
        assert (out / code.name).read_bytes() == code.read_bytes()
    metadata = read_metadata((bundle / "recogniser.tflite").read_bytes())
    assert metadata is not None
    outputs = metadata.subgraph_metadata[0].output_tensor_metadata
    assert [output.name for output in outputs] == ["probability", "embedding"]


def test_the_one_model_gives_what_base_and_head_give(exported: Path, bundle: Path, crops: np.ndarray) -> None:
    runner = interpreter(bundle / "recogniser.tflite")
    runner.allocate_tensors()
    probability, embedding = runner.get_output_details()
    rows, model = Embedder(exported / "base.tflite").run(crops), interpreter(exported / "model.tflite")
    model.allocate_tensors()
    for crop, row in zip(crops, rows, strict=True):
        for each in (runner, model):
            each.set_tensor(each.get_input_details()[0]["index"], crop[None])
            each.invoke()
        assert (runner.get_tensor(embedding["index"]).ravel() == row).all()
        wanted = model.get_tensor(model.get_output_details()[0]["index"])
        assert (runner.get_tensor(probability["index"]) == wanted).all()


def test_the_strangers_are_the_cohort_by_name(exported: Path, bundle: Path) -> None:
    header, *lines = (bundle / "strangers.tsv").read_text(encoding="utf-8").splitlines()
    assert header == f"{base_digest(ModelFolder.find(exported))} 0.500000"
    names = [line.split("\t")[0] for line in lines]
    assert names[:8] == ["one", "one", "two", "two", "three", "three", "3", "3"]
    rows = [np.frombuffer(base64.b64decode(line.split("\t")[1]), "<f4") for line in lines]
    assert (np.stack(rows) == unit_rows(200)).all()


def test_a_second_bundle_is_the_same_and_not_written_again(exported: Path, bundle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    write_device_bundle(exported, "pi", bundle)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before
    again = write_device_bundle(exported, "pi", bundle.with_name("again")).folder
    assert (again / "recogniser.tflite").read_bytes() == (bundle / "recogniser.tflite").read_bytes()


def test_a_model_for_faces_in_boxes_is_refused(exported: Path, tmp_path: Path) -> None:
    boxed = write_export(tmp_path / "boxed")
    (boxed / "head.tflite").write_bytes((exported / "head.tflite").read_bytes())
    alignment = {"template": "box", "size": SIZE, "margin": 44}
    write_manifest(boxed, "export", {}, {}, alignment=alignment, embedding_dim=DIM, threshold=0.5)
    with pytest.raises(FacetpuError, match=r"by their box, and Faces\.kt aligns them by five points"):
        write_device_bundle(boxed, "android", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Raspberry Pi


def test_embeddings_on_the_pi_are_facetpus(
    exported: Path, bundle: Path, crops: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "crops.npy", crops)
    in_a_bare_python(
        bundle,
        "import numpy as np, pathlib, faces\n"
        "from PIL import Image\n"
        f"recogniser = faces.Recogniser(pathlib.Path('.'), pathlib.Path({str(tmp_path / 'none')!r}))\n"
        f"crops = np.load({str(tmp_path / 'crops.npy')!r})\n"
        "rows = [recogniser.embed(Image.fromarray(crop)) for crop in crops]\n"
        f"np.save({str(tmp_path / 'rows.npy')!r}, rows)\n"
        "label, probability = recogniser.classify(Image.fromarray(crops[0]))\n"
        "assert label in ('one', 'two', 'three') and 0 < probability <= 1, (label, probability)\n",
    )
    wanted = Embedder(exported / "base.tflite").embed(crops)
    np.testing.assert_allclose(np.load(tmp_path / "rows.npy"), wanted, atol=1e-6)


def test_the_pi_cuts_a_face_out_as_facetpu_does(bundle: Path, photo: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", photo=photo, sets=LANDMARKS)
    in_a_bare_python(
        bundle,
        "import numpy as np, faces\n"
        "from PIL import Image\n"
        f"given = np.load({str(tmp_path / 'in.npz')!r})\n"
        "photo = Image.fromarray(given['photo'])\n"
        "crops = [np.asarray(faces.align(photo, points, 112)) for points in given['sets']]\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, crops)\n",
    )
    check_aligned(np.load(tmp_path / "out.npy"), photo)


@pytest.mark.slow
def test_the_pis_command_enrols_knows_and_forgets(bundle: Path, crops: np.ndarray, tmp_path: Path) -> None:
    paths = [str(path) for path in write_crops(tmp_path, crops)]
    people = bundle / "people.tsv"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "faces.py", *arguments]
        return subprocess.run(command, cwd=bundle, capture_output=True, text=True)

    try:
        assert "python3 faces.py enrol" in run().stderr
        assert run("identify", paths[0]).stdout == f"{paths[0]}: a stranger (0.000, threshold 0.500)\n"
        for number, name in enumerate(NAMES):
            assert run("enrol", name, *paths[3 * number : 3 * number + 2]).returncode == 0
        assert people.stat().st_mode & 0o777 == 0o600
        known = [line.split(": ")[1].split(" (")[0] for line in run("identify", *paths).stdout.splitlines()]
        assert known == [name for name in NAMES for _ in range(3)] + ["a stranger"] * 3
        assert "python3 faces.py erase" in run("erase", "ann", "bob").stderr
        before = people.read_bytes()
        refusal = run("erase", "nobody").stderr
        assert "faces.py: nobody is called 'nobody'\n" in refusal
        assert "Traceback" not in refusal
        assert people.read_bytes() == before
        assert run("erase", "bob").returncode == 0
        assert "bob" not in people.read_text(encoding="utf-8")
        assert ": a stranger (" in run("identify", paths[3]).stdout
        people.write_text("another\n" + people.read_text().split("\n", 1)[1])
        assert "is of another model; enrol everybody again" in run("identify", paths[0]).stderr
        people.write_text("")
        assert f"{people}: is empty; delete it and enrol everybody again" in run("identify", paths[0]).stderr
    finally:
        people.unlink(missing_ok=True)


@pytest.mark.slow
def test_the_pis_command_names_the_file_it_cannot_use(
    bundle: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    whole, cut, text = (tmp_path / name for name in ("photo.png", "cut.png", "text.png"))
    Image.fromarray(photo).save(whole)
    cut.write_bytes(whole.read_bytes()[:2000])
    text.write_text("no picture")
    for path, reason in (
        (whole, f"a crop has {SIZE} x {SIZE} pixels, not 400 x 300"),
        (cut, ""),
        (text, "cannot identify image file"),
        (tmp_path / "none.png", "No such file or directory"),
    ):
        command = [sys.executable, "faces.py", "enrol", "ann", str(path)]
        done = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"faces.py: {path}: {reason}" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (bundle / "people.tsv").exists()


def test_whom_the_pi_cannot_write_down_it_does_not_know(bundle: Path, tmp_path: Path) -> None:
    in_a_bare_python(
        bundle,
        "import numpy as np, pathlib, faces\n"
        f"people = pathlib.Path({str(tmp_path / 'people.tsv')!r})\n"
        "recogniser = faces.Recogniser(pathlib.Path('.'), people)\n"
        "recogniser.enrol('ann', [np.ones(4, np.float32)])\n"
        "people.with_suffix('.new').mkdir()\n"
        "for change in (lambda: recogniser.enrol('bob', []), lambda: recogniser.erase('ann')):\n"
        "    try:\n"
        "        change()\n"
        "    except OSError:\n"
        "        assert list(recogniser.people) == ['ann']\n"
        "    else:\n"
        "        raise AssertionError\n",
    )


@pytest.mark.parametrize("faces", [*(pytest.param(few, marks=pytest.mark.slow) for few in (8, 40)), 200])
def test_the_pis_threshold_is_facetpus(
    exported: Path, bundle: Path, crops: np.ndarray, tmp_path: Path, faces: int
) -> None:
    """Of three people, one of whom is among the strangers by name."""
    other = write_export(tmp_path / "model")
    (other / "head.tflite").write_bytes((exported / "head.tflite").read_bytes())
    (other / "cohort.npz").unlink()
    cohort = Cohort(unit_rows(faces), np.arange(faces, dtype=np.int32) // 2)
    write_cohort(other / "cohort.npz", cohort)
    out = write_device_bundle(other, "pi", tmp_path / "pi").folder
    embeddings = Embedder(other / "base.tflite").embed(crops)
    np.save(tmp_path / "rows.npy", embeddings[:9])
    in_a_bare_python(
        out,
        "import numpy as np, pathlib, faces\n"
        f"rows = np.load({str(tmp_path / 'rows.npy')!r})\n"
        "recogniser = faces.Recogniser(pathlib.Path('.'), pathlib.Path('people.tsv'))\n"
        "for number, name in enumerate(('one', 'bob', 'eve')):\n"
        "    recogniser.enrol(name, list(rows[3 * number: 3 * number + 3]))\n"
        "again = faces.Recogniser(pathlib.Path('.'), pathlib.Path('people.tsv'))\n"
        "assert again.threshold() == recogniser.threshold()\n"
        f"np.save({str(tmp_path / 'threshold.npy')!r}, again.threshold())\n",
    )
    scores = (without_people(cohort, [0]).embeddings @ means(embeddings).T).max(axis=1)
    wanted = 0.5 if faces == 8 else score_threshold(scores, 0.01)
    assert np.load(tmp_path / "threshold.npy") == pytest.approx(wanted, abs=1e-6)
    assert read_manifest(out)["config"] == {"target": "pi"}


# --- phones: the code is compiled and run here against a stand-in for the phone's LiteRT


class AtTheOtherEnd:
    """Runs the model for a stand-in's interpreter, over the pipes of its process."""

    def __init__(self, command: list[str], bundle: Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._runner = interpreter(bundle / "recogniser.tflite")
        self._runner.allocate_tensors()
        self._model = (bundle / "recogniser.tflite").read_bytes()

    def serve(self) -> None:
        """Until the process ends, which must be well."""
        while command := self._from.read(1):
            {b"M": self._open, b"R": self._run}[command]()
        assert self._process.wait(60) == 0

    def _open(self) -> None:
        (size,) = struct.unpack(">i", self._from.read(4))
        assert self._from.read(size) == self._model
        self._to.write(struct.pack(">i", SIZE))
        for output in self._runner.get_output_details():
            scale, zero_point = output["quantization"]
            self._to.write(struct.pack(">ifi", int(np.prod(output["shape"])), scale, zero_point))
        self._to.flush()

    def _run(self) -> None:
        crop = np.frombuffer(self._from.read(SIZE * SIZE * 3), np.uint8).reshape(1, SIZE, SIZE, 3)
        self._runner.set_tensor(self._runner.get_input_details()[0]["index"], crop)
        self._runner.invoke()
        for output in self._runner.get_output_details():
            self._to.write(self._runner.get_tensor(output["index"]).tobytes())
        self._to.flush()


def compiled(target: str, code: Path, work: Path) -> list[str]:
    """The command that runs the phone's ``code`` with a stand-in for its LiteRT; needs its compiler."""
    here = Path(__file__).parent / "ondevice"
    compiler = shutil.which({"android": "kotlinc", "ios": "swiftc"}[target])
    if compiler is None or (target == "android" and not shutil.which("java")):
        pytest.skip(f"{code.name} can be compiled by no compiler here; it was read only for its constants")
    if target == "android":
        sources = [str(code), str(here / "standin_litert.kt"), str(here / "main.kt")]
        jar = str(work / "faces.jar")
        subprocess.run([compiler, *sources, "-Werror", "-include-runtime", "-d", jar], check=True)
        return ["java", "-cp", jar, "facetpu.MainKt"]
    library = [
        str(here / "standin_tensorflow_lite.swift"),
        "-parse-as-library",
        "-module-name",
        "TensorFlowLite",
    ]
    for command in (
        [*library, "-emit-module", "-emit-object", "-o", "lite.o"],
        [
            str(code),
            str(here / "main.swift"),
            "lite.o",
            "-I",
            ".",
            "-warnings-as-errors",
            "-static-stdlib",
            "-o",
            "faces",
        ],
    ):
        subprocess.run([compiler, *command], cwd=work, check=True)
    return [str(work / "faces")]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["android", "ios"])
def test_a_phones_code_does_as_facetpu(
    exported: Path, crops: np.ndarray, photo: np.ndarray, tmp_path: Path, target: str
) -> None:
    out = write_device_bundle(exported, target, tmp_path / "bundle").folder
    command = compiled(target, out / CODE[target].name, tmp_path)
    crops.tofile(tmp_path / "crops.bin")
    photo.tofile(tmp_path / "photo.bin")
    (tmp_path / "photo.txt").write_text(f"{photo.shape[1]} {photo.shape[0]}\n")
    np.savetxt(tmp_path / "landmarks.txt", np.reshape(LANDMARKS, (-1, 10)), "%.17g")
    AtTheOtherEnd([*command, str(out), str(tmp_path)], out).serve()

    wanted = Embedder(exported / "base.tflite").embed(crops)
    rows = np.fromfile(tmp_path / "rows.bin", "<f4").reshape(len(crops), -1)
    np.testing.assert_allclose(rows, wanted, atol=1e-6)
    cut = np.fromfile(tmp_path / "aligned.bin", np.uint8).reshape(-1, SIZE, SIZE, 3)
    check_aligned(cut, photo)

    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    label, probability = lines[0].split(" ")
    assert label in ("one", "two", "three")
    assert 1 / 3 <= float(probability) <= 1
    assert lines[1] == "null 0.5"
    cohort = without_people(read_cohort(exported / "cohort.npz", DIM), [0])
    scores = (cohort.embeddings @ means(wanted).T).max(axis=1)
    assert [float(number) for number in lines[2].split(" ")] == pytest.approx(
        [score_threshold(scores, 0.01)] * 2, abs=1e-6
    )
    names, cosines = zip(*(line.split(" ") for line in lines[3 : 3 + len(crops)]), strict=True)
    assert list(names) == [name for name in ("one", "bøb", "eve") for _ in range(3)] + ["null"] * 3
    nearest = (wanted @ means(wanted).T).max(axis=1)
    assert [float(cosine) for cosine in cosines] == pytest.approx(nearest.tolist(), abs=1e-6)
    assert lines[3 + len(crops) :] == [
        "one eve",
        "'a\tb' is no name",
        "nobody is called 'bøb'",
        f"a crop has {SIZE} x {SIZE} pixels of 3 bytes",
        f"{tmp_path / 'people.tsv'}: is of another model; enrol everybody again",
        f"{tmp_path / 'people.tsv'}: is empty; delete it and enrol everybody again",
        "true 0",  # who could not be written down is not known
    ]


def test_the_codes_constants_are_facetpus() -> None:
    """So that they cannot drift apart where no compiler is at hand."""
    number = re.compile(r"\d+\.\d+(?:e-?\d+)?")
    reference = [f"{value:.4f}" for value in ARCFACE_LANDMARKS.ravel()]
    for code in CODE.values():
        text = code.read_text(encoding="utf-8")
        numbers = number.findall(text[: text.index("class Faces" if code.suffix != ".py" else "class Rec")])
        assert numbers[-10:] == reference
        assert re.search(r"false_?accepts = 0\.01\b", text, re.IGNORECASE)
        assert re.search(rf"fewest_?strangers = {SMALLEST_COHORT}\b", text, re.IGNORECASE)
    assert ARCFACE_SIZE == 112
