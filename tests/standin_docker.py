"""A stand-in for ``docker``, for tests only: it checks what it is asked, and runs the stand-in compiler.

``standin_docker.py RECORD IMAGES BEHAVIOUR ARGUMENTS...``: RECORD is a file to note the arguments in, IMAGES
the images it has, with commas between, BEHAVIOUR the stand-in compiler's, or ``no-daemon``, ``no-program``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Act as docker would on ``image inspect``, ``run`` and ``kill``."""
    record, images, behaviour, *arguments = sys.argv[1:]
    with open(record, "a", encoding="utf-8") as file:
        file.write(json.dumps(arguments) + "\n")
    if behaviour == "no-daemon":
        sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?")
    if arguments[0] == "image":
        name = arguments[-1]
        if name not in images.split(","):
            sys.exit(f"Error response from daemon: No such image: {name}:latest")
        print("sha256:0123")
    elif arguments[0] == "kill":
        os.kill(int(Path(record).with_suffix(".pid").read_text()), 9)
    else:
        run(arguments, behaviour, Path(record))


def run(arguments: list[str], behaviour: str, record: Path) -> None:
    """``docker run``: the compiler in the mounted folder, seen by it as the container's own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    for flag in ("--rm", "--init"):
        parser.add_argument(flag, action="store_true", required=True)
    for option in ("--name", "--platform", "--network", "--volume", "--workdir", "--entrypoint"):
        parser.add_argument(option, required=True)
    parser.add_argument("image")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    folder, inside, label = given.volume.split(":")
    assert (inside, label, given.workdir, given.entrypoint) == (
        "/models", "Z", "/models", "edgetpu_compiler",
    )  # fmt: skip
    assert not any(word.startswith("/") for word in given.rest), "a path of the host means nothing inside"
    if behaviour == "no-program":
        print('exec: "edgetpu_compiler": executable file not found in $PATH.')
        sys.exit(127)
    if given.rest == ["--version"]:
        print("Edge TPU Compiler version 16.0.384591198")
        sys.exit()
    os.chdir(folder)
    record.with_suffix(".pid").write_text(str(os.getpid()))
    compiler = Path(__file__).with_name("standin_compiler.py")
    os.execv(sys.executable, [sys.executable, str(compiler), behaviour, *given.rest])


if __name__ == "__main__":
    main()
