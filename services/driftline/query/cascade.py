"""Re-ranking by the new model while an upgrade goes on: the best hits of older generations are embedded by it.

What was embedded is written through: the document is asked to be backfilled, and its embedding is already in the cache
that encode looks at first. So searching carries over what people search for.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from driftline.core.collections import Collection
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.ports import Cache, Embedder, Publisher, VectorStore
from driftline.core.records import ChunkHit, Matrix, Space
from driftline.query.fills import Fills
from driftline.retrieval.backfill import backfill_record
from driftline.retrieval.embeddings import cache_key, plan_requests
from driftline.retrieval.generations import Found

log = logging.getLogger(__name__)


class WriteThrough:
    """Asks for backfills of what was re-ranked, on a thread of its own; each document once, best effort."""

    _WAITING = 2_000
    _REMEMBERED = 50_000
    _EVERY_SECONDS = 0.5

    def __init__(self, store: VectorStore, publisher: Publisher, dimension_of: Callable[[str], int]) -> None:
        self._store = store
        self._publisher = publisher
        self._dimension_of = dimension_of
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], tuple[Collection, int, list[str]]] = {}
        self._count = 0
        self._asked: OrderedDict[tuple[str, int, str, int], None] = OrderedDict()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="write-through", daemon=True)
        self._thread.start()

    def offer(self, collection: Collection, hits: Sequence[tuple[ChunkHit, int]]) -> None:
        """`hits` with the place of the leg that holds them."""
        with self._lock:
            for hit, place in hits:
                old = collection.routes[place].generation
                known = (collection.uid, collection.newest.number, hit.key, hit.version)
                if known in self._asked or self._count >= self._WAITING:
                    continue
                self._asked[known] = None
                self._count += 1
                self._waiting.setdefault((collection.uid, old), (collection, old, []))[2].append(hit.key)
            while len(self._asked) > self._REMEMBERED:
                self._asked.popitem(last=False)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(self._EVERY_SECONDS):
            self.flush()

    def flush(self) -> None:
        with self._lock:
            taken, self._waiting, self._count = list(self._waiting.values()), {}, 0
        for collection, old, keys in taken:
            generation = collection.generation(old)
            target = collection.target(generation, self._dimension_of(generation.space))
            try:
                documents = self._store.fetch(target, keys, with_vectors=False)
                records = [backfill_record(collection, document, collection.newest.number) for document in documents]
                if records:
                    self._publisher.publish(records, 5.0)
            except Unavailable as error:
                # The backfill comes to them in its own order.
                log.warning("not written through", extra={"collection": collection.name, "error": str(error)})


class Cascade:
    """Thread-safe."""

    def __init__(self, embedder: Embedder, cache: Cache, fills: Fills, ttl_seconds: int, through: WriteThrough) -> None:
        self._embedder = embedder
        self._cache = cache
        self._fills = fills
        self._ttl = ttl_seconds
        self._through = through

    def rerank(self, collection: Collection, space: Space, query: Matrix, found: Found, count: int) -> int:
        """Score those of the best `count` hits that an older generation holds anew, in place; returns how many.

        `query` is of the newest space, float32 (1, dimension). A text that the encoder refuses keeps its score.
        Raises Unavailable.
        """
        places = [i for i, origin in enumerate(found.origins[:count]) if origin > 0]
        if not places:
            return 0
        vectors = self._embed(space, [space.document_prefix + found.hits[i].text for i in places])
        for place, vector in zip(places, vectors, strict=True):
            if vector is not None:
                score = _score(collection.definition.metric, query[0], vector)
                found.hits[place] = replace(found.hits[place], score=score)
        order = sorted(range(len(found.hits)), key=lambda i: (-found.hits[i].score, found.hits[i].key))
        self._through.offer(collection, [(found.hits[i], found.origins[i]) for i in places])
        found.hits[:] = [found.hits[i] for i in order]
        found.origins[:] = [found.origins[i] for i in order]
        return len(places)

    def _embed(self, space: Space, texts: Sequence[str]) -> list[Matrix | None]:
        keys = [cache_key(space.fingerprint, text) for text in texts]
        vectors: list[Matrix | None] = [
            np.frombuffer(kept, dtype=np.float32) if kept is not None and len(kept) == 4 * space.dimension else None
            for kept in self._cache.get_many(keys)
        ]
        missing = [i for i, vector in enumerate(vectors) if vector is None]
        plan = plan_requests([texts[i] for i in missing], space.max_batch)
        requests = [[missing[i] for i in request] for request in plan]
        answers = self._embedder.embed(space.encoder, space.fingerprint, [[texts[i] for i in r] for r in requests])
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, InvalidRecord):
                continue
            if isinstance(answer, Exception):
                raise answer
            for i, vector in zip(request, answer, strict=True):
                vectors[i] = vector
                self._fills.put(keys[i], vector.tobytes(), self._ttl)
        return vectors


def _score(metric: str, query: Matrix, document: Matrix) -> float:
    """As the store scores: higher is nearer."""
    if metric == "l2":
        return -float(np.sum((query - document) ** 2))
    product = float(query @ document)
    if metric == "ip":
        return product
    return product / max(float(np.linalg.norm(query) * np.linalg.norm(document)), 1e-12)
