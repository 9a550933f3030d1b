"""Answering a search: what is asked for, what the caches hold, and the page of the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import orjson

from driftline.core import keys, metrics
from driftline.core.collections import Collection, check_tenant, named
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound, Unavailable
from driftline.core.filters import Filter
from driftline.core.ports import Cache, Embedder, VectorStore
from driftline.core.receipts import ReceiptTail
from driftline.core.records import (
    Carry,
    ChunkHit,
    Leg,
    Matrix,
    Position,
    Priority,
    Space,
    StoredDocument,
    StoreTarget,
    document_key,
)
from driftline.core.values import check_id, shown
from driftline.query import request as requests
from driftline.query.cascade import Cascade, WriteThrough
from driftline.query.fills import Fills
from driftline.query.log import QueryLog
from driftline.query.request import SearchBody
from driftline.query.settings import QuerySection
from driftline.retrieval import filters
from driftline.retrieval.embeddings import CachedEncoder, directly
from driftline.retrieval.generations import Found, GenerationSearch, Wanted


@dataclass(slots=True)
class Plan:
    """A checked search against a collection."""

    body: SearchBody
    collection: Collection
    tenant: str
    filter: Filter | None
    offset: int
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the cache holds for a search. An empty key: not to be cached. Queries are by space."""

    result_key: str
    query_keys: Mapping[str, str]
    epoch: str
    result: bytes | None
    queries: Mapping[str, bytes | None]


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
        query_log: QueryLog | None = None,
        through: WriteThrough | None = None,
    ) -> None:
        self._view = view
        self._store = store
        self._cache = cache
        self._tail = tail
        self._settings = settings
        self._fills = Fills(cache)
        self._query_log = query_log
        ask = directly(embedder, Priority.SEARCH)
        keep = partial(self._fills.put, ttl_seconds=settings.embedding_ttl_seconds)
        self._queries = CachedEncoder(ask, cache, "query", keys.query_embedding, keep)
        documents = CachedEncoder(ask, cache, "rerank", keys.document_embedding, keep)
        self._cascade = None if through is None else Cascade(documents, through)
        self._generations = GenerationSearch(view, store)

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
                self._fills.put({remembered.result_key: kept}, self._settings.result_ttl_seconds)
        else:
            answer["cached"] = True
        took = time.perf_counter() - begun
        answer["took_ms"] = round(took * 1000, 3)
        if body.explain:
            answer["explain"] = self._explain(plan, answer)
        if self._query_log is not None and body.text is not None and body.offset == 0 and body.cursor is None:
            self._query_log.offer(plan.collection, plan.tenant, body.text, [hit["id"] for hit in answer["hits"]])
        kind = "text" if body.text is not None else "vector" if body.vector is not None else "document"
        metrics.SEARCHES.labels(collection, kind).inc()
        metrics.SEARCH_SECONDS.labels("total").observe(took)
        return answer

    def close(self) -> None:
        self._fills.close()

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
        if body.rerank > self._settings.max_rerank:
            raise InvalidRequest("invalid_search", f"expected at most {self._settings.max_rerank}", "rerank")
        # The filter first: a cursor's digest is made of a filter that is known to be one.
        filter_ = filters.parse(definition, body.filter)
        offset = requests.offset_of(body)
        if offset + body.limit > self._settings.max_window:
            raise InvalidRequest(
                "invalid_search",
                f"offset and limit together: expected at most {self._settings.max_window}",
                "offset",
            )
        for wanted in body.output_fields or ():
            if wanted not in definition.fields:
                detail = f"no field {shown(wanted)}; there are {named(definition.fields)}"
                raise InvalidRequest("unknown_field", detail, "output_fields")
        return Plan(body, collection, check_tenant(definition, body.tenant), filter_, offset)

    def _wait(self, body: SearchBody) -> None:
        """Read your own write: return when the token's event is indexed.

        Whoever may search may ask this of any position: the answer tells how far indexing has come, which is of no
        tenant, and nothing of the event.
        """
        if body.after is None:
            return
        try:
            position = Position.parse(body.after)
            self._tail.check(position)
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
        collection = plan.collection
        epoch_key, result_key = keys.epoch(collection.uid), ""
        if self._settings.result_ttl_seconds and not plan.body.explain:
            result_key = keys.result(collection.uid, plan.tenant, requests.digest(plan.body), plan.offset)
        query_keys = self._query_keys(plan)
        wanted = [*([epoch_key, result_key] if result_key else []), *query_keys.values()]
        found = dict(zip(wanted, self._cache.get_many(wanted), strict=True))
        shared, local = found.get(epoch_key), self._tail.epoch(collection.name)
        if shared is None and not local:
            result_key = ""
        route = ";".join(f"{leg.generation}.{leg.carry}.{leg.compensation}" for leg in collection.routes)
        return _Remembered(
            result_key, query_keys, f"{(shared or b'').decode()};{local};{route}", found.get(result_key),
            {space: found.get(key) for space, key in query_keys.items()},
        )  # fmt: skip

    def _query_keys(self, plan: Plan) -> dict[str, str]:
        """Where the embeddings of a query text are cached, by space: of every space that has a live generation."""
        text = plan.body.text
        if text is None:
            return {}
        spaces = [self._view.space(generation.space) for generation in plan.collection.generations]
        return {s.fingerprint: keys.query_embedding(s.fingerprint, s.query_prefix + text) for s in spaces}

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
        found = self._find(plan, remembered)
        if body.min_score is not None:
            found = [hit for hit in found if hit.score >= body.min_score]
        page = found[plan.offset : plan.offset + body.limit]
        more = len(found) > plan.offset + body.limit
        answer: dict[str, Any] = {"hits": [_hit(hit, body.output_fields) for hit in page], "cached": False}
        if more and plan.offset + 2 * body.limit <= self._settings.max_window:
            answer["next_cursor"] = requests.make_cursor(body, plan.offset + body.limit)
        return answer

    def _find(self, plan: Plan, remembered: _Remembered) -> list[ChunkHit]:
        body, collection = plan.body, plan.collection
        wanted = Wanted(
            max(plan.offset + body.limit + 1, body.rerank),
            plan.tenant if collection.definition.tenancy else None,
            plan.filter,
            with_fields=body.output_fields != [],
            to_rerank=body.rerank > 0,
        )
        if body.text is not None:
            found = self._by_text(plan, body.text, remembered, wanted)
            metrics.SEARCH_SECONDS.labels("encode").observe(found.seconds["encode"])
        elif body.vector is not None:
            found = self._by_vector(collection, body.vector, wanted)
        else:
            assert body.document is not None
            found = self._like_document(plan, body.document, wanted)
        metrics.SEARCH_SECONDS.labels("store").observe(found.seconds["store"])
        plan.seconds |= found.seconds
        plan.notes |= {"chunks_read": found.chunks_read, "legs": found.legs}
        return found.hits

    def _by_text(self, plan: Plan, text: str, remembered: _Remembered, wanted: Wanted) -> Found:
        collection = plan.collection
        vectors: dict[str, Matrix] = {}

        def encode(space: Space) -> Matrix:
            vectors[space.fingerprint] = self._embed(space, text, remembered)
            return vectors[space.fingerprint]

        found = self._generations.search(collection, collection.routes, encode, wanted)
        newest = self._view.space(collection.newest.space)
        if plan.body.rerank and self._cascade is not None and newest.fingerprint in vectors:
            begun = time.perf_counter()
            query = vectors[newest.fingerprint]

            def again(place: int, liked: Sequence[tuple[ChunkHit, int]], needed: int) -> list[ChunkHit]:
                return self._generations.again(found, place, liked, replace(wanted, needed=needed))

            plan.notes["reranked"] = self._cascade.rerank(collection, newest, query, found, plan.body.rerank, again)
            plan.seconds["rerank"] = time.perf_counter() - begun
            metrics.SEARCH_SECONDS.labels("rerank").observe(plan.seconds["rerank"])
        return found

    def _by_vector(self, collection: Collection, given: requests.VectorInput, wanted: Wanted) -> Found:
        """A vector of the newest space is carried to the older generations; one of an older live space, or of no
        named one, searches the generation that holds every document."""
        newest, complete = self._view.space(collection.newest.space), self._view.space(collection.complete.space)
        if given.space == newest.fingerprint != complete.fingerprint:
            legs = tuple(
                replace(leg, carry=Carry.MAPPED) if leg.compensation else leg for leg in collection.routes
            )  # fmt: skip
            vector = _given_vector(given, newest)
            return self._generations.search(collection, legs, lambda _: vector, wanted)
        vector = _given_vector(given, complete)
        return self._generations.search(collection, (Leg(collection.complete.number),), lambda _: vector, wanted)

    def _like_document(self, plan: Plan, document: str, wanted: Wanted) -> Found:
        """More like a stored document, among the generation that holds every document."""
        complete = plan.collection.complete
        space = self._view.space(complete.space)
        target = plan.collection.target(complete, space.dimension)
        stored = self._stored(plan.collection, target, plan.tenant, document, with_vectors=True)
        mean = stored.vectors.mean(axis=0, keepdims=True)
        if space.normalized:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        vector = mean.astype(np.float32)
        wanted = replace(wanted, exclude_key=stored.key)
        return self._generations.search(plan.collection, (Leg(complete.number),), lambda _: vector, wanted)

    def _embed(self, space: Space, text: str, remembered: _Remembered) -> Matrix:
        held = remembered.queries.get(space.fingerprint)
        (answer,) = self._queries.encode(space, [space.query_prefix + text], [held])
        if isinstance(answer, InvalidRecord):
            raise InvalidRequest(answer.reason, answer.detail, "text")
        return answer[None]

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

    def _explain(self, plan: Plan, answer: dict[str, Any]) -> dict[str, Any]:
        space = self._view.space(plan.collection.newest.space)
        return {
            "collection_uid": plan.collection.uid,
            "generation": plan.collection.newest.number,
            "space": space.fingerprint,
            "encoder": f"{space.encoder}@{space.encoder_version}",
            "metric": plan.collection.definition.metric,
            "cached": answer["cached"],
            "milliseconds": {part: round(s * 1000, 3) for part, s in plan.seconds.items()},
            **plan.notes,
        }


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
