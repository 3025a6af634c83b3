"""The time that events are kept by, on a machine whose clock may be wrong, or jump."""

from __future__ import annotations

import time
from typing import Callable

BELIEVED_AFTER = 3600.0  # seconds that the wall clock must have been ahead, without another jump
_SAME = 5.0  # seconds by which two clocks that agree may differ


class HouseClock:
    """Seconds that never go back, and never leap while the house is open.

    It begins where the wall clock is, or where it was left the last time if that is later, as on a board
    that starts in 1970 until it has found the network. From there on it goes as the machine's monotonic
    clock does. Only when the wall clock has been ahead for an hour, by the same time, is that believed.
    So whoever is to be forgotten after 72 hours is forgotten after 72 hours of an open house at the
    latest, and a clock that jumps to 2038 and back deletes nothing.
    """

    def __init__(
        self,
        left_at: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on from ``left_at``, what ``now`` said last."""
        self._wall, self._monotonic = wall, monotonic
        self._offset = max(wall(), left_at) - monotonic()
        self._ahead, self._since = 0.0, monotonic()

    def now(self) -> float:
        """Seconds, by which only differences count."""
        return self._offset + self._monotonic()

    def look(self) -> None:
        """Compare with the wall clock; to be done every minute or so."""
        ahead, moment = self._wall() - self.now(), self._monotonic()
        if abs(ahead - self._ahead) > _SAME:
            self._ahead, self._since = ahead, moment
        elif ahead > _SAME and moment - self._since >= BELIEVED_AFTER:
            self._offset += ahead
            self._ahead, self._since = 0.0, moment
