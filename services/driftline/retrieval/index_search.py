"""Searching one index of a collection: by a text, a vector, a stored document, or a sum of these."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from driftline.core.collections import CollectionIndex
from driftline.core.control import ControlView
from driftline.core.errors import NotFound
from driftline.core.limits import MAX_QUERY_CHARACTERS
from driftline.core.ports import VectorStore
from driftline.core.records import Leg, Space
from driftline.core.store import Hit, StoredDocument
from driftline.core.vectors import Sparse, as_dense, score
from driftline.retrieval.carry_over import CarryOver
from driftline.retrieval.engine import Engine, Found
from driftline.retrieval.inputs import Composed, Input, InputMismatch, Part, StoredInput, Text, Vector
from driftline.retrieval.leg_search import Wanted
from driftline.retrieval.legs import Query, Sum
from driftline.retrieval.lexical import read_statistics


@dataclass(frozen=True, slots=True)
class IndexFound:
    """The best chunk of each document, best first, with scores of the newest model. `passages` are chunks by document,
    best first. `statistics` counts the documents that a lexical index's statistics are of."""

    index: CollectionIndex
    space: Space
    score_kind: str
    found: Found
    passages: Mapping[str, Sequence[Hit]] = field(default_factory=dict)
    statistics: int = 0

    @property
    def hits(self) -> Sequence[Hit]:
        return self.found.hits

    def report(self) -> dict[str, Any]:
        """For `explain`."""
        return {
            "generation": self.index.newest.number,
            "space": self.space.fingerprint,
            "encoder": f"{self.space.encoder}@{self.space.encoder_version}",
            "score_kind": self.score_kind,
            "found": len(self.found.hits),
            "chunks_read": self.found.chunks_read,
            "reranked": len(self.found.carried),
            **({"statistics": self.statistics} if self.space.analyzer else {}),
            "milliseconds": {part: round(s * 1000, 3) for part, s in self.found.seconds.items()},
            "legs": [asdict(report) for report in self.found.legs],
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """How near a document of an index is to what was asked, by its nearest chunk. `score` is exact, on the scale of the
    newest generation; `generation` is the newest that holds the document."""

    score: float
    chunk: int
    version: int
    generation: int
    attributes: Mapping[str, Any]


class IndexSearcher:
    """Thread-safe. `written_through` is told of hits that were embedded by the new model although an older generation
    holds them."""

    def __init__(
        self,
        view: ControlView,
        store: VectorStore,
        engine: Engine,
        carry_over: CarryOver | None = None,
        written_through: Callable[[CollectionIndex, Sequence[Hit]], None] | None = None,
    ) -> None:
        self._view = view
        self._store = store
        self._engine = engine
        self._carry_over = carry_over
        self._written_through = written_through

    def search(self, index: CollectionIndex, asked: Input, part: Part) -> IndexFound:
        """Raises Unavailable, InvalidRequest, NotFound, and InputMismatch where the input fits no space of it."""
        if not index.is_finished:
            detail = f"index {index.name!r} was added and does not hold every document yet"
            raise InputMismatch("index_unfinished", detail, "index", 409)
        query, legs, left_out = self._query(index, asked)
        wanted = Wanted(
            max(part.needed, part.rerank),
            part.tenant,
            part.filter,
            with_fields=part.with_fields,
            exclude_keys=left_out,
            to_rerank=part.rerank > 0,
            passages=part.passages,
        )
        found = self._engine.search(index, legs, query, wanted)
        if part.rerank and self._carry_over is not None:
            begun = time.perf_counter()
            found = self._carry_over.apply(found, wanted, part.rerank)
            if self._written_through is not None:
                self._written_through(index, found.carried)
            found = replace(found, seconds={**found.seconds, "rerank": time.perf_counter() - begun})
        space, statistics = self._view.space(index.newest.space), 0
        if space.analyzer:
            statistics = read_statistics(self._view.statistics(index.collection.uid, index.newest.number)).documents
        return IndexFound(index, space, _score_kind(index, space), found, found.passages, statistics)

    def standing(self, found: IndexFound, key: str) -> Standing | None:
        """Of any document, found or not; None where the index does not hold it. Raises Unavailable."""
        for leg in found.found.asked:
            for stored in self._store.fetch(leg.target, [key], True):
                asked = leg.vector if isinstance(leg.vector, Sparse) else as_dense(leg.vector)[0]
                scores = [score(leg.target.metric, asked, vector) for vector in stored.vectors]
                chunk = max(range(len(scores)), key=scores.__getitem__)
                return Standing(
                    leg.on_scale(scores[chunk]), chunk, stored.version, leg.leg.generation, stored.attributes
                )
        return None

    def _query(self, index: CollectionIndex, asked: Input) -> tuple[Query, Sequence[Leg], tuple[str, ...]]:
        """What is searched for, in which legs of the index, and the keys of the documents that are left out."""
        if not isinstance(asked, Composed):
            return self._one_query(index, asked)
        found = [self._one_query(index, term.input) for term in asked.terms]
        terms = tuple((query, term.weight) for (query, _, _), term in zip(found, asked.terms, strict=True))
        # A stored document has a vector in the generation that holds everything, and in no other for sure.
        legs = next((legs for _, legs, _ in found if legs != index.routes), index.routes)
        carried = self._view.space(index.newest.space).fingerprint
        if legs != index.routes and any(isinstance(q, Vector) and q.space == carried for q, _ in terms):
            detail = "while the model is being changed, a vector of the new one is not added to stored documents"
            raise InputMismatch("space_mismatch", detail, "query")
        return Sum(terms), legs, tuple(key for _, _, keys in found for key in keys)

    def _one_query(
        self, index: CollectionIndex, asked: Text | Vector | StoredInput
    ) -> tuple[Text | Vector, Sequence[Leg], tuple[str, ...]]:
        complete = (Leg(index.complete.number),)
        match asked:
            case Text():
                return asked, index.routes, ()
            case Vector():
                newest, oldest = (self._view.space(g.space) for g in (index.newest, index.complete))
                # A vector of the newest space is carried to the older generations; one of an older live space, or of
                # none that is named, searches the generation that holds everything.
                carried = asked.space == newest.fingerprint != oldest.fingerprint
                vector = _checked(asked, newest if carried else oldest)
                return vector, index.routes if carried else complete, ()
            case StoredInput():
                stored = self._stored(index, asked)
                return self._like(index, stored), complete, (stored.key,)

    def _stored(self, index: CollectionIndex, given: StoredInput) -> StoredDocument:
        target = index.collection.target(index.complete, self._view.space(index.complete.space))
        found = self._store.fetch(target, [given.key], True)
        if not found:
            raise NotFound(
                "unknown_document", f"collection {index.collection.name!r} has no document {given.id!r}", "document"
            )
        return found[0]

    def _like(self, index: CollectionIndex, stored: StoredDocument) -> Text | Vector:
        """Near the mean of a document's chunks; by its words, where these are what the index finds by."""
        space = self._view.space(index.complete.space)
        if isinstance(stored.vectors, Sparse):
            return Text(" ".join(stored.chunks)[:MAX_QUERY_CHARACTERS])
        mean = as_dense(stored.vectors).mean(axis=0, keepdims=True)
        if space.normalized:
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return Vector(mean.astype(np.float32), space.fingerprint)


def _score_kind(index: CollectionIndex, space: Space) -> str:
    if space.analyzer:
        return "bm25"
    return "ip" if space.kind == "sparse" else index.collection.definition.metric


def _checked(given: Vector, space: Space) -> Vector:
    if space.kind == "sparse":
        raise InputMismatch("space_mismatch", "the index holds sparse vectors; search it by a text", "vector")
    if given.space and given.space != space.fingerprint:
        raise InputMismatch(
            "space_mismatch",
            f"the index's space is {space.fingerprint}; vectors of two spaces are never compared",
            "vector.space",
        )
    if given.values.shape[1] != space.dimension:
        raise InputMismatch(
            "wrong_dimension", f"expected {space.dimension} numbers, found {given.values.shape[1]}", "vector.values"
        )
    return Vector(given.values, space.fingerprint)
