"""Collections whose store or encoder cannot be used now: their changes wait, those of others go on."""

from __future__ import annotations

import logging
import threading

from driftline.core import metrics
from driftline.core.errors import PartlyUnavailable, SpaceMismatch
from driftline.core.records import Clock

log = logging.getLogger(__name__)
_FIRST_US = 1_000_000
LONGEST_US = 60_000_000


class Troubles:
    """When each collection that is in trouble is to be tried again. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By uid: the time until which it is not tried, and the pause that led there; both in microseconds.
        self._waiting: dict[str, tuple[int, int]] = {}

    def waits_until(self, uid: str) -> int:
        """The time until which this collection is not tried; 0 when it may be tried now."""
        with self._lock:
            until, _ = self._waiting.get(uid, (0, 0))
        return until if until > self._clock() else 0

    def note(self, uid: str, collection: str, error: PartlyUnavailable) -> int:
        """It could not be used: returns when it is to be tried again. The pause doubles, from 1 s to a minute."""
        now = self._clock()
        with self._lock:
            until, pause = self._waiting.get(uid, (0, 0))
            # Records of one batch, and of batches in flight beside it, fail together: that is one failure.
            if until <= now:
                pause = min(LONGEST_US, max(_FIRST_US, 2 * pause))
                until = now + pause
                self._waiting[uid] = (until, pause)
        if isinstance(error, SpaceMismatch):
            metrics.SPACE_REFUSALS.inc()
        metrics.COLLECTION_WAITS.labels(collection).set(1)
        log.warning("a collection waits", extra={"collection": collection, "error": str(error), "until_us": until})
        return until

    def clear(self, uid: str, collection: str) -> None:
        """It could be used."""
        with self._lock:
            known = self._waiting.pop(uid, None)
        if known is not None:
            metrics.COLLECTION_WAITS.labels(collection).set(0)
            log.info("a collection goes on", extra={"collection": collection})
