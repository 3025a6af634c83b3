"""A first run of a model in a process of its own, which a damaged model may crash in our stead.

A TFLite runtime trusts what a model says of itself: a zero point out of its type's range, or an op with
too few inputs, ends the whole process. Our reader checks a file's form, and cannot foresee what each
kernel of each runtime does with every number in it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from .errors import FacetpuError
from .runtime import find_runtime, interpreter, refused

SECONDS = 5  # hundreds of times what a face embedder takes, and tens of times on a board
MEMORY = 1 << 30  # bytes; a face embedder takes some ten megabytes

_ALONE = """
import sys
from facetpu import trial
trial.find_runtime()
trial.SECONDS = int(sys.argv[3])
trial._try(sys.stdin.buffer.read(), sys.argv[1], int(sys.argv[2]))
"""


def require_runnable(model: bytes, where: str) -> None:
    """Refuse a model that does not run, or that would end this process or hold it up.

    It takes about 10 ms. Only on Linux can a process be copied safely; elsewhere nothing is tried.

    Args:
        model: a .tflite file without the Edge TPU's custom op.
        where: the file, for messages.

    Raises:
        FacetpuError: there is no runtime, it refuses the model, or the model crashes it or takes too
            long or too much memory.
    """
    if sys.platform != "linux":
        return
    find_runtime()  # imported here once, and not in every copy
    status, problem = _in_copy(model, where)
    if os.WIFSIGNALED(status):
        # A copy of a process with many threads may fail for its own reasons: a fresh one decides.
        status, problem = _in_fresh_process(model, where)
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) == signal.SIGALRM
        how = f"takes more than {SECONDS} s" if late else "crashes the TFLite runtime"
        problem = f"{where}: {how} for one run: it is damaged; get it again, or export it anew"
    if problem:
        raise FacetpuError(problem)


def _in_copy(model: bytes, where: str) -> tuple[int, str]:
    """How a copy of this process that runs ``model`` ended, as ``os.waitpid`` has it, and what it said."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of a copy of a process with threads; this one waits for none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        _try(model, where, writing)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        problem = pipe.read()
    return os.waitpid(process, 0)[1], problem


def _in_fresh_process(model: bytes, where: str) -> tuple[int, str]:
    """The same of a process that begins anew: it takes the time to import NumPy and the runtime."""
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-c", _ALONE, where, str(said.fileno()), str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[said.fileno()],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(path)),
        )
        process.communicate(model)
        said.seek(0)
        return max(-process.returncode, 0), said.read().decode("utf-8", "replace")


def _try(model: bytes, where: str, writing: int) -> None:
    """Run ``model`` once on zeros and end the process: none of the caller's code may run in the copy."""
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        _limit_memory()
        os.write(writing, _problem(model, where).encode("utf-8", "replace"))
    finally:
        os._exit(0)


def _problem(model: bytes, where: str) -> str:
    """What the runtime says against ``model``; nothing where it runs."""
    try:
        net = interpreter(model, name=where)
        net.allocate_tensors()
        for detail in net.get_input_details():
            net.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        net.invoke()
    except FacetpuError as error:
        return str(error)
    except (RuntimeError, ValueError, MemoryError) as error:
        # Without a word it has no memory left.
        return str(
            refused(where, error if str(error) else MemoryError("1 GB of memory is not enough for it"))
        )
    return ""


def _limit_memory() -> None:
    """Let the process take ``MEMORY`` more than it has; a runtime that gets none crashes or refuses."""
    import resource  # not on every system

    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = size + MEMORY if most == resource.RLIM_INFINITY else min(size + MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
