"""A bounded sample of what is searched for, written to `queries` behind the caller's back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from driftline.core import codec
from driftline.core.collections import Collection
from driftline.core.errors import Unavailable
from driftline.core.ports import Publisher
from driftline.core.records import Outgoing, SearchedQuery, now_us
from driftline.core.topics import QUERIES
from driftline.core.worker import Worker

log = logging.getLogger(__name__)
_HITS = 10
_WAITING = 1_000
_EVERY_SECONDS = 1.0


class QueryLog:
    """Takes at most `per_second` texts a second. Best effort: what does not fit, or Kafka does not take, is dropped."""

    def __init__(self, publisher: Publisher, per_second: float) -> None:
        self._publisher = publisher
        self._per_second = per_second
        self._allowance = per_second
        self._refilled = time.monotonic()
        self._lock = threading.Lock()
        self._waiting: list[Outgoing] = []
        self._worker = Worker("query-log", self.flush, every_seconds=_EVERY_SECONDS)
        self._worker.start()

    def offer(self, collection: Collection, tenant: str, text: str, hits: Sequence[str]) -> None:
        with self._lock:
            now = time.monotonic()
            burst = max(1.0, self._per_second)
            self._allowance = min(burst, self._allowance + self._per_second * (now - self._refilled))
            self._refilled = now
            if self._allowance < 1 or len(self._waiting) >= _WAITING:
                return
            self._allowance -= 1
            query = SearchedQuery(collection.name, collection.uid, tenant, text, now_us(), tuple(hits[:_HITS]))
            self._waiting.append(Outgoing(QUERIES.name, collection.uid.encode(), codec.encode_query(query), 0))

    def close(self) -> None:
        """Write what was taken last, if Kafka takes it now."""
        self._worker.close(6)
        self.flush()

    def flush(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
        try:
            if taken:
                self._publisher.publish(taken, 5.0)
        except Unavailable as error:
            log.warning("searched texts were dropped", extra={"count": len(taken), "error": str(error)})
