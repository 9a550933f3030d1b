"""What index does beside its stage: stores of created and deleted collections, and old tombstones."""

from __future__ import annotations

import logging
import threading
import time

from driftline.core.collections import Collection
from driftline.core.control import ControlView
from driftline.core.errors import Unavailable
from driftline.core.ports import VectorStore
from driftline.core.records import Clock, Generation, StoreTarget, now_us

log = logging.getLogger(__name__)
_DAY_US = 86_400 * 1_000_000


class Housekeeper:
    """Works on a thread of its own, and tries again what failed. Every replica does all of it: it is idempotent."""

    def __init__(
        self, view: ControlView, store: VectorStore, tombstone_days: float, clock: Clock = now_us,
        every_seconds: float = 600.0, grace_seconds: float = 30.0,
    ) -> None:  # fmt: skip
        """A retired generation is dropped `grace_seconds` after that is known: a search may just be reading it."""
        self._view = view
        self._store = store
        self._tombstone_us = int(tombstone_days * _DAY_US)
        self._clock = clock
        self._every = every_seconds
        self._grace = grace_seconds
        self._pending: dict[str, tuple[Collection, float]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def notice(self, collection: Collection) -> None:
        """A collection was created or deleted."""
        with self._lock:
            self._pending[collection.uid] = (collection, time.monotonic())
        self._wake.set()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            self._work()
            if due <= 0:
                due = self._every
                self.purge()
                # A replica that heard late may have made a retired store once more.
                for collection in self._view.collections():
                    if collection.retired:
                        self.notice(collection)
            self._wake.wait(5.0)
            self._wake.clear()
            due -= 5.0

    def _work(self) -> None:
        with self._lock:
            pending = list(self._pending.values())
        for collection, since in pending:
            try:
                self.settle(collection)
                if collection.retired and time.monotonic() - since < self._grace:
                    continue
                self.retire(collection)
            except Unavailable as error:
                log.warning("will try again", extra={"collection": collection.name, "error": str(error)})
                continue
            with self._lock:
                if self._pending.get(collection.uid) == (collection, since):
                    del self._pending[collection.uid]

    def _target(self, collection: Collection, generation: Generation) -> StoreTarget:
        return collection.target(generation, self._view.space(generation.space).dimension)

    def settle(self, collection: Collection) -> None:
        """Make the stores of live generations, drop those of a deleted collection. Raises Unavailable."""
        for generation in collection.generations:
            if collection.deleted:
                self._store.drop(self._target(collection, generation))
            else:
                self._store.ensure(self._target(collection, generation))

    def retire(self, collection: Collection) -> None:
        """Drop the stores of retired generations. Raises Unavailable."""
        for generation in collection.retired:
            self._store.drop(self._target(collection, generation))

    def purge(self) -> None:
        try:
            purged = self._store.purge_tombstones(self._clock() - self._tombstone_us)
        except Unavailable as error:
            log.warning("tombstones not purged", extra={"error": str(error)})
            return
        if purged:
            log.info("tombstones purged", extra={"count": purged})
