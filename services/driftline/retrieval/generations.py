"""Searching the generations of a collection as one.

Every leg of the collection's route is searched with a query vector of its own space: encoded by its own encoder, or
carried over from the newest one. Scores of older legs are calibrated onto the newest leg's scale; a document counts
once, with its newest version, from the newest generation that holds it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from driftline.core.collections import Collection
from driftline.core.control import ControlView
from driftline.core.errors import Unavailable
from driftline.core.filters import Filter
from driftline.core.ports import VectorStore
from driftline.core.records import Carry, ChunkHit, Leg, Matrix, Space, StoreTarget, VectorQuery
from driftline.drift.base import unit
from driftline.drift.merge import Ranked, merge
from driftline.drift.selection import mixed
from driftline.drift.stored import Compensation, CompensationError, read

Encode = Callable[[Space], Matrix]
# Milvus answers at most 16,384 rows a search.
_DEEPEST = 16_000
_KEPT_COMPENSATIONS = 32


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for beside the query: the best `needed` documents of a tenant that pass a filter."""

    needed: int
    tenant: str | None = None
    filter: Filter | None = None
    with_fields: bool = True
    exclude_key: str = ""
    to_rerank: bool = False  # the newest model ranks them afterwards: what counts is that the good ones are there


@dataclass(slots=True)
class Found:
    """The best chunk of each document, best first, with the place of the leg it is of; `legs` tells how each generation
    took part."""

    hits: list[ChunkHit]
    origins: list[int]
    legs: list[dict[str, Any]] = field(default_factory=list)
    chunks_read: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    asked: Sequence[AskedLeg] = ()


@dataclass(frozen=True, slots=True)
class AskedLeg:
    """A leg with the vector that it was searched with, float32 (1, dimension) of its space."""

    leg: Leg
    target: StoreTarget
    vector: Matrix
    compensation: Compensation | None


