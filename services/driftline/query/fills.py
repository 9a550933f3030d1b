"""Filling the cache behind the caller's back."""

from __future__ import annotations

import threading

from driftline.core.ports import Cache

_DELAY_SECONDS = 0.02
_BOUND_BYTES = 16_000_000


class Fills:
    """Writes to the cache a moment later, many at once, on a thread of its own; what is over the bound is left out.

    At once and on another thread they took 1.2 ms of the caller's time: both wanted the interpreter.
    """

    def __init__(self, cache: Cache, bound_bytes: int = _BOUND_BYTES) -> None:
        self._cache = cache
        self._bound = bound_bytes
        self._bytes = 0
        self._waiting: dict[int, dict[str, bytes]] = {}
        self._lock = threading.Lock()
        self._any = threading.Event()
        threading.Thread(target=self._run, name="cache-fill", daemon=True).start()

    def put(self, key: str, value: bytes, ttl_seconds: int) -> None:
        with self._lock:
            if self._bytes + len(value) > self._bound:
                return
            self._bytes += len(value)
            self._waiting.setdefault(ttl_seconds, {})[key] = value
        self._any.set()

    def _run(self) -> None:
        rest = threading.Event()
        while True:
            self._any.wait()
            rest.wait(_DELAY_SECONDS)
            self._any.clear()
            with self._lock:
                taken, self._waiting, self._bytes = self._waiting, {}, 0
            for ttl_seconds, items in taken.items():
                self._cache.set_many(items, ttl_seconds)
