"""Where each op of a model would run once compiled: on the Edge TPU or the CPU, and why.

The compiler reads a model with the TFLite of mid-2021, looks for ops that the Edge TPU runs, and maps
one connected set of them: the first that TFLite's partitioning of the graph gives. All that comes
after the first op it cannot map stays on the CPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import FacetpuError
from ..tflite.schema import BuiltinOperator, TensorType
from .graph import Op, ops_of
from .rules import fault

# The newest version of each op that the compiler's TFLite reads; 1 for those not named. From TensorFlow
# Lite's op registrations of mid-2021, and the failures reported since.
_NEWEST_VERSIONS = """
    ABS:3 ADD:4 ARG_MAX:2 ARG_MIN:2 AVERAGE_POOL_2D:3 BATCH_MATMUL:4 BATCH_TO_SPACE_ND:3
    BIDIRECTIONAL_SEQUENCE_LSTM:3 BIDIRECTIONAL_SEQUENCE_RNN:3 BROADCAST_TO:3 CONCATENATION:3 CONV_2D:5
    DEPTHWISE_CONV_2D:6 DEPTH_TO_SPACE:2 DEQUANTIZE:4 DIV:2 EMBEDDING_LOOKUP:3 EQUAL:3 FAKE_QUANT:2
    FILL:3 FLOOR_DIV:2 FULLY_CONNECTED:9 GATHER:5 GATHER_ND:3 GREATER:2 GREATER_EQUAL:2
    L2_NORMALIZATION:2 LEAKY_RELU:2 LESS:2 LESS_EQUAL:2 LOGISTIC:3 LOG_SOFTMAX:2 LSTM:4 MAXIMUM:4
    MAX_POOL_2D:3 MEAN:3 MINIMUM:4 MIRROR_PAD:2 MUL:4 NOT_EQUAL:3 PACK:3 PAD:3 PADV2:3 QUANTIZE:2
    REDUCE_MAX:3 REDUCE_MIN:3 RELU:3 RELU6:3 RESIZE_BILINEAR:4 RESIZE_NEAREST_NEIGHBOR:4 REVERSE_V2:3
    RNN:3 RSQRT:2 SELECT:2 SLICE:5 SOFTMAX:3 SPACE_TO_BATCH_ND:3 SPACE_TO_DEPTH:2 SPARSE_TO_DENSE:3
    SPLIT:4 SPLIT_V:2 SQUARED_DIFFERENCE:2 SQUEEZE:2 STRIDED_SLICE:5 SUB:5 SUM:2 SVDF:4 TANH:3 TILE:2
    TOPK_V2:2 TRANSPOSE:5 TRANSPOSE_CONV:3 UNIDIRECTIONAL_SEQUENCE_LSTM:3
    UNIDIRECTIONAL_SEQUENCE_RNN:3 UNPACK:4
