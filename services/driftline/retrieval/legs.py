"""The query of each leg: what is searched for, as a vector of the space of that leg's generation."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from driftline.core.collections import CollectionIndex
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, InvalidRequest, Unavailable
from driftline.core.records import Carry, Leg, Space
from driftline.core.store import StoreTarget
from driftline.core.vectors import Matrix, Sparse, Vectors, as_dense
from driftline.drift.selection import mixed
from driftline.drift.stored import Compensation, CompensationError, read
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.inputs import Text, Vector
from driftline.retrieval.lexical import query_weights

_KEPT_COMPENSATIONS = 32
_SHORTEST = 1e-12
# Of the weights' sum: a shorter vector is rounding, and has no direction.
_CANCELLED = 1e-5


@dataclass(frozen=True, slots=True)
class Sum:
    """A weighted sum of queries."""

    terms: tuple[tuple[Text | Vector, float], ...]


Query = Text | Vector | Sum


@dataclass(frozen=True, slots=True)
class AskedLeg:
    """A leg with the vector that it is searched with, float32 (1, dimension) of its space."""

    leg: Leg
    target: StoreTarget
    space: Space
    vector: Vectors
    compensation: Compensation | None

    def on_scale(self, score: float) -> float:
        """A score of this leg on the scale of the newest one."""
        return score if self.compensation is None else float(self.compensation.calibration.apply(score))


_Ready = tuple[Leg, StoreTarget, Space, Compensation | None]


class Legs:
    """Thread-safe. `queries` encodes the texts of queries, `pool` lets it do so in several spaces at once."""

    def __init__(self, view: ControlView, queries: CachedEncoder, pool: Executor) -> None:
        self._view = view
        self._queries = queries
        self._pool = pool
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

    def ask(self, index: CollectionIndex, legs: Sequence[Leg], query: Query, to_rerank: bool) -> list[AskedLeg]:
        """The legs, each with its own vector of the query; with `to_rerank`, one that finds what the newest model will
        rank. Raises Unavailable, and InvalidRequest for a text that an encoder refuses."""
        ready = self._with_spaces(index, legs)
        parts = [part for part, _ in query.terms] if isinstance(query, Sum) else [query]
        known = [self._vectors(index, ready, part) for part in parts]
        asked = []
        for leg, target, space, compensation in ready:
            # Each is carried by itself: a mixture of the old model's vector and a mapped one is not linear.
            carried = [_carried(leg, space, compensation, vectors, to_rerank) for vectors in known]
            vector = carried[0]
            if isinstance(query, Sum):
                of_unit_length = space.normalized or target.metric == "cosine"
                vector = weighted_sum(carried, [weight for _, weight in query.terms], of_unit_length)
            asked.append(AskedLeg(leg, target, space, vector, compensation))
        return asked

    def _vectors(self, index: CollectionIndex, ready: Sequence[_Ready], query: Text | Vector) -> Mapping[str, Vectors]:
        """What is searched for, by space."""
        if isinstance(query, Vector):
            return {query.space: query.values}
        if (lexical := ready[0][2]).analyzer:
            statistics = self._view.statistics(index.collection.uid, ready[0][0].generation)
            return {lexical.fingerprint: query_weights(lexical, query.text, statistics)}
        return self._encoded(self._spaces_of(ready), query)

    def _with_spaces(self, index: CollectionIndex, legs: Sequence[Leg]) -> list[_Ready]:
        newest = index.generation(legs[0].generation).space if len(legs) > 1 else None
        ready, name = [], index.collection.name
        for place, leg in enumerate(legs):
            generation = index.generation(leg.generation)
            space = self._view.space(generation.space)
            compensation = None
            if leg.compensation:
                compensation = self.compensation(leg.compensation, generation.space, newest)
            if compensation is None and (leg.carry is not Carry.OWN or place > 0):
                raise Unavailable("control", f"generation {leg.generation} of {name!r} has no compensation")
            ready.append((leg, index.collection.target(generation, space), space, compensation))
        return ready

    def _spaces_of(self, ready: Sequence[_Ready]) -> list[Space]:
        """The spaces that a text must be encoded in."""
        needed: dict[str, Space] = {}
        for leg, _, space, compensation in ready:
            if leg.carry is not Carry.MAPPED:
                needed[space.fingerprint] = space
            if leg.carry is not Carry.OWN and compensation is not None:
                needed[compensation.new_space] = self._view.space(compensation.new_space)
        return list(needed.values())

    def _encoded(self, spaces: Sequence[Space], query: Text) -> dict[str, Vectors]:
        def encode(space: Space) -> Vectors:
            held = query.held.get(space.fingerprint)
            asked = None if space.fingerprint not in query.held else [held]
            (answer,) = self._queries.encode(space, [space.query_prefix + query.text], asked)
            if isinstance(answer, InvalidRecord):
                raise InvalidRequest(answer.reason, answer.detail, "text")
            return answer if isinstance(answer, Sparse) else answer[None]

        if len(spaces) == 1:
            return {spaces[0].fingerprint: encode(spaces[0])}
        return dict(zip((s.fingerprint for s in spaces), self._pool.map(encode, spaces), strict=True))


def _carried(
    leg: Leg, space: Space, compensation: Compensation | None, vectors: Mapping[str, Vectors], to_rerank: bool
) -> Vectors:
    """The vector of a leg, from those of the query in its own space and in the newest one."""
    own, newest = vectors.get(space.fingerprint), vectors.get(compensation.new_space) if compensation else None
    if compensation is None or newest is None or (own is not None and leg.carry is Carry.OWN and not to_rerank):
        return vectors[space.fingerprint]
    mapped = compensation.compensator.apply(as_dense(newest))
    if own is None:  # the old encoder is not asked
        return mapped
    return mixed(as_dense(own), mapped, compensation.finder_weight if to_rerank else compensation.old_weight)


def weighted_sum(parts: Sequence[Vectors], weights: Sequence[float], of_unit_length: bool) -> Vectors:
    """One vector, float32 (1, dimension), or one row of terms without those that would weigh less than 0.

    `of_unit_length`: the parts are made so before they are added, and their sum after. Raises InvalidRequest where
    nothing is left of them.
    """
    if isinstance(parts[0], Sparse):
        total: dict[int, float] = {}
        for part, weight in zip(parts, weights, strict=True):
            assert isinstance(part, Sparse)
            for term, value in zip(part.terms.tolist(), part.weights.tolist(), strict=True):
                total[term] = total.get(term, 0.0) + weight * value
        return Sparse.of([{term: value for term, value in total.items() if value > 0}])
    dense = [as_dense(part) for part in parts]
    if of_unit_length:
        dense = [part / max(float(np.linalg.norm(part)), _SHORTEST) for part in dense]
    summed = np.sum([weight * part for part, weight in zip(dense, weights, strict=True)], axis=0)
    length = float(np.linalg.norm(summed))
    if length < _CANCELLED * sum(map(abs, weights)):
        raise InvalidRequest("empty_query", "expected terms that do not cancel each other out", "query")
    found: Matrix = (summed / length if of_unit_length else summed).astype(np.float32)
    return found
