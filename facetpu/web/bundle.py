"""Write the browser's folder: the page, the networks, and Google's LiteRT.js to run them."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .. import artefacts
from ..board.embed import Embedder
from ..board.folder import BASE, COHORT, DETECTOR, ModelFolder
from ..board.recogniser import base_digest
from ..board.threshold import read_cohort
from ..errors import FacetpuError
from .pyramid import lay_out, with_input_size

APP = Path(__file__).parent / "app"
NOTICE = "LiteRT.js {version}, by Google, under the Apache License 2.0: @litertjs/core on npm\n"

# Of Google's LiteRT.js: what the page was tested with, and npm's SHA-512 of each package.
VERSION = "2.5.3"
PACKAGES = {
    "core": "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    "wasm-utils": "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
}
# One thread needs no headers from the server; the second pair is for browsers without relaxed SIMD.
BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")
UTILS = "@litertjs/wasm-utils"  # the one import that a browser cannot resolve by itself

LONGEST, MIN_FACE = 640, 40  # sides in pixels of the image that is searched and of the smallest face in it


class Bundle(NamedTuple):
    """What was written.

    Attributes:
        folder: to put on any web server.
        files: in it.
        bytes: in all of them.
    """

    folder: Path
    files: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.folder}: {self.files} files, {self.bytes / 1e6:.1f} MB\n"
            f"To try it here: python3 -m http.server --bind 127.0.0.1 -d {self.folder}\n"
            "Any web server serves it; away from localhost a browser gives the camera to https only."
        )


def write_bundle(
    model: Path,
    out: Path,
    packages: Path | None = None,
    false_accepts: float = 0.01,
    overwrite: bool = False,
) -> Bundle:
    """Write what a browser needs to recognise people with ``model``.

    Args:
        model: an export folder.
        out: the new folder.
        packages: a ``node_modules`` with LiteRT.js in it; npm is asked for it unless given.
        false_accepts: share of strangers that the page's thresholds may let through.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: the model cannot be opened, or LiteRT.js is neither given nor to be had.
    """
    folder = ModelFolder.find(model)
    config = {"litert.js": VERSION, "false_accepts": false_accepts}
    inputs = {"base": artefacts.digest(folder.needed(BASE, "facetpu export")), "page": artefacts.digest(APP)}
    if artefacts.finished(out, "web", config, inputs) is None:
        with artefacts.new_folder(out, overwrite) as new:
            shutil.copytree(str(APP), str(new), dirs_exist_ok=True)
            _write_model(folder, false_accepts, new / "model")
            _write_runtime(packages, new / "litert")
            artefacts.write_manifest(new, "web", config, inputs)
    files = list(artefacts.files_under(out))
    return Bundle(Path(out), len(files), sum(file.stat().st_size for file in files))


def _write_model(folder: ModelFolder, false_accepts: float, out: Path) -> None:
    """The networks, and in ``model.json`` all that the page must know of them."""
    out.mkdir()
    base, detector = folder.root / BASE, folder.needed(DETECTOR, "facetpu export")
    embedder = Embedder(base)
    page = lay_out(LONGEST, MIN_FACE)
    (out / "pnet.tflite").write_bytes(with_input_size(detector / "pnet.tflite", page.height, page.width))
    for name, source in (("rnet", detector), ("onet", detector), ("base", folder.root)):
        shutil.copyfile(str(source / f"{name}.tflite"), str(out / f"{name}.tflite"))
    about: dict[str, Any] = {
        "alignment": embedder.alignment._asdict(),
        "base_digest": base_digest(folder),
        "detector": {
            "minFace": MIN_FACE,
            "page": {"width": page.width, "height": page.height},
            "slots": [slot._asdict() for slot in page.slots],
        },
        "embedding": {"dim": embedder.dim, "scale": embedder.scale, "zero_point": embedder.zero_point},
        "false_accepts": false_accepts,
        "threshold": folder.manifest().get("threshold"),
        "strangers": [],
    }
    if (folder.root / COHORT).is_file():
        cohort = read_cohort(folder.root / COHORT, embedder.dim)
        about["strangers"] = cohort.people.tolist()
        (out / "strangers.bin").write_bytes(cohort.embeddings.astype("<f4").tobytes())
    artefacts.write_text(out / "model.json", json.dumps(about, indent=1) + "\n")


def _write_runtime(packages: Path | None, out: Path) -> None:
    """LiteRT.js, its one bare import made relative, so that no bundler is needed."""
    with tempfile.TemporaryDirectory() as scratch:
        if packages is None:
            packages = Path(scratch)
            for name in PACKAGES:
                _fetch(name, packages)
        core, utils = (_package(packages, name) for name in PACKAGES)
        out.mkdir()
        script = (core / "dist" / "index.js").read_text(encoding="utf-8")
        if script.count(f'"{UTILS}"') != 1:
            raise FacetpuError(f"{core}: is no LiteRT.js that facetpu knows; give version {VERSION}")
        artefacts.write_text(out / "index.js", script.replace(f'"{UTILS}"', '"./wasm-utils.js"'))
        shutil.copyfile(str(utils / "dist" / "index.js"), str(out / "wasm-utils.js"))
        for build in BUILDS:
            for suffix in (".js", ".wasm"):
                shutil.copyfile(str(core / "wasm" / (build + suffix)), str(out / (build + suffix)))
        artefacts.write_text(out / "NOTICE.txt", NOTICE.format(version=VERSION))


def _package(packages: Path, name: str) -> Path:
    """The folder of one of LiteRT.js's packages, of the version that the page is for."""
    folder = Path(packages) / "@litertjs" / name
    try:
        version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FacetpuError(
            f"{folder}: is no npm package; run npm install @litertjs/core@{VERSION} and give its node_modules"
        ) from None
    if version != VERSION:
        raise FacetpuError(f"{folder}: is version {version}; the page was written for {VERSION}")
    return folder


def _fetch(name: str, packages: Path) -> None:
    """Have npm download a package, and unpack it once its digest is right."""
    what = f"@litertjs/{name}@{VERSION}"
    advice = "install npm, or give a node_modules that holds LiteRT.js with --litert-js"
    try:
        done = subprocess.run(
            ["npm", "pack", "--silent", what],
            cwd=str(packages),
            capture_output=True,
            timeout=300,
            check=False,
        )
    except FileNotFoundError:
        raise FacetpuError(f"npm, which downloads {what}, is not installed; {advice}") from None
    except subprocess.TimeoutExpired:
        raise FacetpuError(f"npm did not download {what} in 5 minutes; {advice}") from None
    archive = packages / f"litertjs-{name}-{VERSION}.tgz"
    if done.returncode or not archive.is_file():
        reason = " ".join(done.stderr.decode("utf-8", "replace").split()) or "it does not say why"
        raise FacetpuError(f"npm could not download {what}: {reason[-300:]}; {advice}")
    data = archive.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode("ascii") != PACKAGES[name]:
        raise FacetpuError(f"{what}: what npm gave has another digest than it should; {advice}")
    with tarfile.open(str(archive)) as tar:
        tar.extractall(str(packages / "unpacked"))
    (packages / "@litertjs").mkdir(exist_ok=True)
    (packages / "unpacked" / "package").rename(packages / "@litertjs" / name)
