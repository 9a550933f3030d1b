"""Answering a search: what is asked for, what the caches hold, and the page of the answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from driftline.core import keys, metrics
from driftline.core.collections import Collection, CollectionIndex, check_tenant, named
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRequest, NotFound, Unavailable
from driftline.core.filters import Filter
from driftline.core.ports import Cache, Embedder, VectorStore
from driftline.core.receipts import ReceiptTail
from driftline.core.records import Position, Priority, document_key
from driftline.core.store import StoredDocument
from driftline.core.values import check_id, shown
from driftline.query import request as requests
from driftline.query.answer import Answer, AnswerHit, Page
from driftline.query.explain import explained, standing
from driftline.query.fills import Fills
from driftline.query.log import QueryLog
from driftline.query.plans import Chosen, Plans
from driftline.query.request import QueryTerm, SearchBody
from driftline.query.settings import QuerySection
from driftline.query.write_through import WriteThrough
from driftline.retrieval import filters
from driftline.retrieval.carry_over import CarryOver
from driftline.retrieval.embeddings import CachedEncoder, directly
from driftline.retrieval.engine import Engine
from driftline.retrieval.index_search import IndexSearcher
from driftline.retrieval.inputs import Composed, Input, StoredInput, Term, Text, Vector
from driftline.retrieval.plan import run as plans

# Searches of one index each that run at once, for all plans that ask several.
_PLAN_THREADS = 32


@dataclass(frozen=True, slots=True)
class Checked:
    """A search that was checked against its collection. `window` is what each index ranks at least before fusion."""

    body: SearchBody
    collection: Collection
    chosen: Chosen
    tenant: str
    filter: Filter | None
    offset: int
    window: int


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What the cache holds for a search. An empty key: not to be cached. Queries are by space."""

    result_key: str
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
        self._plans = Plans(settings)
        ask = directly(embedder, Priority.SEARCH)
        keep = partial(self._fills.put, ttl_seconds=settings.embedding_ttl_seconds)
        engine = Engine(view, store, CachedEncoder(ask, cache, "query", keys.query_embedding, keep))
        carry_over = CarryOver(store, CachedEncoder(ask, cache, "rerank", keys.document_embedding, keep))
        if through is None:
            self._indexes = IndexSearcher(view, store, engine)
        else:
            self._indexes = IndexSearcher(view, store, engine, carry_over, through.offer)
        self._planner = plans.Planner(self._indexes, ThreadPoolExecutor(_PLAN_THREADS, thread_name_prefix="plan"))

    def search(self, collection: str, body: SearchBody) -> Answer:
        """Raises InvalidRequest, NotFound and Unavailable."""
        begun = time.perf_counter()
        deadline = None if body.budget_ms is None else time.monotonic() + body.budget_ms / 1000
        checked = self._check(collection, body)
        self._wait(body)
        remembered = self._look_up(checked)
        page, found = self._kept(remembered), None
        if page is None:
            found = self._find(checked, remembered, deadline)
            page = self._page(checked, found)
            if remembered.result_key and not found.left_out:
                kept = page.to_bytes(remembered.epoch)
                self._fills.put({remembered.result_key: kept}, self._settings.result_ttl_seconds)
        if self._query_log is not None and body.text is not None and body.offset == 0 and body.cursor is None:
            self._query_log.offer(checked.collection, checked.tenant, body.text, [hit.id for hit in page.hits])
        kind = next(name for name in ("text", "vector", "document", "query") if getattr(body, name) is not None)
        metrics.SEARCHES.labels(collection, kind).inc()
        took = time.perf_counter() - begun
        metrics.SEARCH_SECONDS.labels("total").observe(took)
        explain = None
        if body.explain and found is not None:
            explain = explained(checked.collection, found)
            if (one := body.explain_document) is not None:
                explain["document"] = standing(one, checked.tenant, checked.filter, found, self._indexes)
        return Answer(page, found is None, round(took * 1000, 3), explain)

    def close(self) -> None:
        self._fills.close()

    def document(self, collection: str, document_id: str, tenant: str | None) -> StoredDocument:
        """Raises NotFound."""
        known = self._view.collection(collection)
        key = document_key(check_tenant(known.definition, tenant), check_id(document_id))
        found = [stored for index in known.finished for stored in self._held(index, key)]
        if not found:
            raise NotFound("unknown_document", f"collection {known.name!r} has no document {document_id!r}", "document")
        # An update reaches the stores of the indexes one after the other.
        return max(found, key=lambda stored: stored.version)

    def _held(self, index: CollectionIndex, key: str) -> list[StoredDocument]:
        target = index.collection.target(index.complete, self._view.space(index.complete.space))
        return self._store.fetch(target, [key], False)

    def _check(self, name: str, body: SearchBody) -> Checked:
        collection = self._view.collection(name)
        definition = collection.definition
        if body.limit > self._settings.max_limit:
            raise InvalidRequest("invalid_search", f"expected at most {self._settings.max_limit}", "limit")
        if body.rerank > self._settings.max_rerank:
            raise InvalidRequest("invalid_search", f"expected at most {self._settings.max_rerank}", "rerank")
        # The filter first: a cursor's digest is made of a filter that is known to be one.
        filter_ = filters.parse(definition, body.filter)
        chosen = self._plans.of(collection, body)
        offset, window = requests.place_of(body)
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
        window = min(window or max(self._settings.fusion_window, offset + body.limit + 1), self._settings.max_window)
        return Checked(body, collection, chosen, check_tenant(definition, body.tenant), filter_, offset, window)

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
        return _Remembered(
            result_key, f"{(shared or b'').decode()};{local};{self._route(checked)}", found.get(result_key),
            {space: found.get(key) for space, key in query_keys.items()},
        )  # fmt: skip

    def _route(self, checked: Checked) -> str:
        """All that an answer depends on beside the documents: what each index reads, and the plan."""
        legs = (
            f"{leg.generation}.{leg.carry}.{leg.compensation}"
            for index in checked.collection.indexes
            for leg in index.routes
        )
        return ";".join([*legs, checked.chosen.digest, str(checked.window)])

    def _query_keys(self, checked: Checked) -> dict[str, str]:
        """Where the embeddings of a query text are cached, by space: of every live generation of the plan's indexes."""
        text = checked.body.text
        if text is None:
            return {}
        generations = (g for g in checked.collection.generations if g.vector_name in checked.chosen.indexes)
        spaces = [self._view.space(generation.space) for generation in generations]
        return {
            s.fingerprint: keys.query_embedding(s.fingerprint, s.query_prefix + text) for s in spaces if not s.analyzer
        }

    @staticmethod
    def _kept(remembered: _Remembered) -> Page | None:
        if not remembered.result_key:
            return None
        page = Page.from_bytes(remembered.result, remembered.epoch)
        metrics.CACHE_REQUESTS.labels("result", "miss" if page is None else "hit").inc()
        return page

    # The search itself

    def _page(self, checked: Checked, found: plans.Answer) -> Page:
        body, offset, hits = checked.body, checked.offset, found.hits
        if body.min_score is not None:
            hits = [hit for hit in hits if hit.score >= body.min_score]
        end, several = offset + body.limit, len(found.found) + len(found.left_out) > 1
        more = len(hits) > end and end + body.limit <= self._settings.max_window
        return Page(
            [AnswerHit.of(hit, body, several=several) for hit in hits[offset:end]],
            found.score_kind,
            dict(found.left_out),
            requests.make_cursor(body, end, checked.window) if more else "",
        )

    def _find(self, checked: Checked, remembered: _Remembered, deadline: float | None) -> plans.Answer:
        body, collection = checked.body, checked.collection
        asked = plans.Ask(
            collection=collection,
            input=self._input(checked, remembered),
            needed=checked.offset + body.limit + 1,
            window=checked.window,
            tenant=checked.tenant if collection.definition.tenancy else None,
            filter=checked.filter,
            with_fields=body.output_fields != [],
            rerank=body.rerank,
            passages=body.passages,
            explain=body.explain,
            deadline=deadline,
        )
        answer = self._planner.run(checked.chosen.plan, asked)
        for found in answer.found.values():
            for part, seconds in found.found.seconds.items():
                if part != "encode" or body.text is not None:
                    metrics.SEARCH_SECONDS.labels(part).observe(seconds)
        return answer

    @staticmethod
    def _input(checked: Checked, remembered: _Remembered) -> Input:
        body = checked.body
        if body.query is not None:
            return Composed(tuple(Term(_one_input(checked, term, {}), float(term.weight)) for term in body.query))
        return _one_input(checked, body, remembered.queries)


def _one_input(
    checked: Checked, given: SearchBody | QueryTerm, held: Mapping[str, bytes | None]
) -> Text | Vector | StoredInput:
    if given.text is not None:
        return Text(given.text, held)
    if given.vector is not None:
        return Vector(np.array([given.vector.values], dtype=np.float32), given.vector.space)
    assert given.document is not None
    return StoredInput(document_key(checked.tenant, check_id(given.document)), given.document)
