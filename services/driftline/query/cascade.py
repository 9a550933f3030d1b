"""Re-ranking by the new model while an upgrade goes on: the best hits of older generations are embedded by it.

What was embedded is written through: the document is asked to be backfilled, and its embedding is already in the cache
that encode looks at first. So searching carries over what people search for.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from driftline.core.collections import Collection
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.ports import Publisher, VectorStore
from driftline.core.records import ChunkHit, Matrix, Space
from driftline.core.worker import Worker
from driftline.retrieval.backfill import backfill_record
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.generations import Found

log = logging.getLogger(__name__)

# (place of an older leg, liked hits with their places, how many to find) -> its hits for the moved query.
Again = Callable[[int, Sequence[tuple[ChunkHit, int]], int], list[ChunkHit]]
# Below that a second round costs more time than it finds.
_LEAST_FOR_TWO_ROUNDS = 10
_LIKED = 3


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
        self._worker = Worker("write-through", self.flush, every_seconds=self._EVERY_SECONDS)
        self._worker.start()

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
        self._worker.close(5)

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

    def __init__(self, encoder: CachedEncoder, through: WriteThrough) -> None:
        """`encoder` is of documents' texts, with a search's priority."""
        self._encoder = encoder
        self._through = through

    def rerank(
        self, collection: Collection, space: Space, query: Matrix, found: Found, count: int, again: Again
    ) -> int:  # fmt: skip
        """Score as many older hits anew as there are among the best `count`, in place; returns how many.

        The first half are the best hits as found. The other half is asked for by what the first half showed: the older
        leg is searched once more, nearer to the three hits that the new model likes best (docs/decisions/0010).
        Older hits that were not embedded come after those that were. `query` is of the newest space, float32
        (1, dimension). A text that the encoder refuses counts as not embedded. Raises Unavailable.
        """
        window = [hit.key for hit, origin in zip(found.hits[:count], found.origins, strict=False) if origin > 0]
        if not window:
            return 0
        hits = {hit.key: (hit, origin) for hit, origin in zip(found.hits, found.origins, strict=True)}
        half = len(window) if len(window) < _LEAST_FOR_TWO_ROUNDS else -(-len(window) // 2)
        embedded = self._score_anew(collection, space, query, hits, window[:half])
        if half < len(window):
            exact = [held for key, held in hits.items() if held[1] == 0 or key in embedded]
            liked = sorted(exact, key=lambda held: (-held[0].score, held[0].key))[:_LIKED]
            nearer = _nearer(found, liked, count, again)
            # What the first search found fills up when the second one finds too little.
            second = [key for key in dict.fromkeys([*nearer, *window]) if key not in embedded][: len(window) - half]
            hits |= {key: nearer[key] for key in second if key not in hits}
            embedded |= self._score_anew(collection, space, query, hits, second)
        self._through.offer(collection, [hits[key] for key in embedded])
        _order(hits, embedded, found)
        return len(embedded)

    def _score_anew(
        self,
        collection: Collection,
        space: Space,
        query: Matrix,
        hits: dict[str, tuple[ChunkHit, int]],
        keys: Sequence[str],
    ) -> set[str]:
        """Score these hits by the new model, in place; returns the keys of those that it did not refuse."""
        done: set[str] = set()
        vectors = self._encoder.encode(space, [space.document_prefix + hits[key][0].text for key in keys])
        for key, vector in zip(keys, vectors, strict=True):
            if not isinstance(vector, InvalidRecord):
                hit, origin = hits[key]
                hits[key] = (replace(hit, score=_score(collection.definition.metric, query[0], vector)), origin)
                done.add(key)
        return done


def _nearer(
    found: Found, liked: Sequence[tuple[ChunkHit, int]], count: int, again: Again
) -> dict[str, tuple[ChunkHit, int]]:  # fmt: skip
    """Hits of the older legs nearer to `liked`, by key, best first, with their places."""
    newer = {hit.key for hit, origin in zip(found.hits, found.origins, strict=True) if origin == 0}
    places = sorted({origin for origin in found.origins if origin > 0})
    hits = [(hit, place) for place in places for hit in again(place, liked, count) if hit.key not in newer]
    return {held[0].key: held for held in sorted(hits, key=lambda held: -held[0].score)}


def _order(hits: Mapping[str, tuple[ChunkHit, int]], embedded: Set[str], found: Found) -> None:
    """Order by score; an older hit that was not embedded comes after the last one that was."""
    last = min((hits[key][0].score for key in embedded), default=float("inf"))

    def place(held: tuple[ChunkHit, int]) -> tuple[float, bool, float, str]:
        hit, origin = held
        known = origin == 0 or hit.key in embedded
        return (-hit.score if known else -min(hit.score, last), not known, -hit.score, hit.key)

    ranked = sorted(hits.values(), key=place)
    found.hits[:] = [replace(held[0], score=-place(held)[0]) for held in ranked]
    found.origins[:] = [origin for _, origin in ranked]


def _score(metric: str, query: Matrix, document: Matrix) -> float:
    """As the store scores: higher is nearer."""
    if metric == "l2":
        return -float(np.sum((query - document) ** 2))
    product = float(query @ document)
    if metric == "ip":
        return product
    return product / max(float(np.linalg.norm(query) * np.linalg.norm(document)), 1e-12)
