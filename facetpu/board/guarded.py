"""A model on a USB Edge TPU, in a process of its own.

When a USB Edge TPU is pulled out or its power sags, libedgetpu most often aborts its process ("transfer on
tag 2 failed. Abort."), which nothing can catch. Here that is the end of a child: who uses the model gets
an error, and goes on.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import FacetpuError
from .devices import edgetpu_delegate
from .runner import Runner

_SERVE = "from facetpu.board.guarded import serve; serve()"


class GuardedRunner:
    """As ``runner.Runner``, a pipe away.

    Attributes:
        inputs, outputs: the runtime's details of the tensors, in the model's order.
    """

    def __init__(self, model: bytes, where: Path, device: str | None, threads: int) -> None:
        """Start the process and open the model in it.

        Args:
            model: a compiled model's bytes.
            where: its file, for messages.
            device: which Edge TPU, as ``devices.check_device`` has it.
            threads: CPU threads for what is not compiled.

        Raises:
            NoEdgeTpu: there is no such Edge TPU.
            FacetpuError: the runtime refuses the model.
            RuntimeError: the process ended.
        """
        package = str(Path(__file__).resolve().parent.parent.parent)
        path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH")) if part)
        self._process: Any = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=path),
            start_new_session=True,  # Ctrl-C is for the parent, whose end is this one's
        )
        self._end = weakref.finalize(self, _end, self._process)
        self.inputs, self.outputs = self._ask((model, where, device, threads))

    def run(self, value: np.ndarray) -> list[np.ndarray]:
        """The outputs for ``value``, the one input's, in the model's order.

        Raises:
            RuntimeError: the Edge TPU failed, or took its process with it.
        """
        outputs: list[np.ndarray] = self._ask(value)
        return outputs

    def _ask(self, question: Any) -> Any:
        try:
            _send(self._process.stdin, question)
            answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise RuntimeError(f"its process ended{_by(self._process.wait())}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve() -> None:
    """Be the child: open the model that comes first on stdin, then answer each value with its outputs."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    questions = sys.stdin.buffer

    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has ended
        model, where, device, threads = pickle.load(questions)
        try:
            runner = Runner(model, where, [edgetpu_delegate(device)], threads)
        except FacetpuError as error:
            _send(answers, error)
            return
        _send(answers, (runner.inputs, runner.outputs))
        while True:
            value = pickle.load(questions)
            try:
                _send(answers, runner.run(value))
            except (RuntimeError, ValueError) as error:
                _send(answers, RuntimeError(str(error)))


def _send(stream: IO[bytes], value: Any) -> None:
    pickle.dump(value, stream, protocol=4)
    stream.flush()


def _by(code: int) -> str:
    """What ended a process, by its exit code."""
    return f" by {signal.Signals(-code).name}" if code < 0 else ""


def _end(process: Any) -> None:
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.stdout.close()
    process.wait()
