"""Who was enrolled, erased, renamed, let in or turned away, and when: a line of JSON each, no face."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import os_error

log = logging.getLogger(__name__)

LARGEST = 1 << 20  # bytes of a log, until it becomes the old one


class AuditLog:
    """The file ``audit.log``, for its owner; and ``audit.log.1``, the one before it."""

    def __init__(self, folder: Path) -> None:
        """The log in ``folder``."""
        self._path = folder / "audit.log"
        self._lock = threading.Lock()

    def write(self, action: str, **facts: Any) -> None:
        """Add a line; where it cannot be written, as on a full disk, it goes to the program's own log."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": moment, "action": action, **facts}, ensure_ascii=False) + "\n"
        try:
            with self._lock:
                self._append(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            log.error("%s: %s", os_error(error), line.rstrip())

    def _append(self, line: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size > LARGEST:
            os.replace(str(self._path), f"{self._path}.1")
        descriptor = os.open(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
