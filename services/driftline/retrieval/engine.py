"""Searching the generations of an index as one; query and upgrade share it.

Every leg of the index's route is searched with a query vector of its own space: encoded by its own encoder, or
carried over from the newest one. Scores of older legs are calibrated onto the newest leg's scale; a document counts
once, with its newest version, from the newest generation that holds it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from driftline.core.collections import CollectionIndex
from driftline.core.control import ControlView
from driftline.core.ports import VectorStore
from driftline.core.records import Leg
from driftline.core.store import Hit
from driftline.drift.merge import merge
from driftline.drift.stored import Compensation
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.leg_search import DEEPEST, LegHits, LegSearch, Wanted, first_depth
from driftline.retrieval.legs import AskedLeg, Legs, Query


@dataclass(frozen=True, slots=True)
class LegReport:
    """How a generation took part: what it found, and how much of that is among what was needed."""

    generation: int
    carry: str
    compensation: str
    store: str
    found: int
    merged: int


@dataclass(frozen=True, slots=True)
class Found:
    """The best chunk of each document, best first. `carried` are those of `hits` that were embedded by the newest model
    although an older generation holds them. `passages` are by document, best first, where more than one is wanted."""

    hits: list[Hit]
    asked: Sequence[AskedLeg]
    legs: Sequence[LegReport]
    chunks_read: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    carried: Sequence[Hit] = ()
    passages: Mapping[str, Sequence[Hit]] = field(default_factory=dict)


class Engine:
    """Thread-safe. `queries` encodes the texts of queries."""

    def __init__(self, view: ControlView, store: VectorStore, queries: CachedEncoder, workers: int = 16) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="legs")
        self._legs = Legs(view, queries, self._pool)
        self._search = LegSearch(store)

    def compensation(self, identity: str, old_space: str, new_space: str | None) -> Compensation:
        """A compensation, checked against the spaces it is used between (None: any). Raises Unavailable."""
        return self._legs.compensation(identity, old_space, new_space)

    def search(self, index: CollectionIndex, legs: Sequence[Leg], query: Query, wanted: Wanted) -> Found:
        """Raises Unavailable, and InvalidRequest for a text that an encoder refuses."""
        begun = time.perf_counter()
        asked = self._legs.ask(index, legs, query, wanted.to_rerank)
        encoded = time.perf_counter()
        depth = first_depth(index.definition.chunking, wanted.needed)
        found = self._one(asked, wanted, depth) if len(asked) == 1 else self._several(asked, wanted, depth)
        return replace(found, seconds={"encode": encoded - begun, "store": time.perf_counter() - encoded})

    def _one(self, asked: Sequence[AskedLeg], wanted: Wanted, depth: int) -> Found:
        found = self._search.best(asked[0], 0, wanted, depth)
        report = _report(asked[0], len(found.hits), len(found.hits))
        return Found(found.hits, asked, [report], found.chunks, passages=found.passages)

    def _several(self, asked: Sequence[AskedLeg], wanted: Wanted, depth: int) -> Found:
        searches = [self._pool.submit(self._search.best, leg, i, wanted, depth) for i, leg in enumerate(asked)]
        found = [_scaled(leg, search.result()) for leg, search in zip(asked, searches, strict=True)]
        chunks_read = sum(part.chunks for part in found)
        known: dict[str, int] = {}
        for place in range(1, len(asked)):
            self._search.newer_versions(asked[:place], found[place].hits, known)
            while not self._is_enough(found, place, known, wanted.needed):
                # What was found is mostly held by newer generations already: what is only here lies deeper.
                more = replace(wanted, needed=len(found[place].hits) + 1)
                deeper = self._search.best(asked[place], place, more, min(DEEPEST, found[place].depth * 4))
                chunks_read += deeper.chunks
                found[place] = _scaled(asked[place], deeper)
                self._search.newer_versions(asked[:place], found[place].hits, known)
        merged = _merged(found, known)
        reports = [
            _report(leg, len(part.hits), sum(hit.leg == place for hit in merged[: wanted.needed]))
            for place, (leg, part) in enumerate(zip(asked, found, strict=True))
        ]
        # Of the leg whose copy of the document counts.
        passages = {hit.key: found[hit.leg].passages.get(hit.key, ()) for hit in merged} if wanted.passages > 1 else {}
        return Found(merged, asked, reports, chunks_read, passages=passages)

    @staticmethod
    def _is_enough(found: Sequence[LegHits], place: int, known: Mapping[str, int], needed: int) -> bool:
        """Whether nothing that lies deeper in this leg can be among the best `needed`."""
        if found[place].is_all:
            return True
        top = _merged(found, known)[:needed]
        deepest = found[place].hits[-1:]
        return len(top) >= needed and (not deepest or deepest[0].score <= top[-1].score)


def _scaled(leg: AskedLeg, found: LegHits) -> LegHits:
    return replace(found, hits=[replace(hit, score=leg.on_scale(hit.score)) for hit in found.hits])


def _merged(found: Sequence[LegHits], known: Mapping[str, int]) -> list[Hit]:
    """One ranking of all legs. `known` are versions that newer generations hold, found by the query or not."""
    hits = [hit for part in found for hit in part.hits]
    newest: dict[str, int] = {}
    for hit in hits:
        newest[hit.key] = max(newest.get(hit.key, 0), hit.version)
    # What a newer generation holds, and ranks too low to be found there: that rank is the one that counts.
    return merge([hit for hit in hits if hit.leg == 0 or known.get(hit.key, 0) < hit.version], newest)


def _report(leg: AskedLeg, found: int, merged: int) -> LegReport:
    return LegReport(
        leg.leg.generation, leg.leg.carry.name.lower(), leg.leg.compensation, leg.target.store, found, merged
    )
