"""What runs on the board: opening models, embedding, enrolling, identifying, forgetting."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_export import DIM, SIZE, build_base, build_model, unit_rows, write_export
from standin_edgetpu import compiled

from facetpu.artefacts import digest, read_manifest
from facetpu.board.devices import NoEdgeTpu, edgetpu_delegate
from facetpu.board.draw import KNOWN, STRANGER, draw_faces
from facetpu.board.embed import Alignment, Embedder
from facetpu.board.enrol import ImprintResult, imprint
from facetpu.board.faces import KnownFace
from facetpu.board.gallery import read_gallery, write_gallery
from facetpu.board.identify import Identifier, identify, verify
from facetpu.board.imprint import ImprintingEngine, UnfitModel
from facetpu.board.people import list_people, remove_person, rename_person
from facetpu.cli import main
from facetpu.errors import FacetpuError
from facetpu.image import align_face, read_image
from facetpu.portraits import write_people
from facetpu.runtime import interpreter
from facetpu.tflite.concat import join_models
from facetpu.tflite.cut import split_model
from facetpu.tflite.head import base_output, build_head
from facetpu.tflite.model import read_model, tensor_data, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder with a small base."""
    return write_export(tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rendered people with three portraits each."""
    root = tmp_path_factory.mktemp("photos") / "people"
    for index, photo in enumerate(write_people(root, 3, 3)):
        name = ("Ana María", "Bo", "Çelik")[index // 3]
        (root / name).mkdir(exist_ok=True)
        photo.rename(root / name / photo.name)
    for folder in list(root.iterdir()):
        if not any(folder.iterdir()):
            folder.rmdir()
    return root


@pytest.fixture(scope="module")
def known(model: Path, people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that knows the three; its base is too poor a judge of who is whose."""
    out = tmp_path_factory.mktemp("known") / "known"
    imprint(model, people, out, accept_all=True)
    return out


@pytest.fixture
def own(known: Path, tmp_path: Path) -> Path:
    """A copy of ``known`` to change."""
    return Path(shutil.copytree(known, tmp_path / "own"))


def kernel_of(model: Path) -> np.ndarray:
    record = read_model(model)
    conv = record.subgraphs[0].operators[-4]
    kernel = tensor_data(record, record.subgraphs[0].tensors[conv.inputs[1]])
    assert kernel is not None
    return kernel.reshape(len(kernel), -1)


def crops_of(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, [count, size, size, 3], np.uint8)


def run(model: bytes | Path, value: np.ndarray) -> np.ndarray:
    opened = interpreter(model)
    opened.allocate_tensors()
    opened.set_tensor(opened.get_input_details()[0]["index"], value)
    opened.invoke()
    output: np.ndarray = opened.get_tensor(opened.get_output_details()[0]["index"])
    return output


# --- Opening and embedding ---


@pytest.mark.parametrize("name", ["", "base.tflite", "model.tflite"])
def test_folder_base_and_whole_model_give_the_same_embeddings(model: Path, name: str) -> None:
    crops = crops_of(3)
    embedder = Embedder(model / name)
    assert (embedder.path.name, embedder.size, embedder.dim) == ("base.tflite", SIZE, DIM)
    assert embedder.alignment == Alignment("arcface", SIZE, 44)
    stored = np.array([run(model / "base.tflite", crop[None]).ravel() for crop in crops])
    real = (stored.astype(np.float64) - embedder.zero_point) * embedder.scale
    expected = real / np.linalg.norm(real, axis=1, keepdims=True)
    embeddings = embedder.embed(crops)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def test_a_whole_model_without_its_base_is_cut_before_the_l2_norm(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "model.tflite", tmp_path / "other.tflite")
    embedder = Embedder(tmp_path / "other.tflite")
    assert embedder.alignment == Alignment(size=SIZE)
    assert np.array_equal(embedder.embed(crops_of(2)), Embedder(model).embed(crops_of(2)))


def test_the_float_base_gives_nearly_what_the_quantised_one_gives(model: Path) -> None:
    exact = Embedder(model / "base_float.tflite").embed(crops_of(4))
    assert (exact * Embedder(model).embed(crops_of(4))).sum(axis=1).min() > 0.98


def test_crops_of_another_size_or_type_are_refused(model: Path) -> None:
    embedder = Embedder(model)
    for crops in (crops_of(1, SIZE + 1), crops_of(1).astype(np.float32), crops_of(1)[0]):
        with pytest.raises(FacetpuError, match=f"align the photos with --size {SIZE}"):
            embedder.embed(crops)
    assert embedder.embed(crops_of(0)).shape == (0, DIM)


@pytest.mark.parametrize(
    ("alignment", "message"),
    [
        ({"template": "arcface", "size": 96, "margin": 44}, "aligns to 96 px and its model takes 112 px"),
        ({"mould": "arcface"}, "no alignment that fits"),
    ],
)
def test_a_manifest_for_other_crops_is_refused(
    model: Path, tmp_path: Path, alignment: dict[str, Any], message: str
) -> None:
    shutil.copy(model / "base.tflite", tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"alignment": alignment}))
    with pytest.raises(FacetpuError, match=message):
        Embedder(tmp_path)


