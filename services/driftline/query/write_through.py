"""Writing through what a search had embedded by the new model: the documents are asked to be backfilled, and their
embeddings are in the cache that encode looks at first. So searching carries over what people search for.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from driftline.core.collections import CollectionIndex
from driftline.core.errors import Unavailable
from driftline.core.ports import Publisher, VectorStore
from driftline.core.records import Space
from driftline.core.store import Hit
from driftline.core.worker import Worker
from driftline.retrieval.backfill import backfill_record

log = logging.getLogger(__name__)


class WriteThrough:
    """Asks for backfills of what was re-ranked, on a thread of its own; each document once, best effort."""

    _WAITING = 2_000
    _REMEMBERED = 50_000
    _EVERY_SECONDS = 0.5

    def __init__(self, store: VectorStore, publisher: Publisher, space_of: Callable[[str], Space]) -> None:
        self._store = store
        self._publisher = publisher
        self._space_of = space_of
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], tuple[CollectionIndex, int, list[str]]] = {}
        self._count = 0
        self._asked: OrderedDict[tuple[str, int, str, int], None] = OrderedDict()
        self._worker = Worker("write-through", self.flush, every_seconds=self._EVERY_SECONDS)
        self._worker.start()

    def offer(self, index: CollectionIndex, hits: Sequence[Hit]) -> None:
        """`hits` of the index's route as it is."""
        uid = index.collection.uid
        with self._lock:
            for hit in hits:
                old = index.routes[hit.leg].generation
                known = (uid, index.newest.number, hit.key, hit.version)
                if known in self._asked or self._count >= self._WAITING:
                    continue
                self._asked[known] = None
                self._count += 1
                self._waiting.setdefault((uid, old), (index, old, []))[2].append(hit.key)
            while len(self._asked) > self._REMEMBERED:
                self._asked.popitem(last=False)

    def close(self) -> None:
        self._worker.close(5)

    def flush(self) -> None:
        with self._lock:
            taken, self._waiting, self._count = list(self._waiting.values()), {}, 0
        for index, old, keys in taken:
            collection, generation = index.collection, index.generation(old)
            target = collection.target(generation, self._space_of(generation.space))
            try:
                documents = self._store.fetch(target, keys, with_vectors=False)
                records = [backfill_record(collection, document, index.newest.number) for document in documents]
                if records:
                    self._publisher.publish(records, 5.0)
            except Unavailable as error:
                # The backfill comes to them in its own order.
                log.warning("not written through", extra={"collection": collection.name, "error": str(error)})
