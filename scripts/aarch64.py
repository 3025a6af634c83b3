"""Imprints and identifies on an emulated aarch64 board, and compares what comes out with this machine.

python scripts/aarch64.py WORK MODEL PEOPLE

WORK is where the emulated board is put together: Debian's Python and the aarch64 wheels of what
``facetpu[board]`` brings, run by QEMU. Nothing is installed on this machine; apt-get, dpkg-deb and pip
must be there. MODEL is an export folder, PEOPLE has a folder of photos a person. Each photo is imprinted
and identified on both machines with the same command line. Speed under emulation means nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facetpu.artefacts import read_manifest
from facetpu.board.embed import Alignment
from facetpu.image import Face, align_face, read_image

REPOSITORY = Path(__file__).resolve().parent.parent
SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What its Python needs, no more: a package's dependencies are not followed.
PACKAGES = (
    *("libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0"),
    *("liblzma5", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
)
# OpenCV is left out on both machines.
FACETPU = "import sys; sys.modules['cv2'] = None; from facetpu.cli import main; main()"
BASE = """
import sys, numpy as np
from pathlib import Path
from facetpu.board.embed import Embedder
_, model, crops, rows = sys.argv
np.save(rows, Embedder(Path(model)).run(np.load(crops)))
"""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
CPU, CPU_PART = "cortex-a72", "0xd08"  # the Raspberry Pi 4's
# The runtime reads this to choose its kernels; with the host's own it crashes, with none it falls back
# to slower kernels that a board does not use.
CPUINFO = f"""processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {CPU_PART}
CPU revision\t: 3

"""
XNNPACK = "Created TensorFlow Lite XNNPACK delegate for CPU"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("people", type=Path)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    board = [*emulator(work), root(work) / "usr" / "bin" / "python3.11"]
    modules = wheels(work)
    machine = call(board, modules, ["-c", "import platform; print(platform.machine())"]).strip()
    assert machine == "aarch64", machine

    run_of: dict[str, Any] = {}
    machines = [("here", [sys.executable], None), ("board", board, modules)]
    for name, python, path in machines:
        out = work / f"known-{name}"
        shutil.rmtree(out, ignore_errors=True)
        call(
            python,
            path,
            ["-c", FACETPU, "imprint", arguments.model, arguments.people, out, "--accept-all", "-q"],
        )
        seen = call(python, path, ["-c", FACETPU, "identify", out, arguments.people, "--json", "-q"])
        run_of[name] = json.loads(seen)["photos"]
    crops = work / "crops.npy"
    alignment = Alignment(**read_manifest(arguments.model)["alignment"])
    np.save(crops, crops_of(run_of["here"], alignment))
    for name, python, path in machines:
        call(python, path, ["-c", BASE, arguments.model, crops, work / f"rows-{name}.npy"])
    report(work, run_of["here"], run_of["board"])


def emulator(work: Path) -> list[Any]:
    """QEMU's command, this machine's or one unpacked into ``work``."""
    qemu = Path(shutil.which("qemu-aarch64-static") or work / "qemu" / "usr" / "bin" / "qemu-aarch64-static")
    if not qemu.is_file():
        unpack(work, ["qemu-user-static"], work / "qemu", host_architecture())
    return [qemu, "-L", work / "root"]


def root(work: Path) -> Path:
    """The emulated board's file system: Debian's Python and what the runtime asks of /proc."""
    folder = work / "root"
    if not (folder / "usr" / "bin" / "python3.11").is_file():
        unpack(work, PACKAGES, folder, "arm64")
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc" / "cpuinfo").write_text(CPUINFO)
    return folder


def wheels(work: Path) -> Path:
    """The folder of the aarch64 packages that the board's install brings, OpenCV left out."""
    folder = work / "modules"
    if not folder.is_dir():
        text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        wanted = re.findall(r'"((?:click|numpy|flatbuffers|Pillow|ai-edge-litert)[<>=][^";]*)', text)
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, "--only-binary=:all:"]
        check([*pip, "--implementation", "cp", "--python-version", "3.11", *platforms, *wanted])
    return folder


