"""``facetpu inspect``: what is in a model, and where each op of it runs."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np

from ..artefacts import check_new
from ..errors import FacetpuError
from ..tflite.edit import is_constant
from ..tflite.model import read_model, tensor_shape, type_name
from .compiled import CUSTOM_OP, Executable, Package, is_compiled, read_packages
from .graph import Op, ops_of
from .imprinting import imprinting_problem
from .inspection_page import write_inspection
from .library import installed_runtime
from .rules import CACHE_BYTES
from .support import OpReport, check

_PADDING = 4 / 3  # compiled parameters to ours: 1.04 to 1.33 in Coral's models of half a megabyte and more
_LEFT = "left on the CPU by the compiler, or joined to the model after it"


class TensorReport(NamedTuple):
    """A tensor.

    ``scale`` and ``zero_point`` are None where it is not quantised, and where each channel has its own:
    ``scales`` is their number. A ``constant`` has its values in the file.
    """

    name: str
    type: str
    shape: list[int]
    scale: float | None
    zero_point: int | None
    scales: int
    constant: bool
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.type} {self.shape}, {self.size_bytes:,} bytes"
        quantised = "" if self.scale is None else f", scale {self.scale:.6g}, zero point {self.zero_point}"
        if self.scales > 1:
            quantised = f", {self.scales} scales"
        return f"{self.shown_name}: {size}{quantised}"

    @property
    def shown_name(self) -> str:
        """Its name, without what would move a terminal's cursor."""
        return self.name if self.name.isprintable() else ascii(self.name)


class OpInspection(NamedTuple):
    """An op: where it runs and why, and the numbers of its tensors; -1 for one that is not given."""

    index: int  # type: ignore[assignment]  # tuple.index is not missed
    op: str
    version: int
    target: str
    reason: str
    inputs: list[int]
    outputs: list[int]


class Inspection(NamedTuple):
    """What a model holds.

    ``inputs`` and ``outputs`` are its ends, ``tensors`` all of its main graph; ``input_numbers`` and
    ``output_numbers`` say which of these the ends are. ``parameters`` (``cached_bytes`` kept on the chip,
    ``streamed_bytes`` sent at every inference), ``min_runtime_version`` and ``programs`` are of a compiled
    model, ``installed_runtime`` of this machine (None where there is none); ``estimate``
    (``parameter_bytes`` of the ops that would run on the TPU, against ``cache_bytes``) is of a model that is
    not compiled. ``imprinting`` says whether Coral's engine takes it: ``accepted`` and ``problem``. ``html``
    is the page, where one was asked for.
    """

    model: Path
    size_bytes: int
    description: str
    compiled: bool
    inputs: list[TensorReport]
    outputs: list[TensorReport]
    tensors: list[TensorReport]
    input_numbers: list[int]
    output_numbers: list[int]
    ops: list[OpInspection]
    tpu_ops: int
    cpu_ops: int
    parameters: dict[str, int] | None
    min_runtime_version: int | None
    installed_runtime: int | None
    programs: list[Executable]
    estimate: dict[str, int] | None
    imprinting: dict[str, Any]
    html: Path | None

    def __str__(self) -> str:
        state = "compiled for the Edge TPU" if self.compiled else "not compiled"
        lines = [f"{self.model}: {_mib(self.size_bytes)}, {state}"]
        lines += [f"input    {tensor}" for tensor in self.inputs]
        lines += [f"output   {tensor}" for tensor in self.outputs]
        once = "" if self.compiled else ", once compiled"
        lines += [f"ops      {self.tpu_ops} on the Edge TPU, {self.cpu_ops} on the CPU{once}"]
        lines += [f"  {row}" for row in op_table(self.ops)]
        lines += [f"memory   {text}" for text in self.memory()]
        if self.min_runtime_version:
            lines.append(f"runtime  {self.runtime()}")
        problem = self.imprinting["problem"]
        lines.append("imprint  Coral's engine " + (f"refuses it: {problem}" if problem else "takes it"))
        if self.html is not None:
            lines.append(f"page     {self.html}")
        return "\n".join(lines)

    def runtime(self) -> str:
        """Which Edge TPU runtime a compiled model needs, and whether this machine has it."""
        needs = f"needs Edge TPU runtime {self.min_runtime_version} or newer"
        if self.installed_runtime is None:
            return f"{needs}; none is installed here"
        if self.installed_runtime < (self.min_runtime_version or 0):
            return f"{needs}; {self.installed_runtime} is installed here: update libedgetpu"
        return f"{needs}; {self.installed_runtime} is installed here"

    def memory(self) -> list[str]:
        """What the parameters take on the chip, as far as is known."""
        if self.estimate is not None:
            size = self.estimate["parameter_bytes"]
            fit = size * _PADDING < self.estimate["cache_bytes"]
            fits = "which holds them" if fit else "and the rest is streamed at every inference"
            return [
                f"{_mib(size)} of parameters before the compiler pads them; the chip keeps about "
                f"{_mib(self.estimate['cache_bytes'])}, {fits}"
            ] * bool(size)
        if self.parameters is None:
            return []
        return [
            f"{_mib(self.parameters['cached_bytes'])} of parameters cached on the chip, "
            f"{_mib(self.parameters['streamed_bytes'])} streamed at every inference"
        ] + [
            f"{program.type}: {program.scratch_bytes:,} bytes of scratch, "
            f"{sum(program.instruction_bytes):,} of instructions"
            for program in self.programs
        ]


