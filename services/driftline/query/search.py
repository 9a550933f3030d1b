"""Answering a search: encode, search the collection's store, group chunks to documents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from driftline.core import metrics
from driftline.core.collections import Collection, check_id, check_tenant
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound, Unavailable
from driftline.core.ports import Cache, Embedder, VectorStore
from driftline.core.receipts import ReceiptTail
from driftline.core.records import (
    ChunkHit,
    Matrix,
    Position,
    Space,
    StoredDocument,
    StoreTarget,
    VectorQuery,
    document_key,
)
from driftline.query import request as requests
from driftline.query.fills import Fills
from driftline.query.request import SearchBody
from driftline.query.settings import QuerySection
from driftline.retrieval import filters

_LONGEST_KEY = 512  # characters of a Redis key; a longer query is encoded each time


@dataclass(slots=True)
class Plan:
    """A checked search against a collection."""

    body: SearchBody
    collection: Collection
    space: Space
    target: StoreTarget
    tenant: str
    filter: filters.Filter | None
    offset: int
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the cache holds for a search. An empty key: not to be cached."""

    result_key: str
    query_key: str
    epoch: str
    result: bytes | None
    query: bytes | None


class Searcher:
    """Thread-safe."""

    def __init__(
        self,
        view: ControlView,
        embedder: Embedder,
        store: VectorStore,
        cache: Cache,
        tail: ReceiptTail,
        settings: QuerySection,
    ) -> None:
        self._view = view
        self._embedder = embedder
        self._store = store
        self._cache = cache
        self._tail = tail
        self._settings = settings
        self._fills = Fills(cache)

    def search(self, collection: str, body: SearchBody) -> dict[str, Any]:
        """Raises InvalidRequest, NotFound and Unavailable."""
        begun = time.perf_counter()
        plan = self._plan(collection, body)
        self._wait(body)
        remembered = self._look_up(plan)
        answer = self._cached(remembered)
        if answer is None:
            answer = self._answer(plan, remembered)
            if remembered.result_key:
                kept = orjson.dumps({"epoch": remembered.epoch, "answer": answer})
                self._fills.put(remembered.result_key, kept, self._settings.result_ttl_seconds)
        else:
            answer["cached"] = True
        took = time.perf_counter() - begun
        answer["took_ms"] = round(took * 1000, 3)
        if body.explain:
            answer["explain"] = self._explain(plan, answer)
        kind = "text" if body.text is not None else "vector" if body.vector is not None else "document"
        metrics.SEARCHES.labels(collection, kind).inc()
        metrics.SEARCH_SECONDS.labels("total").observe(took)
        return answer

    def document(self, collection: str, document_id: str, tenant: str | None) -> StoredDocument:
        """Raises NotFound."""
        known = self._view.collection(collection)
        target = known.target(known.complete, self._view.space(known.complete.space).dimension)
        return self._stored(known, target, check_tenant(known.definition, tenant), document_id, with_vectors=False)

    def _plan(self, name: str, body: SearchBody) -> Plan:
        collection = self._view.collection(name)
        definition = collection.definition
        if body.limit > self._settings.max_limit:
            raise InvalidRequest("invalid_search", f"expected at most {self._settings.max_limit}", "limit")
        offset = requests.offset_of(body)
        if offset + body.limit > self._settings.max_window:
            raise InvalidRequest(
                "invalid_search",
                f"offset and limit together: expected at most {self._settings.max_window}",
                "offset",
            )
        for wanted in body.output_fields or ():
            if wanted not in definition.fields:
                known = ", ".join(definition.fields)
                raise InvalidRequest("unknown_field", f"no field {wanted!r}; there are {known}", "output_fields")
        space = self._view.space(collection.complete.space)
        return Plan(
            body, collection, space, collection.target(collection.complete, space.dimension),
            check_tenant(definition, body.tenant), filters.parse(definition, body.filter), offset,
        )  # fmt: skip

    def _wait(self, body: SearchBody) -> None:
        """Read your own write: return when the token's event is indexed."""
        if body.after is None:
            return
        try:
            position = Position.parse(body.after)
        except ValueError as error:
            raise InvalidRequest("invalid_token", "expected the token of an accepted change", "after") from error
        timeout = min(float(body.timeout_seconds), self._settings.max_wait_seconds)
        if not self._tail.wait_indexed(position, timeout):
            raise Unavailable("index", f"the change {body.after} is not visible after {timeout:g} s")

    # The caches

    def _look_up(self, plan: Plan) -> _Remembered:
        """Ask Redis once for all that may be there: the answer, the query's embedding, the count of writes.

        An answer counts as long as the collection's epoch is the one it was made in: the count that index raises in
        Redis before it sends receipts, and what this process read from the receipts itself. A write is missed only
        if Redis lost the count and the receipts are late, both within the same moment.
        """
        name = plan.collection.name
        result_key = query_key = ""
        if self._settings.result_ttl_seconds and not plan.body.explain:
            result_key = f"r:{plan.collection.uid}:{requests.digest(plan.body)}:{plan.offset}"
        if plan.body.text is not None:
            query_key = f"q:{plan.space.fingerprint}:{plan.space.query_prefix}{plan.body.text}"
            query_key = query_key if len(query_key) <= _LONGEST_KEY else ""
        wanted = [key for key in (result_key and f"epoch:{name}", result_key, query_key) if key]
        found = dict(zip(wanted, self._cache.get_many(wanted), strict=True))
        shared, local = found.get(f"epoch:{name}"), self._tail.epoch(name)
        if shared is None and not local:
            result_key = ""
        return _Remembered(
            result_key, query_key, f"{(shared or b'').decode()};{local}", found.get(result_key), found.get(query_key)
        )

    @staticmethod
    def _cached(remembered: _Remembered) -> dict[str, Any] | None:
        if not remembered.result_key:
            return None
        kept = None if remembered.result is None else orjson.loads(remembered.result)
        answer: dict[str, Any] | None = kept["answer"] if kept and kept["epoch"] == remembered.epoch else None
        metrics.CACHE_REQUESTS.labels("result", "miss" if answer is None else "hit").inc()
        return answer

    # The search itself

    def _answer(self, plan: Plan, remembered: _Remembered) -> dict[str, Any]:
        body = plan.body
        vector, exclude = self._vector(plan, remembered)
        needed = plan.offset + body.limit + 1
        found = self._documents(plan, vector, exclude, needed)
        if body.min_score is not None:
            found = [hit for hit in found if hit.score >= body.min_score]
        page = found[plan.offset : plan.offset + body.limit]
        more = len(found) > plan.offset + body.limit
        answer: dict[str, Any] = {"hits": [_hit(hit, body.output_fields) for hit in page], "cached": False}
        if more and plan.offset + 2 * body.limit <= self._settings.max_window:
            answer["next_cursor"] = requests.make_cursor(body, plan.offset + body.limit)
        return answer

    def _vector(self, plan: Plan, remembered: _Remembered) -> tuple[Matrix, str]:
        """The query vector, float32 (1, dimension), and the key of the document to leave out."""
        body = plan.body
        if body.text is not None:
            begun = time.perf_counter()
            vector = self._embed(plan.space, body.text, remembered)
            plan.seconds["encode"] = time.perf_counter() - begun
            metrics.SEARCH_SECONDS.labels("encode").observe(plan.seconds["encode"])
            return vector, ""
        if body.vector is not None:
            return _given_vector(body.vector, plan.space), ""
        assert body.document is not None
        stored = self._stored(plan.collection, plan.target, plan.tenant, body.document, with_vectors=True)
        mean = stored.vectors.mean(axis=0, keepdims=True)
        if plan.space.normalized:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return mean.astype(np.float32), stored.key

    def _embed(self, space: Space, text: str, remembered: _Remembered) -> Matrix:
        found = remembered.query
        metrics.CACHE_REQUESTS.labels("query", "miss" if found is None else "hit").inc()
        if found is not None and len(found) == 4 * space.dimension:
            return np.frombuffer(found, dtype=np.float32).reshape(1, -1)
        (result,) = self._embedder.embed(space.encoder, space.fingerprint, [[space.query_prefix + text]])
        if isinstance(result, InvalidRecord):
            raise InvalidRequest(result.reason, result.detail, "text")
        if isinstance(result, Exception):
            raise result
        if remembered.query_key:
            self._fills.put(remembered.query_key, result.tobytes(), self._settings.embedding_ttl_seconds)
        return result

    def _stored(
        self,
        collection: Collection,
        target: StoreTarget,
        tenant: str,
        document_id: str,
        *,
        with_vectors: bool,
    ) -> StoredDocument:
        found = self._store.fetch(target, [document_key(tenant, check_id(document_id))], with_vectors)
        if not found:
            raise NotFound(
                "unknown_document",
                f"collection {collection.name!r} has no document {document_id!r}",
                "document",
            )
        return found[0]

    def _documents(self, plan: Plan, vector: Matrix, exclude: str, needed: int) -> list[ChunkHit]:
        """The best chunk of each document, best first; searches deeper while chunks of few documents crowd."""
        whole = plan.collection.definition.embedding.chunking.mode == "whole"
        limit = needed if whole else min(16_000, needed * 3)
        begun = time.perf_counter()
        while True:
            query = VectorQuery(
                vector, limit, plan.tenant if plan.collection.definition.tenancy else None, plan.filter,
                visible_from=False, with_fields=plan.body.output_fields != [], exclude_key=exclude,
            )  # fmt: skip
            (chunks,) = self._store.search(plan.target, query)
            best = group(chunks)
            if len(best) >= needed or len(chunks) < limit or limit >= 16_000:
                break
            limit = min(16_000, limit * 4)
        plan.seconds["store"] = time.perf_counter() - begun
        plan.notes["chunks_read"] = len(chunks)
        metrics.SEARCH_SECONDS.labels("store").observe(plan.seconds["store"])
        return best

    def _explain(self, plan: Plan, answer: dict[str, Any]) -> dict[str, Any]:
        generation = plan.collection.complete
        return {
            "collection_uid": plan.collection.uid,
            "generation": generation.number,
            "space": plan.space.fingerprint,
            "encoder": f"{plan.space.encoder}@{plan.space.encoder_version}",
            "metric": plan.collection.definition.metric,
            "store": generation.store,
            "cached": answer["cached"],
            "milliseconds": {part: round(s * 1000, 3) for part, s in plan.seconds.items()},
            **plan.notes,
        }