def without_tpu() -> None:
    try:
        edgetpu_delegate()
    except NoEdgeTpu:
        return
    pytest.skip("there is an Edge TPU here")


def test_without_a_tpu_the_cpu_twin_runs_and_says_so(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without_tpu()
    folder = Path(shutil.copytree(model, tmp_path / "both"))
    (folder / "base_edgetpu.tflite").write_bytes(compiled((model / "base.tflite").read_bytes()))
    with caplog.at_level("INFO", "facetpu"):
        embedder = Embedder(folder)
    assert embedder.path.name == "base.tflite"
    (line,) = caplog.messages
    assert line.startswith("base.tflite runs on the CPU: ")


def test_a_compiled_model_without_tpu_or_twin_is_named_in_one_line(model: Path, tmp_path: Path) -> None:
    without_tpu()
    (tmp_path / "base_edgetpu.tflite").write_bytes(compiled((model / "base.tflite").read_bytes()))
    with pytest.raises(FacetpuError) as refusal:
        Embedder(tmp_path)
    assert "is compiled for the Edge TPU, and" in str(refusal.value)
    assert "put its CPU twin beside it" in str(refusal.value)


def newer_than_the_runtime(path: Path) -> None:
    record = read_model(build_base())
    record.operator_codes[0].version = 99
    path.write_bytes(write_model(record))


def no_tflite(path: Path) -> None:
    path.write_text("just a text of some length")


def classifier(path: Path) -> None:
    record = read_model(build_model(build_base()))
    graph = record.subgraphs[0]
    graph.operators[-4].inputs = np.array([graph.operators[-5].inputs[0], *graph.operators[-4].inputs[1:]])
    del graph.operators[-5]
    path.write_bytes(write_model(record))


def two_outputs(path: Path) -> None:
    record = read_model(build_base())
    graph = record.subgraphs[0]
    graph.outputs = np.append(graph.outputs, graph.operators[0].outputs)
    path.write_bytes(write_model(record))


def picture_out(path: Path) -> None:
    record = read_model(build_base())
    graph = record.subgraphs[0]
    graph.outputs = graph.operators.pop().inputs[:1]
    path.write_bytes(write_model(record))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (newer_than_the_runtime, "is older than the model; install a newer one"),
        (no_tflite, "is no TFLite model"),
        (classifier, "is a classifier without an L2 norm"),
        (two_outputs, "has 2 outputs, and a face embedder has one"),
        (picture_out, r"its output \[1, 7, 7, 8\] is no embedding"),
    ],
)
def test_what_gives_no_embedding_is_named_in_one_line(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "strange.tflite")
    with pytest.raises(FacetpuError, match=message) as refusal:
        Embedder(tmp_path / "strange.tflite")
    assert str(refusal.value).startswith(str(tmp_path / "strange.tflite"))
    assert "\n" not in str(refusal.value)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FacetpuError, match="no such model"):
        Embedder(tmp_path / "missing")
    with pytest.raises(FacetpuError, match=r"holds no model\.tflite or base\.tflite"):
        Embedder(tmp_path)