def unpack(work: Path, packages: Sequence[str], folder: Path, architecture: str) -> None:
    """Unpack Debian packages into ``folder``, through an apt of its own that leaves the system's alone."""
    apt = work / f"apt-{architecture}"
    (apt / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (apt / "debs").mkdir(exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(
        f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main\n"
    )
    settings = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Sandbox::User": "root",
    }
    command = [
        "apt-get",
        "-qq",
        *(word for item in settings.items() for word in ("-o", "=".join(map(str, item)))),
    ]
    check([*command, "update"])
    check([*command, "download", *packages], cwd=apt / "debs")
    folder.mkdir(exist_ok=True)
    for package in sorted((apt / "debs").glob("*.deb")):
        check(["dpkg-deb", "-x", package, folder])


def host_architecture() -> str:
    return check(["dpkg", "--print-architecture"]).strip()


def crops_of(photos: list[dict[str, Any]], alignment: Alignment) -> np.ndarray:
    """uint8 [n, size, size, 3]: the faces that were found in ``photos``."""
    crops = []
    for photo in photos:
        image = read_image(Path(photo["photo"]))
        for face in photo["faces"]:
            found = Face(tuple(face["box"]), face["score"], np.array(face["landmarks"]))
            crops.append(align_face(image, found, *alignment))
    return np.stack(crops)


def call(python: list[Any], modules: Path | None, arguments: Sequence[Any]) -> str:
    """What a Python prints: this one or, with ``modules``, the emulated board's."""
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), PYTHONDONTWRITEBYTECODE="1")
    if modules is not None:
        environment.update(
            PYTHONPATH=f"{REPOSITORY}:{modules}",
            PYTHONHOME=str(modules.parent / "root" / "usr"),
            QEMU_CPU=CPU,
        )
    command = [str(word) for word in [*python, *arguments]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    if "imprint" in arguments and XNNPACK not in done.stderr:
        sys.exit("the runtime ran without XNNPACK: what is compared is not what a board runs")
    return done.stdout


def check(command: Sequence[Any], cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def report(work: Path, here: list[dict[str, Any]], board: list[dict[str, Any]]) -> None:
    """Print how the two machines' folders and answers differ."""
    print(f"{platform.machine()} here, aarch64 ({CPU}) emulated\n")
    for name in ("model.tflite", "gallery.npz", "labels.txt", "manifest.json"):
        first, second = (digest(work / f"known-{machine}" / name) for machine in ("here", "board"))
        print(f"{name}: {'equal, byte for byte' if first == second else 'differ'}")
    galleries = [np.load(work / f"known-{machine}" / "gallery.npz") for machine in ("here", "board")]
    for array in ("embeddings", "imprints"):
        first, second = (gallery[array] for gallery in galleries)
        print(
            f"gallery's {array} {list(first.shape)}: {(first == second).mean():.2%} equal, "
            f"cosine at least {np.min((first * second).sum(axis=1) / norms(first) / norms(second)):.6f}"
        )
    rows = [np.load(work / f"rows-{machine}.npy") for machine in ("here", "board")]
    equal = int((rows[0] == rows[1]).all(axis=1).sum())
    print(f"the base on the same crops: {equal} of {len(rows[0])} embeddings equal, byte for byte")
    faces = [[face for photo in machine for face in photo["faces"]] for machine in (here, board)]
    print(f"faces: {len(faces[0])} here, {len(faces[1])} on the board, in {len(here)} photos")
    if len(faces[0]) == len(faces[1]):
        pairs = list(zip(*faces, strict=True))
        same = sum(one["name"] == other["name"] for one, other in pairs)
        cosine = max(abs(one["cosine"] - other["cosine"]) for one, other in pairs)
        box = max(abs(a - b) for one, other in pairs for a, b in zip(one["box"], other["box"], strict=True))
        print(f"names: {same} of {len(pairs)} alike; cosines within {cosine:.6f}, boxes within {box:.2f} px")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def norms(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=1)


if __name__ == "__main__":
    main()
