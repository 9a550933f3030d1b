"""How much of the encoder the background may have: all of it while nothing fresh comes, little while something does.

Priorities order what waits in Triton's queue, but a request that runs is not interrupted, and on a machine where the
encoder shares its cores with everything else, all of it running at once is felt by every other part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# The limit may have changed without anybody being told: look again.
_LOOK_AGAIN_SECONDS = 0.5


class Pace:
    """Shared by the background lanes of a process. Thread-safe."""

    def __init__(self, in_flight: int, is_fresh: Callable[[], bool]) -> None:
        """`in_flight` requests at a time while `is_fresh`, else as many as there are."""
        self._limit = in_flight
        self._is_fresh = is_fresh
        self._running = 0
        self._changed = threading.Condition()

    def width(self, requests: int) -> int:
        """How many requests to send in one go."""
        return 1 if self._is_fresh() else max(1, requests)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until another request may be sent."""
        with self._changed:
            while self._running >= self._limit and self._is_fresh():
                self._changed.wait(_LOOK_AGAIN_SECONDS)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()


class Unpaced(Pace):
    """For those who are not in the background."""

    def __init__(self) -> None:
        super().__init__(1, lambda: False)
