"""``facetpu compile``: checks, the compiler, and a look at what came out of it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ..artefacts import check_new, digest, finished, new_folder, write_manifest
from ..edgetpu.compiled import is_compiled, ops_left, read_packages
from ..edgetpu.compiler import (
    MAPPED,
    TIMEOUT,
    Compilation,
    Compiler,
    command_line,
    find_compiler,
    run_compiler,
)
from ..edgetpu.inspect import op_table, parameters_of
from ..edgetpu.support import OpReport, check, require_readable
from ..errors import FacetpuError
from ..tflite.model import read_model

log = logging.getLogger(__name__)


class CompiledModel(NamedTuple):
    """A model for the Edge TPU, and where each op of the model it was made from runs now.

    ``parameters`` has ``cached_bytes`` and ``streamed_bytes``; models compiled together have one
    ``parameter_caching_token``.
    """

    model: Path
    log: Path
    ops: list[OpReport]
    tpu_ops: int
    cpu_ops: int
    parameters: dict[str, int]
    min_runtime_version: int
    parameter_caching_token: str

    def __str__(self) -> str:
        cached, streamed = (self.parameters[key] / 2**20 for key in ("cached_bytes", "streamed_bytes"))
        lines = [
            f"{self.model}: {self.tpu_ops} of {len(self.ops)} ops on the Edge TPU",
            f"{cached:.2f} MiB of parameters cached on the chip, {streamed:.2f} MiB streamed every time",
            f"needs Edge TPU runtime {self.min_runtime_version} or newer",
        ]
        return "\n  ".join(lines + op_table([op for op in self.ops if op.target == "CPU"]))


class CompileResult(NamedTuple):
    """The compiled models, in the order of the given ones."""

    out: Path
    compiler_version: str
    models: list[CompiledModel]

    def __str__(self) -> str:
        return "\n".join(map(str, self.models))


def compile_models(
    models: list[Path],
    out: Path,
    compiler: str | None = None,
    timeout: int = TIMEOUT,
    overwrite: bool = False,
) -> CompileResult:
    """Compile models for the Edge TPU, together where there are several.

    Args:
        models: uncompiled .tflite files, no two of one name.
        out: the folder to make, with ``NAME_edgetpu.tflite`` and ``NAME_edgetpu.log`` of each.
        compiler: the ``edgetpu_compiler`` to call, or ``docker:IMAGE`` or ``podman:IMAGE`` with it inside;
            found on PATH or in the image ``edgetpu-compiler`` unless given.
        timeout: seconds it may take.
        overwrite: replace ``out``.

    Raises:
        FacetpuError: a model is unfit, there is no compiler, it failed, or nothing of a model came to
            run on the Edge TPU.
    """
    models, out = [Path(model) for model in models], Path(out)
    _check_names(models)
    originals = [read_model(model) for model in models]
    inputs = {model.name: digest(model) for model in models}
    config = {"models": [model.name for model in models]}
    done = finished(out, "compile", config, inputs)
    if done:
        log.info("%s: is up to date", out)
        return _result(out, done)
    check_new(out, overwrite)
    expected = [_check_model(record, model) for record, model in zip(originals, models, strict=True)]
    program = _find(compiler, models, timeout)
    with new_folder(out, overwrite) as folder:
        compilations = run_compiler(models, folder, program, timeout)
        entries = [
            _verify(model, original, ops, made)
            for model, original, ops, made in zip(models, originals, expected, compilations, strict=True)
        ]
        results = {"compiler_version": compilations[0].compiler_version, "models": entries}
        write_manifest(folder, "compile", config, inputs, **results)
    return _result(out, results)


def _check_names(models: list[Path]) -> None:
    stems: dict[str, Path] = {}
    for model in models:
        other = stems.setdefault(model.stem, model)
        if other is not model:
            raise FacetpuError(f"{model}: would be written to the same file as {other}; rename one of them")


def _check_model(record: Any, model: Path) -> list[OpReport]:
    """Where the ops will run; refuse a model of which nothing would come to the Edge TPU."""
    if is_compiled(record):
        raise FacetpuError(f"{model}: is compiled already; give the model it was compiled from")
    require_readable(record, str(model))
    ops = check(record, str(model))
    on_cpu = [op for op in ops if op.target == "CPU"]
    if len(on_cpu) == len(ops):
        first = f"op {ops[0].index} {ops[0].op}: {ops[0].reason}" if ops else "it has no op"
        raise FacetpuError(f"{model}: no op of it would run on the Edge TPU: {first}")
    for row in op_table(on_cpu):
        log.warning("%s: %s", model, " ".join(row.split()))
    return ops


def _find(compiler: str | None, models: list[Path], timeout: int) -> Compiler:
    try:
        return find_compiler(compiler)
    except FacetpuError as error:
        if compiler is not None:
            raise
        names = " ".join(shlex.quote(model.name) for model in models)
        results = " ".join(shlex.quote(f"{model.stem}_edgetpu.tflite") for model in models)
        by_hand = shlex.join(command_line([Path(model.name) for model in models], Path(), timeout))
        raise FacetpuError(
            f"{error}; by hand there: copy {names}, run {by_hand}, bring back {results}"
        ) from None


def _verify(model: Path, original: Any, ops: list[OpReport], compilation: Compilation) -> dict[str, Any]:
    """Open what the compiler wrote: its word, and its exit code, are not to be trusted."""
    compiled = read_model(compilation.model)
    packages = read_packages(compiled, str(model))
    said = {row.op: row.status for row in compilation.rows if row.status != MAPPED}
    if not packages or not compilation.summary.tpu_operations:
        why = "; ".join(f"{op}: {status}" for op, status in said.items()) or "it does not say why"
        raise FacetpuError(
            f"{model}: the compiler put no op of it on the Edge TPU ({why}); run facetpu inspect"
        )
    ops = [
        op._replace(target="CPU", reason=op.reason or said.get(op.op, "the compiler does not say why"))
        if left
        else op._replace(target="TPU", reason="")
        for op, left in zip(ops, ops_left(original, compiled), strict=True)
    ]
    on_cpu = sum(op.target == "CPU" for op in ops)
    return {
        "model": compilation.model.name,
        "log": compilation.log.name,
        "ops": [op._asdict() for op in ops],
        "tpu_ops": len(ops) - on_cpu,
        "cpu_ops": on_cpu,
        "parameters": parameters_of(packages),
        "min_runtime_version": max(package.min_runtime_version for package in packages),
        "parameter_caching_token": packages[0].executables[0].parameter_caching_token,
    }


def _result(out: Path, manifest: dict[str, Any]) -> CompileResult:
    models = [
        CompiledModel(
            **{
                **entry,
                "model": out / entry["model"],
                "log": out / entry["log"],
                "ops": [OpReport(**op) for op in entry["ops"]],
            }
        )
        for entry in manifest["models"]
    ]
    return CompileResult(out, manifest["compiler_version"], models)