def group(chunks: Sequence[ChunkHit]) -> list[ChunkHit]:
    """The best chunk of each document, in order. Of two versions of a document only the newer one counts."""
    newest: dict[str, int] = {}
    for hit in chunks:
        newest[hit.key] = max(hit.version, newest.get(hit.key, hit.version))
    best: dict[str, ChunkHit] = {}
    for hit in chunks:
        if hit.version == newest[hit.key]:
            best.setdefault(hit.key, hit)
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.key))


def _given_vector(given: requests.VectorInput, space: Space) -> Matrix:
    if given.space and given.space != space.fingerprint:
        raise InvalidRequest(
            "space_mismatch",
            f"the collection's space is {space.fingerprint}; vectors of two spaces are never compared",
            "vector.space",
        )
    if len(given.values) != space.dimension:
        raise InvalidRequest(
            "wrong_dimension",
            f"expected {space.dimension} numbers, found {len(given.values)}",
            "vector.values",
        )
    return np.array([given.values], dtype=np.float32)


def _hit(hit: ChunkHit, output_fields: list[str] | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": hit.id, "score": hit.score, "version": hit.version, "chunk": hit.chunk, "text": hit.text,
    }  # fmt: skip
    if output_fields != []:
        fields = orjson.loads(hit.fields_json) if hit.fields_json else {}
        body["fields"] = fields if output_fields is None else {n: fields[n] for n in output_fields if n in fields}
    return body
