"""The one error that a user sees: what is wrong, in which file or tensor, and what to do."""

from __future__ import annotations

# Which extra brings which module; the command line turns a failed import into this advice.
EXTRA_OF_MODULE = {
    "ai_edge_litert": "board",
    "tflite_runtime": "board",
    "cv2": "board",
    "joblib": "train",
    "lz4": "train",
    "matplotlib": "train",
    "mtcnn": "train",
    "pydantic": "train",
    "tensorflow": "train",
    "tf_keras": "train",
    "tf_slim": "train",
    "tqdm": "train",
    "yaml": "train",
}


class FacetpuError(Exception):
    """A condition the user can mend; the message is one line and names the next action."""


def missing_module(error: ImportError) -> FacetpuError | None:
    """The advice for an import that failed for want of an extra; None for any other import error."""
    module = (error.name or "").split(".")[0]
    extra = EXTRA_OF_MODULE.get(module)
    if extra is None:
        return None
    return FacetpuError(f"{module} is not installed: run pip install 'facetpu[{extra}]'")


def os_error(error: OSError) -> FacetpuError:
    """One line for what the operating system refused: a full disk, a path not writable, a name too long."""
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        "ENOSPC": "free some space and run the same command again",
        "EACCES": "choose a path you may write to, or change its permissions",
        "EPERM": "choose a path you may write to, or change its permissions",
        "EROFS": "choose a path on a disk that can be written",
        "ENAMETOOLONG": "choose a shorter name",
    }
    import errno

    name = errno.errorcode.get(error.errno or 0, "")
    reason = (error.strerror or str(error)).lower()
    return FacetpuError(where + reason + (f"; {advice[name]}" if name in advice else ""))
