"""Why ``edgetpu_compiler`` fails: each message it is known to die with, its cause and the remedy."""

from __future__ import annotations

import re
from typing import NamedTuple

_SMALLER = "use a smaller input (--size of align), or a network with fewer channels in its first layers"
_FULL_INTEGER = "quantise every tensor to int8 with inputs of fixed shape: facetpu quantize does both"
_LOOK = "run facetpu inspect on it to see which op is at fault"


class Failure(NamedTuple):
    """A message of the compiler and what to tell the user; both texts may use the pattern's groups."""

    pattern: str
    cause: str
    remedy: str


# The first that matches counts, so what names the cause stands before what only names the result.
# Texts as version 16.0.384591198 prints them.
FAILURES = (
    Failure(
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        r"the compiler is of 2021 and does not know version \2 of \1",
        "convert with the options that emit the older op; " + _LOOK,
    ),
    Failure(
        r"Encountered unresolved custom op: ([\w-]+)",
        r"the compiler does not know the custom op \1",
        "cut the model before it with facetpu split --tensor and compile the part before",
    ),
    Failure(
        r"only supports static-sized tensors|dynamic-sized tensors",
        "a tensor has no fixed shape",
        "convert with a fixed batch of 1 and a fixed image size",
    ),
    Failure(
        r"Model not quantized",
        "the model is not quantised, or its batch is not fixed, which the compiler calls the same",
        _FULL_INTEGER,
    ),
    Failure(
        r"[Ll]arge activation tensors|Compilation timeout",
        "its activations are too large for the Edge TPU's memory",
        _SMALLER,
    ),
    Failure(
        r"Model failed in Tflite interpreter",
        "the compiler's TFLite of 2021 cannot run it",
        "check that it runs on the CPU; " + _LOOK,
    ),
    Failure(
        r"could not be parsed",
        "the compiler cannot read it",
        "check that it is a whole, uncompiled .tflite file; " + _LOOK,
    ),
    Failure(r"Invalid model", "the compiler takes it for no valid model", _LOOK),
    Failure(
        r"Internal compiler error|uncaught exception|[Ss]egmentation fault|core dumped",
        "the compiler itself crashed, which large tensors and ops newer than 2021 make it do",
        _LOOK + ", or " + _SMALLER,
    ),
    Failure(
        r"unrecognised option|unrecognized option|[Uu]nknown (?:flag|option|argument)",
        "this is an older compiler",
        "install version 16",
    ),
    Failure(
        r"Compilation failed", "the compiler gives no reason", _LOOK + ", and compile it in halves to find it"
    ),
)
_CRASHED = FAILURES[-3]
_ROUTINE = re.compile(r"Edge TPU Compiler version|Started a compilation timeout|Compilation child process")


def explain(output: str, code: int | None, timeout: int = 0) -> str:
    """One line that says why a compilation failed and what to do.

    Args:
        output: all that the compiler printed.
        code: its exit code; None if it had to be killed; 0 if it claims success and wrote nothing.
        timeout: seconds it was allowed.
    """
    for failure in FAILURES:
        match = re.search(failure.pattern, output)
        if match:
            return f"{match.expand(failure.cause)}; {match.expand(failure.remedy)}"
    if code is None:
        return f"the compiler did not end within {timeout} s; pass a longer --timeout, or {_SMALLER}"
    if code < 0 or code >= 128:  # a signal, seen directly or through a shell
        return f"{_CRASHED.cause}; {_CRASHED.remedy}"
    if not code:
        return "the compiler claims success and wrote no model; run it by hand, with -s, to see what it says"
    said = [line.strip() for line in output.splitlines() if line.strip() and not _ROUTINE.match(line)]
    words = f", saying: {said[-1]}" if said else " without a word"
    return f"the compiler ended with code {code}{words}; {_LOOK}"
