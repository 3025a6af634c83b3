"""The one error that a user sees: what is wrong, in which file or tensor, and what to do."""

from __future__ import annotations

import errno

# Which extra brings which module; the command line turns a failed import into this advice.
EXTRA_OF_MODULE = {
    "ai_edge_litert": "board",
    "tflite_runtime": "board",
    "cv2": "board",
    "fastapi": "serve",
    "jinja2": "evaluate",
    "joblib": "train",
    "lz4": "train",
    "keras": "train",
    "matplotlib": "evaluate",
    "mtcnn": "train",
    "onnx": "onnx",
    "paho": "mqtt",
    "pydantic": "train",
    "ray": "ray",
    "sklearn": "evaluate",
    "tensorboard": "train",
    "tensorflow": "train",
    "tf_keras": "train",
    "tf_slim": "train",
    "tqdm": "train",
    "upath": "cloud",
    "uvicorn": "serve",
    "yaml": "train",
}


# What to do about what the operating system refuses.
ADVICE_OF_ERRNO = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EACCES: "choose a path you may write to, or change its permissions",
    errno.EPERM: "choose a path you may write to, or change its permissions",
    errno.EROFS: "choose a path on a disk that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
}


class FacetpuError(Exception):
    """A condition the user can mend; the message is one line and names the next action."""

    def __str__(self) -> str:
        # A path may hold a line break, or bytes that are no text.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


def missing_module(error: ImportError) -> FacetpuError | None:
    """The advice for an import that failed for want of something to install; None for any other."""
    if "libGL.so.1" in str(error):
        return FacetpuError("OpenCV needs libGL.so.1: run apt-get install libgl1")
    module = (error.name or "").split(".")[0]
    extra = EXTRA_OF_MODULE.get(module)
    if extra is None:
        return None
    return FacetpuError(f"{module} is not installed: run pip install 'facetpu[{extra}]'")


def os_error(error: OSError) -> FacetpuError:
    """One line for what the operating system refused: a full disk, a path not writable, a name too long."""
    where = f"{error.filename}: " if error.filename else ""
    reason = (error.strerror or str(error)).lower()
    advice = ADVICE_OF_ERRNO.get(error.errno or 0)
    return FacetpuError(where + reason + (f"; {advice}" if advice else ""))
