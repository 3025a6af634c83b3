"""The board's Pythons, with what a board has installed: imprint and identify from end to end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rendered_video import write_video
from small_export import write_export

from facetpu.board.enrol import imprint
from facetpu.board.gallery import read_gallery
from facetpu.board.identify import identify
from facetpu.image import read_image
from facetpu.portraits import write_people

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".venv" / "boards"
# Python 3.7 is Mendel's, with Pillow alone; the others have OpenCV.
INSTALLED = {
    "3.7": ["-e", str(ROOT), "tflite-runtime>=2.7,<2.12", "numpy<2"],
    "3.9": ["-e", f"{ROOT}[board]"],
    "3.13": ["-e", f"{ROOT}[board]"],
}
RUNTIME = {"3.7": "tflite_runtime", "3.9": "tflite_runtime", "3.13": "ai_edge_litert"}


@pytest.fixture(scope="module", params=list(INSTALLED))
def facetpu(request: pytest.FixtureRequest) -> Path:
    """The ``facetpu`` command as installed for one of the board's Pythons; kept for the next run."""
    return install(CACHE / f"python{request.param}", request.param, INSTALLED[request.param])


def install(home: Path, version: str, wanted: list[str]) -> Path:
    """The ``facetpu`` command in the environment ``home`` of a Python that has ``wanted``."""
    mark = home / ".facetpu-ready"
    dependencies = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    compiled = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("facetpu/mtcnn/*.c"))]
    asked = hashlib.sha256((dependencies + repr(wanted) + "".join(compiled)).encode()).hexdigest()
    if not mark.is_file() or mark.read_text() != asked:
        python = find_python(version)
        if python is None:
            pytest.skip(f"there is no Python {version} here")
        shutil.rmtree(home, ignore_errors=True)
        check([python, "-m", "venv", home])
        pip = [home / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        check([*pip, "install", "-q", "--no-compile", *wanted])
        mark.write_text(asked)
    return home / "bin" / "facetpu"


def find_python(version: str) -> Path | None:
    """A Python of that version on PATH or in pyenv's folder that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    for python in candidates:  # a shim of pyenv's is there but may not start
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return python
    return None


def check(command: list[Any]) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_imprint_and_identify_from_end_to_end(facetpu: Path, tmp_path: Path) -> None:
    model = write_export(tmp_path / "model")
    people = tmp_path / "people"
    write_people(people, 3, 2)
    python = facetpu.with_name("python")
    version = facetpu.parent.parent.name.replace("python", "")
    names = ("tensorflow", "ai_edge_litert", "tflite_runtime")
    installed = f"import importlib.util as u; print(*[n for n in {names} if u.find_spec(n)])"
    assert check([python, "-c", installed]).split() == [RUNTIME[version]]

    options = ["--accept-all", "--keep-photos", "--learner", "softmax", "--report", tmp_path / "sheet.png"]
    told = json.loads(check([facetpu, "imprint", model, people, tmp_path / "known", *options, "--json"]))
    names = sorted(folder.name for folder in people.iterdir())
    assert [(person["name"], person["photos"]) for person in told["people"]] == [(name, 2) for name in names]
    seen = json.loads(
        check([facetpu, "identify", tmp_path / "known", people, "--json", "--draw", tmp_path / "drawn"])
    )
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 6

    # What this Python, with its newer runtime, makes of the same photos.
    imprint(model, people, tmp_path / "here", accept_all=True)
    here = identify(tmp_path / "here", [people])
    for photo, expected in zip(seen["photos"], here.photos, strict=True):
        (face,), (same,) = photo["faces"], expected.faces
        assert face["name"] == same.name
        np.testing.assert_allclose(face["box"], same.box, atol=1)
        assert face["cosine"] == pytest.approx(same.cosine, abs=0.03)
    there, made_here = (read_gallery(tmp_path / name / "gallery.npz") for name in ("known", "here"))
    assert there.photos == made_here.photos
    assert (there.embeddings * made_here.embeddings).sum(axis=1).min() > 0.99

    portrait = read_image(people / names[0] / "000.jpg")
    film = write_video(tmp_path / "film.avi", [[(portrait, 40 + 2 * step, 20)] for step in range(6)])
    watched = [facetpu, "identify", tmp_path / "known", film, "--json", "--threshold", "0.5"]
    if version == "3.7":
        done = subprocess.run([str(word) for word in watched], capture_output=True, text=True)
        assert done.stderr == "Error: cv2 is not installed: run pip install 'facetpu[board]'\n"
    else:
        events = [json.loads(line) for line in check(watched).splitlines()]
        assert [event["event"] for event in events] == ["appeared", "left", "done"]
        assert events[-1]["people"] == [names[0]]

    file = tmp_path / "people.npz"
    check([facetpu, "people", tmp_path / "known", "export", file])
    check([facetpu, "people", tmp_path / "known", "merge", names[2], names[1]])
    assert "4 photos" in check([facetpu, "people", tmp_path / "known", "list"])
    assert "class 0" in check([facetpu, "people", tmp_path / "known", "show", names[0]])
    check([facetpu, "people", tmp_path / "known", "remove", names[1]])
    check([facetpu, "people", tmp_path / "known", "import", file])
    check([facetpu, "people", tmp_path / "known", "rename", names[0], "Çelik"])
    check([facetpu, "people", tmp_path / "known", "remove", names[1]])
    assert "Çelik" in check([facetpu, "people", tmp_path / "known", "list"])
    same_face = check(
        [facetpu, "verify", model, people / names[0] / "000.jpg", people / names[0] / "000.jpg"]
    )
    assert same_face.startswith("the same person: cosine 1.000")