class GenerationSearch:
    """Thread-safe."""

    def __init__(self, view: ControlView, store: VectorStore, workers: int = 16) -> None:
        self._view = view
        self._store = store
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="legs")
        self._lock = threading.Lock()
        self._read: OrderedDict[str, Compensation] = OrderedDict()

    def compensation(self, identity: str, old_space: str, new_space: str | None) -> Compensation:
        """A compensation, checked against the spaces it is used between (None: any). Raises Unavailable."""
        with self._lock:
            known = self._read.get(identity)
        if known is None:
            try:
                known = read(self._view.compensation(identity))
            except CompensationError as error:
                raise Unavailable("control", f"compensation {identity}: {error}") from error
            with self._lock:
                self._read[identity] = known
                while len(self._read) > _KEPT_COMPENSATIONS:
                    self._read.popitem(last=False)
        if known.old_space != old_space or new_space not in (None, known.new_space):
            raise Unavailable(
                "control",
                f"compensation {identity} maps space {known.new_space} to {known.old_space}; the route needs "
                f"{new_space or 'any'} to {old_space}",
            )
        return known

    def search(self, collection: Collection, legs: Sequence[Leg], encode: Encode, wanted: Wanted) -> Found:
        """Search the legs for a query that `encode` gives in any space, float32 (1, dimension)."""
        begun = time.perf_counter()
        ready = self._with_vectors(collection, legs, encode, wanted.to_rerank)
        encoded = time.perf_counter()
        found = self._one(collection, ready[0], wanted) if len(ready) == 1 else self._merged(collection, ready, wanted)
        found.seconds = {"encode": encoded - begun, "store": time.perf_counter() - encoded}
        found.asked = ready
        return found

    def again(self, found: Found, place: int, liked: Sequence[tuple[ChunkHit, int]], wanted: Wanted) -> list[ChunkHit]:
        """Search an older leg once more, its query moved half of the way to hits that turned out to be good.

        `liked` are hits with the place of their leg; the leg must hold what newer legs do, as the one of a complete
        generation does. Scores are those of the moved query. What newer generations hold is left out. Relevance
        feedback after Rocchio (1971) with equal weights; its use for finding what to re-rank next is that of adaptive
        re-ranking (MacAvaney et al., CIKM 2022).
        """
        leg = found.asked[place]
        stored = {d.key: d for d in self._store.fetch(leg.target, [hit.key for hit, _ in liked], with_vectors=True)}
        rows = [
            # Another generation may have cut the document into other chunks.
            vectors[hit.chunk] if origin == place and hit.chunk < len(vectors) else vectors.mean(axis=0)
            for hit, origin in liked
            if hit.key in stored and len(vectors := stored[hit.key].vectors)
        ]
        if not rows:
            return []
        moved = mixed(leg.vector, unit(np.mean(rows, axis=0, keepdims=True).astype(np.float32)), 0.5)
        hits, _, _ = self._best(replace(leg, vector=moved), wanted, wanted.needed)
        newer: dict[str, int] = {}
        self._look_up(found.asked[:place], hits, newer)
        return [hit for hit in hits if newer[hit.key] < hit.version]

    def _with_vectors(
        self, collection: Collection, legs: Sequence[Leg], encode: Encode, to_rerank: bool
    ) -> list[AskedLeg]:  # fmt: skip
        newest = collection.generation(legs[0].generation).space if len(legs) > 1 else None
        ready: list[tuple[Leg, StoreTarget, Space, Compensation | None]] = []
        for number, leg in enumerate(legs):
            generation = collection.generation(leg.generation)
            space = self._view.space(generation.space)
            compensation = None
            if leg.compensation:
                compensation = self.compensation(leg.compensation, generation.space, newest)
            if compensation is None and (leg.carry is not Carry.OWN or number > 0):
                raise Unavailable("control", f"generation {leg.generation} of {collection.name!r} has no compensation")
            ready.append((leg, collection.target(generation, space.dimension), space, compensation))
        spaces: dict[str, Space] = {}
        for leg, _, space, compensation in ready:
            if leg.carry is not Carry.MAPPED:
                spaces[space.fingerprint] = space
            if leg.carry is not Carry.OWN and compensation is not None:
                spaces[compensation.new_space] = self._view.space(compensation.new_space)
        vectors = self._encode_all(spaces, encode)
        return [
            AskedLeg(leg, target, _carried(leg, space, compensation, vectors, to_rerank), compensation)
            for leg, target, space, compensation in ready
        ]

    def _encode_all(self, spaces: Mapping[str, Space], encode: Encode) -> dict[str, Matrix]:
        if len(spaces) == 1:
            return {fingerprint: encode(space) for fingerprint, space in spaces.items()}
        results = self._pool.map(encode, spaces.values())
        return dict(zip(spaces, results, strict=True))

    def _one(self, collection: Collection, leg: AskedLeg, wanted: Wanted) -> Found:
        hits, read_, _ = self._best(leg, wanted, _first_depth(collection, wanted.needed))
        return Found(hits, [0] * len(hits), [_note(leg, len(hits), len(hits))], read_)

    def _best(self, leg: AskedLeg, wanted: Wanted, depth: int) -> tuple[list[ChunkHit], int, int]:
        """The best documents of one leg; searches deeper while chunks of few documents crowd. Also how many chunks
        were read and how deep; fewer than that depth means: there are no more."""
        while True:
            query = VectorQuery(
                leg.vector, depth, wanted.tenant, wanted.filter, with_fields=wanted.with_fields,
                exclude_key=wanted.exclude_key,
            )  # fmt: skip
            (chunks,) = self._store.search(leg.target, query)
            best = group(chunks)
            if len(best) >= wanted.needed or len(chunks) < depth or depth >= _DEEPEST:
                return best, len(chunks), depth
            depth = min(_DEEPEST, depth * 4)

    def _merged(self, collection: Collection, legs: Sequence[AskedLeg], wanted: Wanted) -> Found:
        depth = _first_depth(collection, wanted.needed)
        searches = [self._pool.submit(self._best, leg, wanted, depth) for leg in legs]
        results = [search.result() for search in searches]
        found = [
            [replace(hit, score=_on_scale(leg, hit.score)) for hit in hits]
            for leg, (hits, _, _) in zip(legs, results, strict=True)
        ]
        chunks_read = sum(read_ for _, read_, _ in results)
        elsewhere: dict[str, int] = {}
        for number in range(1, len(legs)):
            hits, read_, reached = results[number]
            while True:
                self._look_up(legs[:number], found[number], elsewhere)
                top = _merge(found, elsewhere)[: wanted.needed]
                enough = len(top) >= wanted.needed and (
                    not found[number] or found[number][-1].score <= top[-1][0].score
                )
                if enough or read_ < reached or reached >= _DEEPEST:
                    break
                # What was found is mostly held by newer generations already: what is only here lies deeper.
                hits, read_, reached = self._best(
                    legs[number], replace(wanted, needed=len(hits) + 1), min(_DEEPEST, reached * 4)
                )
                chunks_read += read_
                found[number] = [replace(hit, score=_on_scale(legs[number], hit.score)) for hit in hits]
        merged = _merge(found, elsewhere)
        notes = [
            _note(leg, len(hits), sum(1 for _, generation in merged[: wanted.needed] if generation == i))
            for i, (leg, hits) in enumerate(zip(legs, found, strict=True))
        ]
        return Found([hit for hit, _ in merged], [place for _, place in merged], notes, chunks_read)

    def _look_up(self, newer: Sequence[AskedLeg], hits: Sequence[ChunkHit], elsewhere: dict[str, int]) -> None:
        """Note the versions in which newer generations hold these documents, found by the query or not."""
        keys = [hit.key for hit in hits if hit.key not in elsewhere]
        for key in keys:
            elsewhere[key] = 0
        for leg in newer:
            for key, stored in (self._store.versions(leg.target, keys, 0) if keys else {}).items():
                if not stored.deleted:
                    elsewhere[key] = max(elsewhere[key], stored.version)


