"""Coral's ``edgetpu_compiler``: finding it, running it, and understanding what it says.

It is a closed binary for x86-64 Debian; elsewhere a container image has it. Its exit code is no measure
of success: it "compiles successfully" with nothing on the Edge TPU, so callers must look at the counts
and at the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple, Sequence

from ..errors import FacetpuError
from .container import BUILD, Container, built_container, find_container
from .failures import explain

log = logging.getLogger(__name__)

COMPILER = "edgetpu_compiler"
TIMEOUT = 180  # seconds; the compiler's own default
GRACE = 30.0  # seconds past the compiler's own timer before it is killed
MAPPED = "Mapped to Edge TPU"
_ENGINE_FAILED, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127  # exit codes of docker and podman themselves
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class OpCount(NamedTuple):
    """A row of the operation log: how many ops of a kind ended so."""

    op: str
    number: int
    status: str


class Summary(NamedTuple):
    """What the compiler prints about one model; sizes in bytes, rounded as it prints them."""

    input: str
    output: str
    cached_bytes: int
    cache_left_bytes: int
    streamed_bytes: int
    subgraphs: int
    operations: int
    tpu_operations: int


class Compilation(NamedTuple):
    """One compiled model: its files, and what the compiler says of it."""

    model: Path
    log: Path
    compiler_version: str
    summary: Summary
    rows: list[OpCount]


class Compiler(NamedTuple):
    """A way to the compiler: a program of this machine, or of a container image."""

    program: str
    container: Container | None = None

    def __str__(self) -> str:
        return str(self.container or self.program)

    def command(self, folder: str, name: str) -> list[str]:
        """What to write before its arguments.

        Args:
            folder: where its files are; all that a container sees.
            name: for the container.
        """
        return self.container.command(self.program, folder, name) if self.container else [self.program]


def find_compiler(given: str | None = None) -> Compiler:
    """The compiler to call: the one given, else the one on PATH, else that of a container image.

    Args:
        given: a path, a name on PATH, or ``docker:IMAGE`` or ``podman:IMAGE``.

    Raises:
        FacetpuError: there is none, or it may not be executed.
    """
    container = None if given is None else find_container(given)
    found = None if container else shutil.which(given or COMPILER)
    if found:
        return Compiler(str(Path(found).resolve()))
    if given is None:
        container = built_container()
    if container:
        return Compiler(COMPILER, container)
    if given is None:
        raise FacetpuError(f"no {COMPILER} on PATH; {how_to_get_it()}")
    if os.path.isfile(given):
        raise FacetpuError(f"{given}: may not be executed; run chmod +x {shlex.quote(given)}")
    raise FacetpuError(f"{given}: no such compiler; {how_to_get_it()}")


def how_to_get_it() -> str:
    """Where the compiler comes from, and why it may not run here."""
    machine = platform.machine()
    place = "on an x86-64 Debian or Ubuntu, or in a container of one elsewhere"
    if machine not in ("x86_64", "AMD64"):
        place += f" (this machine is {machine})"
    return (
        "install the package edgetpu-compiler from Coral's apt repository "
        f"(scripts/install_edgetpu_compiler.sh) {place}: {BUILD}"
    )


def command_line(
    models: Sequence[Path], out: Path, timeout: int = TIMEOUT, compiler: str = COMPILER
) -> list[str]:
    """The command that compiles ``models`` into ``out``, together where there are several."""
    return [compiler, "-t", str(timeout), "-o", str(out), *map(str, models)]


def run_compiler(
    models: Sequence[Path], folder: Path, compiler: Compiler, timeout: int = TIMEOUT
) -> list[Compilation]:
    """Compile ``models`` into ``folder``, together where there are several.

    They are compiled under plain names in a temporary folder, since the compiler's wrapper is a
    shell script and a photo album's folder may be called anything.

    Args:
        models: the .tflite files; no two with one stem.
        folder: an existing folder for ``STEM_edgetpu.tflite`` and ``STEM_edgetpu.log``.
        compiler: as ``find_compiler`` gives it.
        timeout: seconds it may take.

    Raises:
        FacetpuError: it failed, hung or wrote nothing; the message has the cause and the remedy.
    """
    where = ", ".join(map(str, models))
    with tempfile.TemporaryDirectory(prefix="facetpu-compile-") as private:
        # Whoever the compiler runs as in a container may write here; nobody else gets as far.
        work, out = Path(private, "models"), Path(private, "models", "out")
        for place in (work, out):
            place.mkdir()
            place.chmod(0o777)
        plain = {f"facetpu-model-{index:03d}": model for index, model in enumerate(models)}
        for name, model in plain.items():
            shutil.copyfile(str(model), str(work / f"{name}.tflite"))
        arguments = command_line([Path(name + ".tflite") for name in plain], Path("out"), timeout)[1:]
        code, output = _execute(compiler, arguments, str(work), timeout + GRACE)
        for line in output.splitlines():
            log.debug("%s: %s", COMPILER, line)
        if compiler.container and code in (_ENGINE_FAILED, _NOT_EXECUTABLE, _NOT_FOUND):
            said = " ".join(output.split()) or f"it ends with code {code}"
            raise FacetpuError(f"{compiler}: cannot run {COMPILER}: {said}")
        if code != 0:
            raise FacetpuError(f"{where}: {explain(output, code, timeout)}")
        summaries = {Path(summary.input).stem: summary for summary in parse_summaries(output)}
        return [
            _collect(out, name, model, folder, summaries.get(name), output) for name, model in plain.items()
        ]


def parse_version(output: str) -> str:
    """``16.0.384591198`` from what the compiler prints first; empty where it does not."""
    match = re.search(r"Edge TPU Compiler version ([\d.]+)", output)
    return match.group(1) if match else ""


def parse_summaries(output: str) -> list[Summary]:
    """What the compiler's standard output says of each model.

    Ops that all went to the TPU get no line of their own: then their number is the total.
    """
    blocks = re.split(r"^(?=Input model: )", output, flags=re.MULTILINE)[1:]
    summaries = []
    for block in blocks:
        fields = dict(re.findall(r"^([A-Z][^:\n]*): (.*?)[ \t]*$", block, flags=re.MULTILINE))
        operations = int(fields.get("Total number of operations", 0))
        summaries.append(
            Summary(
                input=fields["Input model"],
                output=fields.get("Output model", ""),
                cached_bytes=_bytes(fields.get("On-chip memory used for caching model parameters")),
                cache_left_bytes=_bytes(fields.get("On-chip memory remaining for caching model parameters")),
                streamed_bytes=_bytes(
                    fields.get("Off-chip memory used for streaming uncached model parameters")
                ),
                subgraphs=int(fields.get("Number of Edge TPU subgraphs", 0)),
                operations=operations,
                tpu_operations=int(fields.get("Number of operations that will run on Edge TPU", operations)),
            )
        )
    return summaries


def parse_log(text: str) -> list[OpCount]:
    """The rows of an operation log, or of standard output with ``-s``."""
    _, _, table = text.partition("Operator ")
    rows = re.findall(r"^(\S+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", table, flags=re.MULTILINE)
    return [OpCount(op, int(count), status) for op, count, status in rows]


def _collect(
    out: Path, name: str, model: Path, folder: Path, summary: Summary | None, output: str
) -> Compilation:
    """Move one model's files from the temporary folder to ``folder`` under the model's own name."""
    compiled = out / f"{name}_edgetpu.tflite"
    if summary is None or not compiled.is_file() or not compiled.stat().st_size:
        raise FacetpuError(f"{model}: {explain(output, 0)}")
    operation_log = out / f"{name}_edgetpu.log"
    text = operation_log.read_text(encoding="utf-8", errors="replace") if operation_log.is_file() else ""
    log_path = folder / f"{model.stem}_edgetpu.log"
    log_path.write_text((text or output).replace(name, model.stem), encoding="utf-8")
    model_path = folder / f"{model.stem}_edgetpu.tflite"
    shutil.copyfile(str(compiled), str(model_path))
    return Compilation(model_path, log_path, parse_version(output), summary, parse_log(text or output))


def _execute(compiler: Compiler, arguments: list[str], folder: str, timeout: float) -> tuple[int | None, str]:
    """Run it to its end or kill it with all it started; its exit code (None: killed) and text."""
    name = f"facetpu-compile-{uuid.uuid4().hex[:12]}"
    command = compiler.command(folder, name) + arguments
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise FacetpuError(f"{command[0]}: cannot be run ({error.strerror}); {how_to_get_it()}") from None
    code: int | None = None
    try:
        output, _ = process.communicate(timeout=timeout)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _kill(process, compiler, name)
        output, _ = process.communicate()
    except BaseException:
        _kill(process, compiler, name)
        process.communicate()
        raise
    return code, output.decode("utf-8", errors="replace")


def _kill(process: subprocess.Popen[bytes], compiler: Compiler, name: str) -> None:
    """Kill the compiler and its children: a child left alive would hold the pipe open for ever."""
    if compiler.container:
        compiler.container.stop(name)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _bytes(size: str | None) -> int:
    """``6.86MiB`` in bytes; 0 where the compiler did not say."""
    match = re.match(r"([\d.]+)\s*([KMG]?i?B)$", size or "")
    return round(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0