# --- Enrolling ---


def test_the_imprinted_folder_is_all_a_board_needs(model: Path, known: Path) -> None:
    files = {path.relative_to(known).as_posix() for path in known.rglob("*") if path.is_file()}
    networks = {f"detector/{name}.tflite" for name in ("pnet", "rnet", "onet")}
    lists = {"labels.txt", "gallery.npz", "cohort.npz", "manifest.json"}
    assert files == {"model.tflite", "base.tflite"} | networks | lists
    assert (known / "labels.txt").read_text("utf-8") == "0  Ana María\n1  Bo\n2  Çelik\n"
    assert stat.S_IMODE((known / "gallery.npz").stat().st_mode) == 0o600
    assert digest(known / "base.tflite") == digest(model / "base.tflite")
    manifest = read_manifest(known)
    assert (manifest["people"], manifest["photos"], manifest["refused"]) == (3, 9, 0)
    assert manifest["alignment"] == {"template": "arcface", "size": SIZE, "margin": 44}
    assert manifest["threshold"] == 0.5
    assert "Bo" not in (known / "manifest.json").read_text("utf-8")


def test_the_imprinted_model_as_one_equals_base_then_head_byte_for_byte(known: Path) -> None:
    whole = (known / "model.tflite").read_bytes()
    ImprintingEngine(whole)  # the rules that stock pycoral has for a model
    _, head = split_model(whole)
    for crop in crops_of(5):
        embedding = run(known / "base.tflite", crop[None])
        assert np.array_equal(run(whole, crop[None]), run(head, embedding))


def test_rows_are_those_that_coral_trains_on_the_whole_model(model: Path, people: Path, known: Path) -> None:
    """Training goes photo by photo on the extractor's dequantised output, as pycoral's example does."""
    engine = ImprintingEngine(model / "model.tflite")
    extractor = engine.serialize_extractor_model()
    reader = Identifier(known).reader
    for class_id, name in enumerate(["Ana María", "Bo", "Çelik"]):
        for photo in sorted((people / name).iterdir()):
            image = read_image(photo)
            face = reader.main_face(photo).face
            crop = align_face(image, face, *reader.embedder.alignment)
            embedding = (run(extractor, crop[None]).ravel().astype(np.float32) - 128) / np.float32(128)
            engine.train(embedding, class_id)
    assert engine.serialize_model() == (known / "model.tflite").read_bytes()