def _carried(
    leg: Leg, space: Space, compensation: Compensation | None, vectors: Mapping[str, Matrix], to_rerank: bool
) -> Matrix:  # fmt: skip
    own, newest = vectors.get(space.fingerprint), vectors.get(compensation.new_space) if compensation else None
    if compensation is None or newest is None or (leg.carry is Carry.OWN and not to_rerank):
        return vectors[space.fingerprint]
    mapped = compensation.compensator.apply(newest)
    if own is None:  # the old encoder is not asked
        return mapped
    return mixed(own, mapped, compensation.finder_weight if to_rerank else compensation.old_weight)


def _on_scale(leg: AskedLeg, score: float) -> float:
    """A score of this leg on the scale of the newest one."""
    if leg.compensation is None:
        return score
    return float(leg.compensation.calibration.apply(score))


def _merge(found: Sequence[Sequence[ChunkHit]], elsewhere: Mapping[str, int]) -> list[tuple[ChunkHit, int]]:
    """The merged hits, each with the position of its leg. `elsewhere` are versions that newer generations hold."""
    by_place: dict[tuple[str, int], ChunkHit] = {}
    ranked: list[Ranked] = []
    newest: dict[str, int] = {}
    for i, hits in enumerate(found):
        for hit in hits:
            newest[hit.key] = max(newest.get(hit.key, 0), hit.version)
            # A newer generation holds it, and ranks it too low to be found there: that rank is the one that counts.
            if i > 0 and elsewhere.get(hit.key, 0) >= hit.version:
                continue
            by_place[(hit.key, i)] = hit
            ranked.append(Ranked(hit.key, hit.version, -i, hit.score))
    return [(by_place[(r.key, -r.generation)], -r.generation) for r in merge(ranked, newest)]


def _note(leg: AskedLeg, found: int, merged: int) -> dict[str, Any]:
    return {
        "generation": leg.leg.generation,
        "carry": leg.leg.carry.name.lower(),
        "compensation": leg.leg.compensation,
        "store": leg.target.store,
        "found": found,
        "merged": merged,
    }


def _first_depth(collection: Collection, needed: int) -> int:
    """How many chunks to ask for at first: a document has one, or some of its chunks may crowd the top."""
    return needed if collection.definition.embedding.chunking.mode == "whole" else min(_DEEPEST, needed * 3)


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
