"""A stand-in for ``edgetpu_compiler``, for tests only: it prints what the real one prints and writes like it.

``standin_compiler.py BEHAVIOUR ARGUMENTS...``: BEHAVIOUR is one of the failures below, ``hang``,
``signal``, ``none`` (success with nothing on the TPU), or how many ops it leaves on the CPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

BANNER = "Edge TPU Compiler version 16.0.384591198"
TIMER = "Started a compilation timeout timer of {} seconds."
WITHIN = "Compilation child process completed within timeout period."
REFUSED = "More than one subgraph is not supported"

# What the real compiler prints between its timer and its end, and its exit code.
FAILURES = {
    "not-quantized": ("Invalid model: m.tflite\nModel not quantized", 1),
    "op-version": (
        "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version of this builtin "
        "might be supported. Are you using an old TFLite binary with a newer model?\n\nERROR: Registration "
        "failed.\n\nInvalid model: m.tflite\nModel could not be parsed",
        1,
    ),
    "crash": ("\nInternal compiler error. Aborting! ", 1),
    "exception": ("libc++abi: terminating with uncaught exception of type std::out_of_range: vector", 1),
    "activations": (
        "Compilation failed: Compilation failed due to large activation tensors in "
        "model.\nCompilation failed! ",
        1,
    ),
    "own-timeout": (
        "Compilation timeout. This is usually caused by large activations.\nCompilation failed! ",
        1,
    ),
    "custom-op": (
        "ERROR: Encountered unresolved custom op: Atan.\nERROR: Node number 1 (Atan) failed to prepare.\n\n"
        "Compilation failed: Model failed in Tflite interpreter. Please ensure model can be loaded/run in "
        "Tflite interpreter.\nCompilation failed! ",
        1,
    ),
    "dynamic": (
        "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
        "dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter. Please ensure model "
        "can be loaded/run in Tflite interpreter.\nCompilation failed! ",
        1,
    ),
    "no-reason": ("Compilation failed! ", 1),
    "mute": ("", 3),
    "new-words": ("Something new went wrong", 1),
    "nothing-written": ("Compilation succeeded! ", 0),
}


def summary(path: Path, out: Path, operations: int, left: int) -> str:
    """What the compiler prints about one model."""
    stem = path.stem
    lines = [
        f"Input model: {path}",
        "Input size: 5.11MiB",
        f"Output model: {out / stem}_edgetpu.tflite",
        "Output size: 5.09MiB",
        "On-chip memory used for caching model parameters: 18.00KiB",
        "On-chip memory remaining for caching model parameters: 6.86MiB",
        "Off-chip memory used for streaming uncached model parameters: 0.00B",
        f"Number of Edge TPU subgraphs: {int(left < operations)}",
        f"Total number of operations: {operations}",
        f"Operation log: {out / stem}_edgetpu.log",
    ]
    if left:
        lines += [
            "",
            "Model successfully compiled but not all operations are supported by the Edge TPU. A "
            "percentage of "
            "the model will instead run on the CPU, which is slower. If possible, consider updating "
            "your model "
            "to use only operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs.",
            f"Number of operations that will run on Edge TPU: {operations - left}",
            f"Number of operations that will run on CPU: {left}",
        ]
    return "\n".join([*lines, "See the operation log file for individual operation details.", ""])


def operation_log(path: Path, names: list[str], left: int) -> str:
    """The log beside a compiled model."""
    cut = len(names) - left
    rows = [(name, 1, "Mapped to Edge TPU") for name in names[:cut]]
    rows += [(name, 1, REFUSED) for name in names[cut:]]
    lines = [BANNER, f"Input: {path}", f"Output: {path.stem}_edgetpu.tflite", ""]
    lines += [f"{'Operator':<31}{'Count':<11}Status", ""]
    return "\n".join(lines + [f"{name:<31}{count:<11}{status}" for name, count, status in rows]) + "\n"


def main() -> None:
    """Act as the first argument says, on the compiler's own arguments."""
    behaviour, *arguments = sys.argv[1:]
    parser = argparse.ArgumentParser()
    parser.add_argument("-t", "--timeout_sec", type=int, default=180)
    parser.add_argument("-o", "--out_dir", type=Path, default=Path())
    parser.add_argument("models", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    print(BANNER, TIMER.format(given.timeout_sec), sep="\n", flush=True)
    if behaviour == "hang":
        time.sleep(600)
    if behaviour == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behaviour in FAILURES:
        text, code = FAILURES[behaviour]
        print(text, WITHIN, sep="\n")
        sys.exit(code)
    from compiled_models import compile_model  # only now: most tests stop before, and NumPy takes its time

    from facetpu.edgetpu.graph import ops_of
    from facetpu.tflite.model import read_model

    succeeded = "Models" if len(given.models) > 1 else "Model"
    print(f"\n{succeeded} compiled successfully in 141 ms.\n")
    for path in given.models:
        names = [op.name for op in ops_of(read_model(path))]
        left = len(names) if behaviour == "none" else int(behaviour)
        print(summary(path, given.out_dir, len(names), left))
        data = path.read_bytes() if behaviour == "none" else compile_model(path, left)
        (given.out_dir / f"{path.stem}_edgetpu.tflite").write_bytes(data)
        (given.out_dir / f"{path.stem}_edgetpu.log").write_text(operation_log(path, names, left))
    print(WITHIN, "Compilation succeeded! ", sep="\n")


if __name__ == "__main__":
    main()