"""
NEWEST_VERSIONS = {
    name: int(version) for name, version in (entry.split(":") for entry in _NEWEST_VERSIONS.split())
}
NEWEST_BUILTIN = BuiltinOperator.HASHTABLE_SIZE
# The custom ops that the compiler's interpreter can prepare; it refuses a model with any other.
KNOWN_CUSTOM_OPS = frozenset(
    ["AudioSpectrogram", "Mfcc", "NumericVerify", "PosenetDecoderOp", "TFLite_Detection_PostProcess"]
)
_NEWER = {
    "CONV_2D": "convolve without groups, or split the groups into convolutions of their own",
    "FULLY_CONNECTED": "convert with one scale for all weights, or use a 1x1 convolution",
}


class OpReport(NamedTuple):
    """Where an op runs: ``target`` is ``TPU`` or ``CPU``, and ``reason`` says why it is the CPU."""

    index: int  # type: ignore[assignment]  # tuple.index is not missed
    op: str
    version: int
    target: str
    reason: str


def check(model: Any, where: str = "the model") -> list[OpReport]:
    """Where each op of an uncompiled model would run, in the order of the ops.

    Args:
        model: as ``facetpu.tflite.model.read_model`` gives it.
        where: the file, for messages.

    Raises:
        FacetpuError: an op lacks a tensor, or a constant in it is damaged.
    """
    ops = ops_of(model, where)
    refusals = refusals_of(model, ops)
    faults = [refusals.get(op.index) or fault(op) for op in ops]
    if refusals:
        why = f"the compiler refuses the whole model: {next(iter(refusals.values()))}"
        return [_report(op, faults[op.index] or why) for op in ops]
    parents = _parents(ops)
    mapped = _first_subgraph(ops, faults, parents)
    return [
        _report(op, None if op.index in mapped else faults[op.index] or _behind(op, ops, faults, parents))
        for op in ops
    ]


def refusals_of(model: Any, ops: list[Op]) -> dict[int, str]:
    """What makes the compiler refuse the whole model, by op; -1 for what concerns no single op."""
    found: dict[int, str] = {}
    if len(model.subgraphs) > 1:
        found[-1] = f"it has {len(model.subgraphs)} graphs: convert without control flow (if, while)"
    if model.external_buffers:
        found[-1] = "its weights are in external buffers: convert it with the weights inside"
    for op in ops:
        reason = _unreadable(op) or _dynamic(op)
        if reason:
            found[op.index] = reason
    return found


def require_readable(model: Any, where: str) -> None:
    """Refuse a model that the compiler would refuse whole.

    Raises:
        FacetpuError: naming the op and the remedy.
    """
    ops = ops_of(model, where)
    for index, reason in refusals_of(model, ops).items():
        raise FacetpuError(f"{ops[index] if index >= 0 else where}: {reason}")


def _unreadable(op: Op) -> str | None:
    """Why the compiler's TFLite cannot read this op."""
    if op.is_custom:
        if op.name in KNOWN_CUSTOM_OPS:
            return None
        return f"the compiler does not know the custom op {op.name}: cut the model before it"
    newest = NEWEST_VERSIONS.get(op.name, 1) if op.number <= NEWEST_BUILTIN else 0
    if op.version > newest:
        advice = _NEWER.get(op.name, "convert with an older TensorFlow, or cut the model before it")
        knows = f"only version {newest}" if newest else "no such op"
        return f"is {op.name} version {op.version}, and the compiler, of 2021, knows {knows}: {advice}"
    if op.name in ("PAD", "PADV2") and op.input(1).type == TensorType.INT64:
        return "has paddings of int64, on which the compiler crashes: convert with paddings of int32"
    return None


def _dynamic(op: Op) -> str | None:
    for tensor in op.inputs + op.outputs:
        signature = None if tensor is None else tensor.shape_signature
        if signature is not None and len(signature) and min(signature) < 0:
            return (
                f"tensor {tensor.name!r} is {[int(size) for size in signature]}, without a fixed size, "
                "which the compiler calls not quantized: convert with a fixed batch of 1"
            )
    return None


def _parents(ops: list[Op]) -> list[set[int]]:
    """For each op, the ops whose outputs it reads."""
    makers = {int(tensor): op.index for op in ops for tensor in op.record.outputs}
    return [{makers[int(i)] for i in op.record.inputs if int(i) in makers} for op in ops]


def _first_subgraph(ops: list[Op], faults: list[str | None], parents: list[set[int]]) -> set[int]:
    """The ops of the first set that TFLite's graph partitioning hands to the Edge TPU.

    It takes every op of one kind (fit for the TPU or not) that is ready, then every op of the other
    kind, and so on, beginning with the kind of the first op.
    """
    done: set[int] = set()
    fit = bool(ops) and faults[0] is None
    while True:
        subset = set()
        for op in ops:
            if op.index not in done and (faults[op.index] is None) == fit and parents[op.index] <= done:
                done.add(op.index)
                subset.add(op.index)
        if fit or not subset:
            return subset
        fit = True


def _behind(op: Op, ops: list[Op], faults: list[str | None], parents: list[set[int]]) -> str:
    """Name the nearest op before this one that stays on the CPU."""
    layer, seen = parents[op.index], set()
    while layer:
        at_fault = [index for index in sorted(layer) if faults[index]]
        if at_fault:
            blocker = ops[at_fault[-1]]
            return (
                f"comes after op {blocker.index} {blocker.name} on the CPU, and the compiler maps one "
                "subgraph only: mend that op, or compile the rest as a model of its own"
            )
        seen |= layer
        layer = set().union(*(parents[index] for index in layer)) - seen
    return "reads what a later op makes: the model is damaged; get it again"


def _report(op: Op, reason: str | None) -> OpReport:
    return OpReport(op.index, op.name, op.version, "CPU" if reason else "TPU", reason or "")