def test_a_rerun_says_so_and_does_nothing(
    model: Path, people: Path, known: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = digest(known, times=True)
    with caplog.at_level("INFO", "facetpu"):
        again = imprint(model, people, known, accept_all=True)
    assert "already" in caplog.text
    assert [(person.name, person.photos, person.added) for person in again.people] == [
        ("Ana María", 3, 0),
        ("Bo", 3, 0),
        ("Çelik", 3, 0),
    ]
    assert digest(known, times=True) == before
    with pytest.raises(FacetpuError, match="exists; choose another name, or pass --overwrite"):
        imprint(model, people, known, false_accepts=0.02)


def test_a_model_imprinted_again_keeps_whom_it_knew(
    known: Path, people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = tmp_path / "more"
    write_people(more, 1, 1, seed=5)
    (new_name,) = [folder.name for folder in more.iterdir()]
    (more / "Bo").mkdir()
    shutil.copy(people / "Bo" / "000.jpg", more / "Bo" / "again.jpg")
    result = imprint(known, more, tmp_path / "out", accept_all=True)
    assert (tmp_path / "out" / "labels.txt").read_text(
        "utf-8"
    ) == f"0  Ana María\n1  Bo\n2  Çelik\n3  {new_name}\n"
    assert np.array_equal(kernel_of(tmp_path / "out" / "model.tflite")[:3], kernel_of(known / "model.tflite"))
    bo = result.people[1]
    assert (bo.photos, bo.added) == (3, 0)
    assert bo.refused == [("Bo/again.jpg", ["known"], "is enrolled already")]
    assert "one photo only" in caplog.text


def test_a_threshold_is_set_by_photos_of_strangers(model: Path, people: Path, tmp_path: Path) -> None:
    write_people(tmp_path / "strangers", 12, 1, seed=3)
    (tmp_path / "strangers" / "broken.jpg").write_bytes(b"\xff\xd8")
    result = imprint(model, people, tmp_path / "out", false_accepts=0.25, strangers=tmp_path / "strangers")
    assert result.threshold_source == "25.00% of 12 strangers' faces reach it"
    found = identify(tmp_path / "out", [tmp_path / "strangers"])
    names = [face.name for photo in found.photos for face in photo.faces]
    assert sum(name is not None for name in names) == 3


def test_people_of_the_training_who_are_enrolled_are_no_strangers(
    model: Path, people: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(people, tmp_path / "people"))
    (root / "Bo").rename(root / "two")  # label 1 of the model, with faces 2 and 3 of its cohort
    result = imprint(model, root, tmp_path / "out")
    assert result.threshold_source == "1.00% of 198 strangers' faces reach it"
    more = Path(shutil.copytree(root / "two", tmp_path / "more" / "two")).parent
    again = imprint(tmp_path / "out", more, tmp_path / "again")
    assert again.threshold_source == "1.00% of 198 strangers' faces reach it"


def test_a_compiled_model_beside_it_is_imprinted_alike(model: Path, people: Path, tmp_path: Path) -> None:
    without_tpu()
    folder = Path(shutil.copytree(model, tmp_path / "both"))
    base = compiled((model / "base.tflite").read_bytes())
    (folder / "base_edgetpu.tflite").write_bytes(base)
    head = build_head(unit_rows(3), 10.0, *base_output(base)[2:])
    (folder / "model_edgetpu.tflite").write_bytes(join_models(base, head))
    imprint(folder, people, tmp_path / "out")
    assert (tmp_path / "out" / "base_edgetpu.tflite").read_bytes() == base
    on_tpu, on_cpu = (kernel_of(tmp_path / "out" / name) for name in ("model_edgetpu.tflite", "model.tflite"))
    assert np.array_equal(on_tpu, on_cpu)


def empty(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("a file")


def no_people(root: Path) -> None:
    photo = next(root.glob("*/*.jpg"))
    content = photo.read_bytes()
    empty(root)
    (root / "000.jpg").write_bytes(content)


def empty_person(root: Path) -> None:
    (root / "Dan").mkdir()


def two_spellings(root: Path) -> None:
    shutil.copytree(root / "Bo", root / "BO")


def line_break(root: Path) -> None:
    (root / "Bo").rename(root / "B\no")


def one_photo_of_two(root: Path) -> None:
    shutil.copy(root / "Bo" / "000.jpg", root / "Çelik" / "bo.jpg")


def only_walls(root: Path) -> None:
    for photo in (root / "Bo").iterdir():
        Image.new("RGB", (80 + int(photo.stem), 80), "grey").save(photo)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, "holds no photo"),
        (a_file, "is a file, and a folder is needed"),
        (shutil.rmtree, "no such folder"),
        (no_people, "has photos but no folder for each person"),
        (empty_person, "Dan: holds no photo; put photos of Dan there"),
        (two_spellings, "look like one person"),
        (line_break, "holds a line break"),
        (one_photo_of_two, "is the same photo as one of Bo"),
        (only_walls, "no photo of Bo can be used: Bo/000.jpg shows no face"),
    ],
)
def test_people_that_cannot_be_enrolled_leave_nothing_behind(
    model: Path, people: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    root = Path(shutil.copytree(people, tmp_path / "people"))
    spoil(root)
    with pytest.raises(FacetpuError, match=message) as refusal:
        imprint(model, root, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"people"}


def test_models_that_cannot_be_imprinted_are_named(model: Path, people: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    with pytest.raises(FacetpuError, match="is not the base of"):
        imprint(folder / "base_float.tflite", people, tmp_path / "out")
    (folder / "base.tflite").write_bytes(build_base(dim=16))
    with pytest.raises(FacetpuError, match="is not the base of"):
        imprint(folder, people, tmp_path / "out")
    shutil.rmtree(folder / "detector")
    with pytest.raises(FacetpuError, match="detector: is missing; make the folder with facetpu export"):
        imprint(folder, people, tmp_path / "out")
    classifier(folder / "model.tflite")
    with pytest.raises(UnfitModel, match=r"model\.tflite: Unsupported model architecture"):
        imprint(folder, people, tmp_path / "out")
    (folder / "model.tflite").unlink()
    with pytest.raises(FacetpuError, match=r"model\.tflite: is missing"):
        imprint(folder, people, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Identifying ---


def test_enrolled_people_are_named_and_boxed(known: Path, people: Path) -> None:
    result = identify(known, [people / "Bo", people / "Çelik" / "001.jpg"])
    assert [photo.photo.name for photo in result.photos] == ["000.jpg", "001.jpg", "002.jpg", "001.jpg"]
    assert result.problem is None
    for photo, name in zip(result.photos, ["Bo", "Bo", "Bo", "Çelik"], strict=True):
        (face,) = photo.faces
        assert face.name == name if face.cosine >= face.threshold else face.name is None
        assert face.cosine > 0.4
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 < x2 <= 200
        assert 0 <= y1 < y2 <= 200
        assert np.array(face.landmarks).shape == (5, 2)
        assert 0.7 <= face.score <= 1


def test_every_face_of_a_photo_is_named_the_surest_first(known: Path, people: Path, tmp_path: Path) -> None:
    both = Image.new("RGB", (400, 200))
    both.paste(Image.open(people / "Bo" / "000.jpg"), (0, 0))
    both.paste(Image.open(people / "Çelik" / "000.jpg"), (200, 0))
    both.save(tmp_path / "both.png")
    (photo,) = identify(known, [tmp_path / "both.png"], threshold=-1).photos
    assert {face.name: face.box[0] < 200 for face in photo.faces} == {"Bo": True, "Çelik": False}
    assert photo.faces[0].score >= photo.faces[1].score
    (photo,) = identify(known, [tmp_path / "both.png"], threshold=1).photos
    assert [face.name for face in photo.faces] == [None, None]
    assert str(photo).count("stranger") == 2


def test_an_unreadable_photo_is_listed_and_makes_the_command_fail_at_the_end(
    known: Path, people: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    Image.new("RGB", (60, 60)).save(tmp_path / "wall.png")
    good = people / "Bo" / "000.jpg"
    photos = [
        str(path) for path in (tmp_path / "broken.jpg", tmp_path / "missing.jpg", tmp_path / "wall.png", good)
    ]
    done = CliRunner().invoke(main, ["identify", str(known), *photos, "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)["photos"]
    assert [photo["photo"] for photo in found] == photos
    assert [photo["error"] for photo in found] == ["is empty", "no such file", None, None]
    assert [len(photo["faces"]) for photo in found] == [0, 0, 0, 1]
    assert set(found[3]["faces"][0]) == {
        *("name", "cosine", "threshold", "margin", "box", "landmarks", "score")
    }
    assert "2 of 4 photos cannot be read" in done.stderr
    done = CliRunner().invoke(main, ["identify", str(known), photos[2]])
    assert (done.exit_code, done.stdout) == (0, f"{photos[2]}: no face\n")


def test_photos_with_any_name_are_identified(known: Path, people: Path, tmp_path: Path) -> None:
    names = ["a b'c\"d.jpg", "línea\nnueva.jpg", "写真.jpg", "\udcff.jpg"]
    for name in names:
        shutil.copy(people / "Bo" / "000.jpg", tmp_path / name)
    for options in (["--json"], ["--draw", str(tmp_path / "drawn")]):
        done = CliRunner().invoke(main, ["identify", str(known), str(tmp_path), *options])
        assert done.exit_code == 0, done.output
        if "--json" in options:
            found = json.loads(done.stdout)["photos"]
            assert sorted(Path(photo["photo"]).name for photo in found) == sorted(names)
        shutil.rmtree(tmp_path / "drawn", ignore_errors=True)


def test_photos_are_drawn_with_boxes_and_names(known: Path, people: Path, tmp_path: Path) -> None:
    photo = people / "Çelik" / "000.jpg"
    result = identify(known, [photo, people / "Bo"], draw=tmp_path / "drawn")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "1-000.png",
        "2-000.png",
        "3-001.png",
        "4-002.png",
        "manifest.json",
    ]
    before, after = read_image(photo), read_image(tmp_path / "drawn" / "1-000.png")
    x1, y1, _, _ = (round(value) for value in result.photos[0].faces[0].box)
    assert (after[y1, x1] == colour(result.photos[0].faces[0])).all()
    assert np.array_equal(before[: y1 - 1], after[: y1 - 1])
    with pytest.raises(FacetpuError, match="exists"):
        identify(known, [photo], draw=tmp_path / "drawn")
    identify(known, [photo], draw=tmp_path / "drawn", overwrite=True)
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def colour(face: KnownFace) -> tuple[int, int, int]:
    return KNOWN if face.name else STRANGER


@pytest.mark.parametrize("box", [[-5, -5, 500, 500], [90, 90, 99, 99], [0, 0, 3, 3]])
def test_drawing_stays_inside_the_photo_in_any_script(box: list[float]) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    for name in ("Ana", "Ölçer", "田中", "مريم", None):
        drawn = draw_faces(image, [KnownFace(name, 0.5, 0.4, box, [], 1.0)])
        assert drawn.shape == image.shape
        assert drawn.any()
    assert not image.any()


def test_a_model_by_itself_is_told_to_be_exported_first(model: Path, people: Path, tmp_path: Path) -> None:
    shutil.copy(model / "base.tflite", tmp_path / "face.tflite")
    photo = people / "Bo" / "000.jpg"
    message = r"face\.tflite: is a model by itself, .*; run facetpu export face\.tflite OUT, and give OUT"
    for act in (
        lambda: identify(tmp_path / "face.tflite", [photo]),
        lambda: imprint(tmp_path / "face.tflite", people, tmp_path / "out"),
        lambda: verify(tmp_path / "face.tflite", photo, photo),
    ):
        with pytest.raises(FacetpuError, match=message):
            act()
    found = verify(
        tmp_path / "face.tflite", photo, photo, threshold=0.5, detector=model / "detector", min_face=30
    )
    assert found.same


def test_a_detector_that_is_none_is_named(known: Path, people: Path, tmp_path: Path) -> None:
    for detector, message in (
        (known / "base.tflite", r"base\.tflite: has no TFLite_Detection_PostProcess"),
        (tmp_path, r"pnet\.tflite: no such file"),
        (tmp_path / "ssd.tflite", r"ssd\.tflite: no such file"),
    ):
        with pytest.raises(FacetpuError, match=message):
            identify(known, [people], detector=detector)


def test_the_smallest_face_to_look_for_is_kept(known: Path, people: Path) -> None:
    (photo,) = identify(known, [people / "Bo" / "000.jpg"], min_face=250).photos
    assert photo.faces == []


def test_a_profile_has_the_time_of_each_step(known: Path, people: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    result = identify(known, [people / "Bo", tmp_path / "broken.jpg"], profile=True)
    assert (result.profile.pictures, result.profile.faces) == (3, 3)
    steps = {step.step: step for step in result.profile.steps}
    assert list(steps) == ["read", "detect", "align", "base", "head", "latency"]
    assert sum(steps[name].share for name in ("read", "latency")) == pytest.approx(100, abs=0.2)
    assert all(0 < step.median_ms <= step.p95_ms for step in steps.values())
    assert str(result).splitlines()[-8:][0].startswith("step")
    assert str(result).splitlines()[-1] == "3 pictures, 3 faces"
    assert identify(known, [people / "Bo"]).profile is None


def test_the_margin_is_to_the_second_nearest(known: Path, people: Path) -> None:
    (photo,) = identify(known, [people / "Bo" / "000.jpg"]).photos
    identifier = Identifier(known)
    _, embeddings = identifier.recognise(read_image(people / "Bo" / "000.jpg"))
    cosines = np.sort(identifier.gallery.vectors() @ embeddings[0])
    assert photo.faces[0].cosine == pytest.approx(cosines[-1], abs=1e-5)
    assert photo.faces[0].margin == pytest.approx(cosines[-1] - cosines[-2], abs=1e-5)


def test_photos_and_a_camera_exclude_each_other(known: Path) -> None:
    for arguments in (
        [],
        ["photo.jpg", "--camera", "0"],
        ["photo.jpg", "a.mp4"],
        ["photo.jpg", "--show"],
        ["photo.jpg", "--draw", "a.mp4"],
    ):
        done = CliRunner().invoke(main, ["identify", str(known), *arguments])
        assert done.exit_code == 2


def test_two_photos_are_one_person_from_the_threshold_on(
    model: Path, people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = people / "Bo" / "000.jpg", people / "Çelik" / "000.jpg"
    same = verify(model, one, one)
    assert (same.same, same.cosine, same.threshold) == (True, pytest.approx(1), 0.5)
    found = verify(model, one, other, threshold=0.99)
    assert not found.same
    assert str(found).startswith("different people: cosine 0.")
    Image.new("RGB", (60, 60)).save(tmp_path / "wall.png")
    with pytest.raises(FacetpuError, match=r"wall\.png: shows no face"):
        verify(model, one, tmp_path / "wall.png")
    bare = Path(shutil.copytree(model, tmp_path / "bare"))
    (bare / "manifest.json").unlink()
    with pytest.raises(FacetpuError, match="pass --threshold"):
        verify(bare, one, other)


def other_base(folder: Path) -> None:
    (folder / "base.tflite").write_bytes(build_base(seed=1))


def cut_gallery(folder: Path) -> None:
    (folder / "gallery.npz").write_bytes((folder / "gallery.npz").read_bytes()[:-40])


def no_gallery(folder: Path) -> None:
    (folder / "gallery.npz").unlink()


def other_labels(folder: Path) -> None:
    (folder / "labels.txt").write_text("0  Ana María\n1  Bob\n2  Çelik\n", encoding="utf-8")


def other_model(folder: Path) -> None:
    (folder / "model.tflite").write_bytes(build_model((folder / "base.tflite").read_bytes(), people=5))


def other_alignment(folder: Path) -> None:
    gallery = read_gallery(folder / "gallery.npz")
    alignment = {"template": "box", "size": SIZE, "margin": 44}
    write_gallery(folder / "gallery.npz", gallery._replace(alignment=alignment))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_base, "was made with another base model; enrol the people again"),
        (cut_gallery, "is damaged"),
        (no_gallery, r"gallery\.npz: is missing; make the folder with facetpu imprint"),
        (other_labels, "names Ana María, Bob, Çelik, and the gallery Ana María, Bo, Çelik"),
        (other_model, r"has 5 classes, and labels\.txt 3 names"),
        (other_alignment, "aligned otherwise"),
    ],
)
def test_a_folder_whose_parts_disagree_is_refused(
    own: Path, people: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(own)
    for act in (lambda: identify(own, [people]), lambda: list_people(own), lambda: remove_person(own, "Bo")):
        with pytest.raises(FacetpuError, match=message):
            act()


# --- Forgetting and renaming ---


def test_people_are_listed(known: Path) -> None:
    assert [tuple(person) for person in list_people(known).people] == [
        ("Ana María", 0, 3),
        ("Bo", 1, 3),
        ("Çelik", 2, 3),
    ]
    assert list_people(known / "model.tflite").people == list_people(known).people


def test_forgetting_erases_one_person_and_leaves_the_others_rows(
    own: Path, known: Path, people: Path
) -> None:
    gone = read_gallery(own / "gallery.npz")
    remove_person(own, "Bo")
    assert (own / "labels.txt").read_text("utf-8") == "0  Ana María\n1  Çelik\n"
    assert np.array_equal(kernel_of(own / "model.tflite"), kernel_of(known / "model.tflite")[[0, 2]])
    left = b"".join(path.read_bytes() for path in own.rglob("*") if path.is_file())
    for trace in (b"Bo\n", gone.photos[3].encode(), gone.embeddings[3].tobytes(), gone.imprints[3].tobytes()):
        assert trace not in left
    assert not list(own.parent.glob(".*"))
    names = [face.name for photo in identify(own, [people], threshold=0.0).photos for face in photo.faces]
    assert "Bo" not in names
    run(own / "model.tflite", crops_of(1))
    assert stat.S_IMODE((own / "gallery.npz").stat().st_mode) == 0o600


def test_forgetting_someone_makes_the_same_folder_as_never_having_met_them(
    model: Path, own: Path, people: Path, tmp_path: Path
) -> None:
    remove_person(own, "Bo")
    two = Path(shutil.copytree(people, tmp_path / "two"))
    shutil.rmtree(two / "Bo")
    imprint(model, two, tmp_path / "fresh", accept_all=True)
    for name in ("model.tflite", "labels.txt", "gallery.npz", "base.tflite", "cohort.npz"):
        assert digest(own / name) == digest(tmp_path / "fresh" / name), name


def test_renaming_changes_the_name_alone(own: Path, known: Path) -> None:
    rename_person(own, "Bo", "Zoe\u0308 'Z' O\"Neil")
    assert (own / "labels.txt").read_text("utf-8").splitlines()[1] == "1  Zo\u00eb 'Z' O\"Neil"
    assert digest(own / "model.tflite") == digest(known / "model.tflite")
    assert np.array_equal(
        read_gallery(own / "gallery.npz").embeddings, read_gallery(known / "gallery.npz").embeddings
    )


def test_names_that_are_not_known_or_not_fit_are_refused(own: Path) -> None:
    before = digest(own, times=True)
    with pytest.raises(FacetpuError, match="knows no 'Dan', but Ana María, Bo, Çelik"):
        remove_person(own, "Dan")
    with pytest.raises(FacetpuError, match="knows no 'Dan'"):
        rename_person(own, "Dan", "Don")
    for name, message in [
        ("Çelik", "knows Çelik already"),
        ("ana maría", "look like one person"),
        ("B/o", "holds a slash"),
        ("B\no", "holds a line break"),
        ("", "is empty"),
    ]:
        with pytest.raises(FacetpuError, match=message):
            rename_person(own, "Bo", name)
    assert digest(own, times=True) == before
    remove_person(own, "Bo")
    remove_person(own, "Ana Mari\u0301a")
    with pytest.raises(FacetpuError, match="knows nobody but Çelik, and a model needs somebody"):
        remove_person(own, "Çelik")


def test_the_commands_work_on_the_folder_one_stands_in(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    done = CliRunner().invoke(main, ["people", ".", "rename", "Bo", "Bob"])
    assert done.exit_code == 0, done.output
    assert [person.name for person in list_people(own).people] == ["Ana María", "Bob", "Çelik"]


def test_results_read_well(model: Path, people: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["imprint", str(model), str(people), str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == set(ImprintResult._fields)
    assert found["people"][1]["name"] == "Bo"


# --- Real models ---


@pytest.mark.data
def test_real_models_are_opened(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    without_tpu()
    models = data / "coral" / "models"
    extractor = models / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    embedder = Embedder(extractor)
    assert (embedder.size, embedder.dim) == (224, 1024)
    crops = crops_of(1, 224)
    with caplog.at_level("INFO", "facetpu"):
        twin = Embedder(models / "mobilenet_v1_1.0_224_quant_embedding_extractor_edgetpu.tflite")
    assert "runs on the CPU" in caplog.text
    assert np.array_equal(twin.embed(crops), embedder.embed(crops))
    whole = Embedder(data / "coral" / "imprint" / "prototype.tflite")
    assert (whole.size, whole.dim) == (224, 1024)
    assert whole.embed(crops).shape == (1, 1024)
    with pytest.raises(FacetpuError, match="is a classifier without an L2 norm"):
        Embedder(models / "mobilenet_v1_0.25_128_quant.tflite")
