"""How long a member of a consumer group may still write."""

from __future__ import annotations

import threading
import time


class Lease:
    """How long the broker surely counts a member as alive. Renewed by the polling thread and by kafka-python's own for
    heartbeats, asked by the threads that write."""

    def __init__(self, session_seconds: float) -> None:
        self._session_seconds = session_seconds
        self._lock = threading.Lock()
        self._renewed_at = -session_seconds

    def renew(self, at: float) -> None:
        """`at`: the monotonic time of what the broker acknowledged; the answer to an older one changes nothing."""
        with self._lock:
            self._renewed_at = max(self._renewed_at, at)

    def remaining(self) -> float:
        with self._lock:
            return self._renewed_at + self._session_seconds - time.monotonic()
