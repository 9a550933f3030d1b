"""Who goes first when more comes in than can be embedded at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from driftline.core.records import ChangeEvent, Operation

Producer = tuple[str, str]
_FLOOD_SECONDS = 10.0
_REMEMBERED = 10_000


def producer_of(event: ChangeEvent) -> Producer:
    """Whose change it is: a tenant of a collection."""
    return event.collection_uid, event.tenant


class Shares:
    """What each producer may have embedded at once while more is waiting: a few documents a second.

    Whoever sent a few has them embedded at once; whoever sent fifty thousand gets what the others leave. Thread-safe.
    """

    def __init__(self, documents_per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = documents_per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # What is left of each producer's share, and when that was; one that has all of it left is not kept.
        self._left: dict[Producer, float] = {}
        self._at = monotonic()
        # When each producer last sent more than its share.
        self._flooded: dict[Producer, float] = {}

    def is_flooding(self, event: ChangeEvent) -> bool:
        """Whether the event's producer sent more than its share within the last ten seconds."""
        with self._lock:
            return self._monotonic() - self._flooded.get(producer_of(event), -_FLOOD_SECONDS) < _FLOOD_SECONDS

    def over(self, events: Sequence[ChangeEvent]) -> set[int]:
        """Indices of the upserts beyond their producers' shares. Deletes cost nothing, and stay."""
        over: set[int] = set()
        with self._lock:
            self._refill()
            for i, event in enumerate(events):
                if event.operation is Operation.DELETE:
                    continue
                producer = producer_of(event)
                left = self._left.get(producer, self._rate)
                if left < 1:
                    over.add(i)
                    self._flooded[producer] = self._at
                else:
                    self._left[producer] = left - 1
        return over

    def _refill(self) -> None:
        now = self._monotonic()
        gained = self._rate * (now - self._at)
        self._at = now
        full = self._rate
        if len(self._flooded) > _REMEMBERED:
            self._flooded = {p: at for p, at in self._flooded.items() if now - at < _FLOOD_SECONDS}
        self._left = {p: left + gained for p, left in self._left.items() if left + gained < full}
