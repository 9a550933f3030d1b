"""The query of each leg: what is searched for, as a vector of the space of that leg's generation."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from driftline.core.collections import CollectionIndex
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, InvalidRequest, Unavailable
from driftline.core.records import Carry, Leg, Space
from driftline.core.store import StoreTarget
from driftline.core.vectors import Sparse, Vectors, as_dense
from driftline.drift.selection import mixed
from driftline.drift.stored import Compensation, CompensationError, read
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.inputs import Text, Vector
from driftline.retrieval.lexical import query_weights

_KEPT_COMPENSATIONS = 32


Query = Text | Vector


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
        if isinstance(query, Vector):
            vectors: Mapping[str, Vectors] = {query.space: query.values}
        elif (lexical := ready[0][2]).analyzer:
            statistics = self._view.statistics(index.collection.uid, ready[0][0].generation)
            vectors = {lexical.fingerprint: query_weights(lexical, query.text, statistics)}
        else:
            vectors = self._encoded(self._spaces_of(ready), query)
        return [
            AskedLeg(leg, target, space, _carried(leg, space, compensation, vectors, to_rerank), compensation)
            for leg, target, space, compensation in ready
        ]

    def _with_spaces(
        self, index: CollectionIndex, legs: Sequence[Leg]
    ) -> list[tuple[Leg, StoreTarget, Space, Compensation | None]]:
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

    def _spaces_of(self, ready: Sequence[tuple[Leg, StoreTarget, Space, Compensation | None]]) -> list[Space]:
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
