"""Searching one leg: the best chunk of each document, as deep as it takes to find enough of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from driftline.core.filters import Filter
from driftline.core.indexes import Chunking
from driftline.core.ports import VectorStore
from driftline.core.store import Hit, VectorQuery
from driftline.retrieval.legs import AskedLeg

# Milvus answers at most 16,384 rows a search.
DEEPEST = 16_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for beside the query: the best `needed` documents of a tenant that pass a filter."""

    needed: int
    tenant: str | None = None
    filter: Filter | None = None
    with_fields: bool = True
    exclude_keys: tuple[str, ...] = ()
    passages: int = 1  # chunks of a document that are told
    to_rerank: bool = False  # the newest model ranks them afterwards: what counts is that the good ones are there


@dataclass(frozen=True, slots=True)
class LegHits:
    """`hits` are the best chunk of each document, best first. `chunks` were read, `depth` had been asked for.

    `passages` are by document, best first, where more than one is wanted.
    """

    hits: list[Hit]
    chunks: int
    depth: int
    passages: Mapping[str, list[Hit]] = field(default_factory=dict)

    @property
    def is_all(self) -> bool:
        """Whether there are no more, or none that can be read."""
        return self.chunks < self.depth or self.depth >= DEEPEST


class LegSearch:
    """Thread-safe."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def best(self, leg: AskedLeg, place: int, wanted: Wanted, depth: int) -> LegHits:
        """The best documents of the leg at this place of the route; searches deeper while chunks of few documents
        crowd. Raises Unavailable."""
        while True:
            query = VectorQuery(
                leg.vector,
                depth,
                wanted.tenant,
                wanted.filter,
                with_fields=wanted.with_fields,
                exclude_keys=wanted.exclude_keys,
            )
            (chunks,) = self._store.search(leg.target, query)
            found = LegHits([replace(hit, leg=place) if place else hit for hit in group(chunks)], len(chunks), depth)
            if len(found.hits) >= wanted.needed or found.is_all:
                return replace(found, passages=passages(chunks, wanted.passages)) if wanted.passages > 1 else found
            depth = min(DEEPEST, depth * 4)

    def newer_versions(self, newer: Sequence[AskedLeg], hits: Sequence[Hit], known: dict[str, int]) -> None:
        """Note in `known` the versions in which newer generations hold these documents, found by the query or not."""
        keys = [hit.key for hit in hits if hit.key not in known]
        known |= dict.fromkeys(keys, 0)
        for leg in newer:
            for key, stored in (self._store.versions(leg.target, keys, 0) if keys else {}).items():
                if not stored.deleted:
                    known[key] = max(known[key], stored.version)


def first_depth(chunking: Chunking, needed: int) -> int:
    """How many chunks to ask for at first: a document has one, or some of its chunks may crowd the top."""
    return needed if chunking.mode == "whole" else min(DEEPEST, needed * 3)


def passages(chunks: Sequence[Hit], most: int) -> dict[str, list[Hit]]:
    """The best chunks of each document, at most so many."""
    by_document: dict[str, list[Hit]] = {}
    for hit in chunks:
        found = by_document.setdefault(hit.key, [])
        if len(found) < most:
            found.append(hit)
    return by_document


def group(chunks: Sequence[Hit]) -> list[Hit]:
    """The best chunk of each document, in order. Of two versions of a document only the newer one counts."""
    newest: dict[str, int] = {}
    for hit in chunks:
        newest[hit.key] = max(hit.version, newest.get(hit.key, hit.version))
    best: dict[str, Hit] = {}
    for hit in chunks:
        if hit.version == newest[hit.key]:
            best.setdefault(hit.key, hit)
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.key))
