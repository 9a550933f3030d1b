"""Answering a search: what is asked for, what the caches hold, and the page of the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from driftline.core import keys, metrics
from driftline.core.collections import Collection, check_tenant, named
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRequest, NotFound, Unavailable
from driftline.core.filters import Filter
from driftline.core.ports import Cache, Embedder, VectorStore
from driftline.core.receipts import ReceiptTail
from driftline.core.records import (
    Hit,
    Leg,
    Position,
    Priority,
    Space,
    StoredDocument,
    StoreTarget,
    document_key,
)
from driftline.core.values import check_id, shown
from driftline.core.vectors import Matrix, as_dense
from driftline.query import request as requests
from driftline.query.answer import Answer, AnswerHit, Page
from driftline.query.fills import Fills
from driftline.query.log import QueryLog
from driftline.query.request import SearchBody
from driftline.query.settings import QuerySection
from driftline.query.write_through import WriteThrough
from driftline.retrieval import filters
from driftline.retrieval.carry_over import CarryOver
from driftline.retrieval.embeddings import CachedEncoder, directly
from driftline.retrieval.engine import Engine, Found
from driftline.retrieval.leg_search import Wanted
from driftline.retrieval.legs import Query, Text, Vector


@dataclass(frozen=True, slots=True)
class Checked:
    """A search that was checked against its collection."""

    body: SearchBody
    collection: Collection
    tenant: str
    filter: Filter | None
    offset: int


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the cache holds for a search. An empty key: not to be cached. Queries are by space."""

    result_key: str
    epoch: str
    result: bytes | None
    queries: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class _Like:
    """A stored document, left out of the answer, and what is like it."""

    key: str
    query: Vector


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
        self._through = through
        ask = directly(embedder, Priority.SEARCH)
        keep = partial(self._fills.put, ttl_seconds=settings.embedding_ttl_seconds)
        self._engine = Engine(view, store, CachedEncoder(ask, cache, "query", keys.query_embedding, keep))
        self._carry_over = CarryOver(store, CachedEncoder(ask, cache, "rerank", keys.document_embedding, keep))

    def search(self, collection: str, body: SearchBody) -> Answer:
        """Raises InvalidRequest, NotFound and Unavailable."""
        begun = time.perf_counter()
        checked = self._check(collection, body)
        self._wait(body)
        remembered = self._look_up(checked)
        page, found = self._kept(remembered), None
        if page is None:
            found = self._find(checked, remembered)
            page = self._page(checked, found.hits)
            if remembered.result_key:
                kept = page.to_bytes(remembered.epoch)
                self._fills.put({remembered.result_key: kept}, self._settings.result_ttl_seconds)
        if self._query_log is not None and body.text is not None and body.offset == 0 and body.cursor is None:
            self._query_log.offer(checked.collection, checked.tenant, body.text, [hit.id for hit in page.hits])
        kind = "text" if body.text is not None else "vector" if body.vector is not None else "document"
        metrics.SEARCHES.labels(collection, kind).inc()
        took = time.perf_counter() - begun
        metrics.SEARCH_SECONDS.labels("total").observe(took)
        explain = self._explain(checked, found) if body.explain and found is not None else None
        return Answer(page, found is None, round(took * 1000, 3), explain)

    def close(self) -> None:
        self._fills.close()

    def document(self, collection: str, document_id: str, tenant: str | None) -> StoredDocument:
        """Raises NotFound."""
        known = self._view.collection(collection)
        target = known.target(known.complete, self._view.space(known.complete.space))
        return self._stored(known, target, check_tenant(known.definition, tenant), document_id, with_vectors=False)

    def _check(self, name: str, body: SearchBody) -> Checked:
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
        return Checked(body, collection, check_tenant(definition, body.tenant), filter_, offset)

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

    def _look_up(self, checked: Checked) -> _Remembered:
        """Ask Redis once for all that may be there: the answer, the query's embedding, the count of writes.

        An answer counts as long as the collection's epoch is the one it was made in: the count that index raises in
        Redis before it sends receipts, and what this process read from the receipts itself. A write is missed only
        if Redis lost the count and the receipts are late, both within the same moment.
        """
        collection = checked.collection
        epoch_key, result_key = keys.epoch(collection.uid), ""
        if self._settings.result_ttl_seconds and not checked.body.explain:
            result_key = keys.result(collection.uid, checked.tenant, requests.digest(checked.body), checked.offset)
        query_keys = self._query_keys(checked)
        wanted = [*([epoch_key, result_key] if result_key else []), *query_keys.values()]
        found = dict(zip(wanted, self._cache.get_many(wanted), strict=True))
        shared, local = found.get(epoch_key), self._tail.epoch(collection.name)
        if shared is None and not local:
            result_key = ""
        route = ";".join(f"{leg.generation}.{leg.carry}.{leg.compensation}" for leg in collection.routes)
        return _Remembered(
            result_key, f"{(shared or b'').decode()};{local};{route}", found.get(result_key),
            {space: found.get(key) for space, key in query_keys.items()},
        )  # fmt: skip

    def _query_keys(self, checked: Checked) -> dict[str, str]:
        """Where the embeddings of a query text are cached, by space: of every space that has a live generation."""
        text = checked.body.text
        if text is None:
            return {}
        spaces = [self._view.space(generation.space) for generation in checked.collection.generations]
        return {s.fingerprint: keys.query_embedding(s.fingerprint, s.query_prefix + text) for s in spaces}

    @staticmethod
    def _kept(remembered: _Remembered) -> Page | None:
        if not remembered.result_key:
            return None
        page = Page.from_bytes(remembered.result, remembered.epoch)
        metrics.CACHE_REQUESTS.labels("result", "miss" if page is None else "hit").inc()
        return page

    # The search itself

    def _page(self, checked: Checked, hits: Sequence[Hit]) -> Page:
        body, offset = checked.body, checked.offset
        if body.min_score is not None:
            hits = [hit for hit in hits if hit.score >= body.min_score]
        end = offset + body.limit
        more = len(hits) > end and end + body.limit <= self._settings.max_window
        return Page(
            [AnswerHit.of(hit, body.output_fields) for hit in hits[offset:end]],
            requests.make_cursor(body, end) if more else "",
        )

    def _find(self, checked: Checked, remembered: _Remembered) -> Found:
        body, collection = checked.body, checked.collection
        wanted = Wanted(
            max(checked.offset + body.limit + 1, body.rerank),
            checked.tenant if collection.definition.tenancy else None,
            checked.filter,
            with_fields=body.output_fields != [],
            to_rerank=body.rerank > 0,
        )
        legs: Sequence[Leg] = collection.routes
        query: Query
        if body.text is not None:
            query = Text(body.text, remembered.queries)
        elif body.vector is not None:
            query, legs = self._given(collection, body.vector)
        else:
            assert body.document is not None
            like = self._like(checked, body.document)
            query, legs = like.query, (Leg(collection.complete.number),)
            wanted = replace(wanted, exclude_key=like.key)
        found = self._engine.search(collection, legs, query, wanted)
        if body.text is not None:
            metrics.SEARCH_SECONDS.labels("encode").observe(found.seconds["encode"])
        metrics.SEARCH_SECONDS.labels("store").observe(found.seconds["store"])
        return self._carried_over(checked, found, wanted) if body.rerank else found

    def _carried_over(self, checked: Checked, found: Found, wanted: Wanted) -> Found:
        if self._through is None:
            return found
        begun = time.perf_counter()
        found = self._carry_over.apply(found, wanted, checked.body.rerank)
        self._through.offer(checked.collection, found.carried)
        took = time.perf_counter() - begun
        metrics.SEARCH_SECONDS.labels("rerank").observe(took)
        return replace(found, seconds={**found.seconds, "rerank": took})

    def _given(self, collection: Collection, given: requests.VectorInput) -> tuple[Vector, Sequence[Leg]]:
        """A vector of the newest space is carried to the older generations; one of an older live space, or of no
        named one, searches the generation that holds every document."""
        newest, complete = self._view.space(collection.newest.space), self._view.space(collection.complete.space)
        if given.space == newest.fingerprint != complete.fingerprint:
            return Vector(_checked_vector(given, newest), newest.fingerprint), collection.routes
        vector = Vector(_checked_vector(given, complete), complete.fingerprint)
        return vector, (Leg(collection.complete.number),)

    def _like(self, checked: Checked, document: str) -> _Like:
        """More like a stored document, among the generation that holds every document."""
        complete = checked.collection.complete
        space = self._view.space(complete.space)
        target = checked.collection.target(complete, space)
        stored = self._stored(checked.collection, target, checked.tenant, document, with_vectors=True)
        mean = as_dense(stored.vectors).mean(axis=0, keepdims=True)
        if space.normalized:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return _Like(stored.key, Vector(mean.astype(np.float32), space.fingerprint))

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

    def _explain(self, checked: Checked, found: Found) -> dict[str, Any]:
        space = self._view.space(checked.collection.newest.space)
        told = {
            "collection_uid": checked.collection.uid,
            "generation": checked.collection.newest.number,
            "space": space.fingerprint,
            "encoder": f"{space.encoder}@{space.encoder_version}",
            "metric": checked.collection.definition.metric,
            "cached": False,
            "milliseconds": {part: round(s * 1000, 3) for part, s in found.seconds.items()},
            "chunks_read": found.chunks_read,
            "legs": [asdict(report) for report in found.legs],
        }
        return told | {"reranked": len(found.carried)} if "rerank" in found.seconds else told


def _checked_vector(given: requests.VectorInput, space: Space) -> Matrix:
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
