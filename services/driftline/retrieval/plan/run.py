"""Running a plan: what is asked for, what the steps hand on, and what they tell of themselves."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from driftline.core.collections import Collection, CollectionDefinition
from driftline.core.filters import Filter
from driftline.core.schema import DefinitionPart
from driftline.core.store import Hit
from driftline.retrieval.inputs import Input

if TYPE_CHECKING:  # who checks a plan, as ingest does, needs nothing of what runs it
    from driftline.retrieval.index_search import IndexFound, IndexSearcher


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for beside the plan: the best `needed` documents of a tenant that pass a filter.

    Of each index at least `window` documents are ranked before rankings are fused. `deadline` is a time of the
    monotonic clock: what has not answered by then is left out where something else has. `rerank` is how many of the
    best hits of an index are embedded anew while its model changes; `passages` how many chunks of a document are told.
    `explain`: steps report what they did.
    """

    collection: Collection
    input: Input
    needed: int
    window: int
    tenant: str | None = None
    filter: Filter | None = None
    with_fields: bool = True
    rerank: int = 0
    passages: int = 1
    explain: bool = False
    deadline: float | None = None

    def seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document stands in the ranking of one index: its score there, and its rank from 1."""

    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document that an index found."""

    index: str
    hit: Hit


@dataclass(frozen=True, slots=True)
class PlanHit:
    """A document that was found: `hit` is its best chunk, `score` what it is ranked by, `places` are by index."""

    hit: Hit
    score: float
    places: Mapping[str, Place]
    passages: Sequence[Passage] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Best first. `score_kind` says what the scores are. `found` is by index, and `left_out` why an index has none."""

    hits: Sequence[PlanHit] = ()
    score_kind: str = ""
    found: Mapping[str, IndexFound] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What a step works with. `pool` is for the searches of one step; they wait for nothing else in it."""

    ask: Ask
    indexes: IndexSearcher
    pool: Executor


class Step(DefinitionPart, ABC):
    """A step of a plan; its fields are its settings."""

    def check(self, definition: CollectionDefinition, where: str) -> None:
        """Raises InvalidRequest where the step does not fit the collection."""

    @abstractmethod
    def run(self, run: Run, answer: Answer) -> Answer:
        """What the step makes of what was found before it. Raises Unavailable, InvalidRequest and NotFound."""


class Planner:
    """Thread-safe."""

    def __init__(self, indexes: IndexSearcher, pool: Executor) -> None:
        self._indexes = indexes
        self._pool = pool

    def run(self, plan: Sequence[Step], ask: Ask) -> Answer:
        """Raises Unavailable, InvalidRequest and NotFound."""
        run, answer = Run(ask, self._indexes, self._pool), Answer()
        for step in plan:
            answer = step.run(run, answer)
        return answer
