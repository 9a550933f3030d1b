"""Filling the cache behind the caller's back."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from driftline.core.ports import Cache
from driftline.core.worker import Worker

_DELAY_SECONDS = 0.02
_BOUND_BYTES = 16_000_000


class Fills:
    """Writes to the cache a moment later, many at once, in the background; what is over the bound is left out.

    At once and on another thread they took 1.2 ms of the caller's time: both wanted the interpreter.
    """

    def __init__(self, cache: Cache, bound_bytes: int = _BOUND_BYTES) -> None:
        self._cache = cache
        self._bound = bound_bytes
        self._bytes = 0
        self._waiting: dict[int, dict[str, bytes]] = {}
        self._lock = threading.Lock()
        self._worker = Worker("cache-fill", self._write, every_seconds=None)
        self._worker.start()

    def put(self, items: Mapping[str, bytes], ttl_seconds: int) -> None:
        """Any thread may call it; it does not wait."""
        if not items:
            return
        size = sum(map(len, items.values()))
        with self._lock:
            if self._bytes + size > self._bound:
                return
            self._bytes += size
            self._waiting.setdefault(ttl_seconds, {}).update(items)
        self._worker.wake()

    def close(self) -> None:
        """What was not written by then is left out."""
        self._worker.close(5)

    def _write(self) -> None:
        self._worker.rest(_DELAY_SECONDS)
        with self._lock:
            taken, self._waiting, self._bytes = self._waiting, {}, 0
        for ttl_seconds, items in taken.items():
            self._cache.set_many(items, ttl_seconds)
