"""What index does beside its stage: stores of created and deleted collections, and old tombstones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from driftline.core.collections import Collection
from driftline.core.control import ControlView
from driftline.core.errors import DriftlineError, Unavailable
from driftline.core.ports import VectorStore
from driftline.core.records import Clock, Generation, now_us
from driftline.core.store import StoreTarget
from driftline.core.worker import Worker

log = logging.getLogger(__name__)
_DAY_US = 86_400 * 1_000_000
_TURN_SECONDS = 5.0
# Of the back-off of one collection: what comes back is noticed within a minute.
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(slots=True)
class _Due:
    """A collection whose stores are to be brought in line, since when, and when that is tried next."""

    collection: Collection
    since: float
    at: float = 0.0
    pause: float = 0.0

    def put_off(self, now: float) -> None:
        self.pause = min(_LONGEST_PAUSE_SECONDS, max(_TURN_SECONDS, 2 * self.pause))
        self.at = now + self.pause


class Housekeeper:
    """Works in the background. Every replica does all of it: it is idempotent.

    What fails is tried again, at growing intervals and for each collection by itself: one whose store can never be
    made holds up no other, and does not fill the log.
    """

    def __init__(
        self,
        view: ControlView,
        store: VectorStore,
        tombstone_days: float,
        clock: Clock = now_us,
        every_seconds: float = 600.0,
        grace_seconds: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A retired generation is dropped `grace_seconds` after that is known: a search may just be reading it.

        Tombstones are purged every `every_seconds`.
        """
        self._view = view
        self._store = store
        self._tombstone_us = int(tombstone_days * _DAY_US)
        self._clock = clock
        self._every = every_seconds
        self._grace = grace_seconds
        self._monotonic = monotonic
        self._due: dict[str, _Due] = {}
        self._purge_at = monotonic()
        self._lock = threading.Lock()
        self._worker = Worker("housekeeping", self.turn, every_seconds=_TURN_SECONDS)

    def notice(self, collection: Collection) -> None:
        """A collection was created or deleted: what failed before may go well now. From any thread."""
        with self._lock:
            self._due[collection.uid] = _Due(collection, self._monotonic())
        self._worker.wake()

    def start(self) -> None:
        self._worker.start()

    def close(self) -> None:
        self._worker.close()

    def turn(self) -> None:
        """Do what is due."""
        with self._lock:
            due = [due for due in self._due.values() if due.at <= self._monotonic()]
        for one in due:
            if self._bring_in_line(one):
                with self._lock:
                    # A later notice stands in its place, and is due itself.
                    if self._due.get(one.collection.uid) is one:
                        del self._due[one.collection.uid]
        if self._monotonic() >= self._purge_at:
            self._purge_at = self._monotonic() + self._every
            self.purge()
            # A replica that heard late may have made a retired store once more.
            for collection in self._view.collections():
                if collection.retired:
                    self.notice(collection)

    def _bring_in_line(self, due: _Due) -> bool:
        """Whether nothing is left to do."""
        try:
            self.make_or_drop(due.collection)
            if due.collection.retired and self._monotonic() - due.since < self._grace:
                return False
            self.retire(due.collection)
        except DriftlineError as error:
            due.put_off(self._monotonic())
            log.warning(
                "stores of a collection are not in line; will try again",
                extra={"collection": due.collection.name, "error": str(error), "after_seconds": due.pause},
            )
            return False
        return True

    def _target(self, collection: Collection, generation: Generation) -> StoreTarget:
        return collection.target(generation, self._view.space(generation.space))

    def make_or_drop(self, collection: Collection) -> None:
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