def inspect(model: Path, html: Path | None = None, overwrite: bool = False) -> Inspection:
    """Read a model and say what is in it and where its ops run.

    Args:
        model: a .tflite file, compiled or not.
        html: a page to write of it, with its graph drawn.
        overwrite: replace ``html``.

    Raises:
        FacetpuError: it is a folder, or no whole .tflite file; or ``html`` exists.
    """
    path = Path(model)
    if html is not None:
        check_new(html, overwrite)
    if path.is_dir():
        names = ", ".join(sorted(file.name for file in path.glob("*.tflite")))
        raise FacetpuError(f"{path}: is a folder; name one model{' in it: ' + names if names else ''}")
    record = read_model(path)
    packages = read_packages(record, str(path))
    ops = ops_of(record, str(path))
    reports = _compiled_ops(ops) if packages else check(record, str(path))
    on_tpu = sum(report.target == "TPU" for report in reports)
    graph = record.subgraphs[0]
    tensors = [_tensor(record, tensor) for tensor in graph.tensors]
    problem = imprinting_problem(record, str(path))
    found = Inspection(
        model=path,
        size_bytes=path.stat().st_size,
        description=record.description or "",
        compiled=is_compiled(record),
        inputs=[tensors[i] for i in graph.inputs],
        outputs=[tensors[i] for i in graph.outputs],
        tensors=tensors,
        input_numbers=graph.inputs.tolist(),
        output_numbers=graph.outputs.tolist(),
        ops=[
            OpInspection(*report, op.record.inputs.tolist(), op.record.outputs.tolist())
            for report, op in zip(reports, ops)
        ],
        tpu_ops=on_tpu,
        cpu_ops=len(reports) - on_tpu,
        parameters=parameters_of(packages) if packages else None,
        min_runtime_version=max((package.min_runtime_version for package in packages), default=0) or None,
        installed_runtime=installed_runtime(),
        programs=[program for package in packages for program in package.executables],
        estimate=None if packages else _estimate(record, ops, reports),
        imprinting={"accepted": not problem, "problem": problem},
        html=html,
    )
    if html is not None:
        write_inspection(html, found, overwrite)
    return found


def parameters_of(packages: list[Package]) -> dict[str, int]:
    """Bytes of parameters cached on the chip, and streamed to it at every inference."""
    return {
        "cached_bytes": sum(package.parameter_bytes(cached=True) for package in packages),
        "streamed_bytes": sum(package.parameter_bytes(cached=False) for package in packages),
    }


def op_table(ops: Sequence[OpReport | OpInspection]) -> list[str]:
    """A line for each run of ops with one target and reason: their numbers, their kinds, and why."""
    rows = []
    for (target, reason), run in groupby(ops, key=lambda op: (op.target, op.reason)):
        members = list(run)
        first, last = members[0].index, members[-1].index
        kinds = Counter(f"{op.op} v{op.version}" if op.version > 1 else op.op for op in members)
        names = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in kinds.items())
        numbers = str(first) if first == last else f"{first}-{last}"
        rows.append(f"{numbers:>7}  {target}  {names}" + (f": {reason}" if reason else ""))
    return rows


def _compiled_ops(ops: list[Op]) -> list[OpReport]:
    """The ops of a compiled model: what the compiler took is one op, the others run on the CPU."""
    return [
        OpReport(op.index, op.name, op.version, "TPU", "")
        if op.name == CUSTOM_OP
        else OpReport(op.index, op.name, op.version, "CPU", _LEFT)
        for op in ops
    ]


def _estimate(model: Any, ops: list[Op], reports: list[OpReport]) -> dict[str, int]:
    mapped = [op for op, report in zip(ops, reports) if report.target == "TPU"]
    buffers = {number for op in mapped for number in _constants(op)}
    return {
        "parameter_bytes": sum(len(model.buffers[number].data) for number in buffers),
        "cache_bytes": CACHE_BYTES,
    }


def _constants(op: Op) -> set[int]:
    return {tensor.buffer for tensor in op.inputs if tensor is not None and op.is_constant(tensor)}


def _tensor(model: Any, tensor: Any) -> TensorReport:
    shape = list(tensor_shape(tensor))
    params = tensor.quantization
    scales = 0 if params is None or params.scale is None else len(params.scale)
    quantised = scales == 1
    points = params.zero_point if quantised else None
    return TensorReport(
        name=tensor.name or "",
        type=type_name(tensor),
        shape=shape,
        scale=float(params.scale[0]) if quantised else None,
        zero_point=(int(points[0]) if points is not None and len(points) else 0) if quantised else None,
        scales=scales,
        constant=is_constant(model, tensor),
        size_bytes=_item_size(type_name(tensor)) * int(np.prod(shape, dtype=np.int64)),
    )


def _item_size(name: str) -> int:
    """Bytes of one element; 0 for types that NumPy has not."""
    try:
        return np.dtype(name).itemsize
    except (TypeError, ValueError):
        return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"
