"""What happens, told to everybody who listens; who listens too slowly is dropped and told so."""

from __future__ import annotations

import threading
from collections import deque

from .answers import Notice
from .refusals import Busy

LISTENERS = 32
WAITING = 100  # notices for one listener


class Subscription:
    """What happens from now on, for one listener; a context manager."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._waiting: deque[Notice] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def next(self, timeout: float) -> Notice | None:
        """The next notice; None when there is none within ``timeout`` seconds, or no more (``closed``)."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.closed, timeout)
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Listen no more."""
        self._notices.leave(self)
        self.end()

    def end(self) -> None:
        """There will be no more notices; those that wait can still be had."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def put(self, notice: Notice) -> bool:
        """Have ``notice`` wait; false when too many do, and the listener is dropped."""
        with self._changed:
            if self.closed:
                return False
            full = len(self._waiting) >= WAITING
            if full:
                self._waiting.clear()
                reason = f"{WAITING} notices were waiting; listen again, and read faster"
                notice = Notice("dropped", {"reason": reason})
                self.closed = True
            self._waiting.append(notice)
            self._changed.notify_all()
            return not full

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Notices:
    """Everybody who listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Subscription] = []

    def subscribe(self) -> Subscription:
        """Another listener.

        Raises:
            Busy: there are as many as may be.
        """
        with self._lock:
            if len(self._listeners) >= LISTENERS:
                raise Busy(f"{LISTENERS} listen already; close one, or try again later")
            self._listeners.append(Subscription(self))
            return self._listeners[-1]

    def leave(self, listener: Subscription) -> None:
        """One listener less."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def tell(self, notice: Notice) -> None:
        """Tell everybody, without waiting for anybody."""
        with self._lock:
            self._listeners = [listener for listener in self._listeners if listener.put(notice)]

    def end(self) -> None:
        """Tell everybody that there will be no more."""
        with self._lock:
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.end()
