"""The compiler inside a container image, by docker or podman, for machines that cannot run it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from ..errors import FacetpuError

ENGINES = ("docker", "podman")
IMAGE = "edgetpu-compiler"  # what scripts/edgetpu_compiler.Dockerfile is built as
PLATFORM = "linux/amd64"  # the compiler's; elsewhere the engine emulates it
BUILD = f"docker build --platform {PLATFORM} -t {IMAGE} -f scripts/edgetpu_compiler.Dockerfile scripts"
_PATIENCE = 30  # seconds for an engine to say what it has
_MOUNTED = "/models"


class Container(NamedTuple):
    """An image with the compiler in it, and the program that runs it.

    Attributes:
        engine: docker or podman, as found.
        image: the image's name.
    """

    engine: str
    image: str

    def __str__(self) -> str:
        return f"{Path(self.engine).name}:{self.image}"

    def command(self, program: str, folder: str, name: str) -> list[str]:
        """The command that runs ``program`` of the image in ``folder``, without network.

        Args:
            program: of the image.
            folder: mounted as the working folder, the only one the program sees.
            name: of the container, by which it can be stopped.
        """
        mount = f"{folder}:{_MOUNTED}:Z"  # Z: readable under SELinux too
        return [
            *(self.engine, "run", "--rm", "--init", "--name", name, "--platform", PLATFORM),
            *("--network", "none", "--volume", mount, "--workdir", _MOUNTED),
            *("--entrypoint", program, self.image),
        ]

    def stop(self, name: str) -> None:
        """Kill the container ``name``, which outlives the command that began it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            _ask([self.engine, "kill", name])


def find_container(given: str) -> Container | None:
    """The container that ``docker:IMAGE`` or ``podman:IMAGE`` names; None for any other text.

    Raises:
        FacetpuError: the engine is not installed or not running, or has no such image.
    """
    name, colon, image = given.partition(":")
    if name not in ENGINES or not colon:
        return None
    engine = shutil.which(name)
    if engine is None:
        raise FacetpuError(f"{given}: {name} is not installed; install it, or give another --compiler")
    container = Container(engine, image or IMAGE)
    try:
        code, said = _ask([engine, "image", "inspect", "--format", "{{.Id}}", container.image])
    except subprocess.TimeoutExpired:
        raise FacetpuError(f"{given}: {name} does not answer; start its service") from None
    if code == 0:
        return container
    if "o such image" in said or "not known" in said or "not found" in said:
        raise FacetpuError(
            f"{given}: {name} has no image {container.image}; pull it, or build it from a clone of facetpu: "
            f"{BUILD.replace('docker', name, 1)}"
        )
    reason = " ".join(said.split()) or f"it ends with code {code}"
    raise FacetpuError(f"{given}: {name} cannot be used: {reason}")


def built_container() -> Container | None:
    """The image ``edgetpu-compiler``, where docker or podman is here and has it."""
    for name in ENGINES:
        with contextlib.suppress(FacetpuError):
            return find_container(f"{name}:{IMAGE}")
    return None


def _ask(command: list[str]) -> tuple[int, str]:
    """An engine's exit code and all it says."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_PATIENCE,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.returncode, done.stdout.decode("utf-8", errors="replace")
