"""What a running upgrade is worth, looked at beside the control loop: its quality, and the drift of what is written.

A look asks hundreds of searches of stores that are busy with the backfill and takes seconds; the loop that drives the
backfill must not wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from driftline.core.collections import CollectionIndex
from driftline.core.control import ControlView
from driftline.core.keys import query_embedding
from driftline.core.limits import MAX_INDEXES
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Carry, Clock, Leg, Priority, now_us
from driftline.core.store import StoreTarget
from driftline.core.worker import Worker
from driftline.drift.monitor import overlap
from driftline.retrieval.embeddings import CachedEncoder, Kept, directly
from driftline.retrieval.engine import Engine
from driftline.retrieval.index_search import IndexSearcher
from driftline.retrieval.plan import only
from driftline.retrieval.plan.run import Planner
from driftline.upgrade.monitor import look
from driftline.upgrade.quality import Judge
from driftline.upgrade.settings import UpgradeSection
from driftline.upgrade.state import Drift, Estimate, UpgradeState, new_generation

log = logging.getLogger(__name__)
# Embeddings of shadow queries, of all upgrades: each is searched for again with every look.
_KEPT_QUERIES = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """None where there is nothing to be told: too few queries for an estimate, or no map that could drift."""

    estimate: Estimate | None
    drift: Drift | None = None

    def applied(self, state: UpgradeState) -> UpgradeState:
        """The state that knows of it, with the fallback that it calls for."""
        if self.drift is not None:
            state = state.model_copy(update={"drift": self.drift})
        if self.estimate is None:
            return state
        judged = state.with_estimate(self.estimate)
        if judged.fallback and not state.fallback:
            why = {"collection": state.collection, "why": judged.fallback}
            log.warning("falling back to the status quo", extra=why)
        return judged


Beside = Callable[[Callable[[], Seen]], "Future[Seen]"]


class InBackground:
    """Does what it is called with, one after the other; a service that is told to stop does not wait for the end."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], Seen], Future[Seen]]] = deque()
        self._worker = Worker("look", self._do, every_seconds=None)

    def __call__(self, work: Callable[[], Seen]) -> Future[Seen]:
        future: Future[Seen] = Future()
        self._waiting.append((work, future))
        self._worker.start()
        self._worker.wake()
        return future

    def _do(self) -> None:
        while self._waiting:
            work, future = self._waiting.popleft()
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - raised where the answer is taken
                future.set_exception(error)


class Watcher:
    """`recent` gives the keys of the documents of a collection, by its uid, that were written last."""

    def __init__(
        self,
        view: ControlView,
        store: VectorStore,
        embedder: Embedder,
        settings: UpgradeSection,
        recent: Callable[[str], list[str]],
        beside: Beside | None = None,
        clock: Clock = now_us,
    ) -> None:
        self._view = view
        self._store = store
        self._settings = settings
        self._recent = recent
        self._clock = clock
        self._beside = beside or InBackground()
        kept = Kept(_KEPT_QUERIES)
        ask = directly(embedder, Priority.BACKGROUND)
        self._engine = Engine(view, store, CachedEncoder(ask, kept, "shadow", query_embedding, kept.put))
        threads = ThreadPoolExecutor(MAX_INDEXES, thread_name_prefix="plan")
        self._judge = Judge(Planner(IndexSearcher(view, store, self._engine), threads))
        # One look at a time: the reader behind `recent` is of one thread.
        self._one = threading.Lock()

    def estimate(self, state: UpgradeState) -> Seen:
        """The quality of what the state would serve. Raises Unavailable and NotFound."""
        with self._one:
            return Seen(self._estimate(state))

    def look(self, state: UpgradeState) -> Future[Seen]:
        """Begin to look at quality and drift; the answer raises Unavailable and NotFound."""

        def work() -> Seen:
            with self._one:
                return Seen(self._estimate(state), self._drift(state) if state.phase == "backfilling" else None)

        return self._beside(work)

    def targets(self, state: UpgradeState) -> tuple[StoreTarget, StoreTarget]:
        """The stores of the older and of the new generation."""
        collection, index = self._view.collection(state.collection), self._index(state)
        old, new = index.generation(state.old), index.generation(state.new)
        return (
            collection.target(old, self._view.space(old.space)),
            collection.target(new, self._view.space(new.space)),
        )

    def sources(self, state: UpgradeState) -> tuple[list[StoreTarget], StoreTarget]:
        """The stores that a backfill reads, and the one that it fills."""
        if state.added is None:
            old, new = self.targets(state)
            return [old], new
        collection = self._view.collection(state.collection)
        new = collection.target(new_generation(state), self._view.space(state.new_space))
        complete = [index.complete for index in collection.finished if index.name != state.index]
        return [collection.target(g, self._view.space(g.space)) for g in complete], new

    def _index(self, state: UpgradeState) -> CollectionIndex:
        return self._view.collection(state.collection).index(state.index)

    def _estimate(self, state: UpgradeState) -> Estimate | None:
        return self._judge.estimate(state, self._index(state), self._settings.shadow_queries, self._clock())

    def _drift(self, state: UpgradeState) -> Drift | None:
        """What was written lately against the fit sample; None without a map that is served."""
        carry = {"map": Carry.MAPPED, "ensemble": Carry.ENSEMBLE}.get(state.decision)
        if carry is None:
            return None
        old, new = self.targets(state)
        compensation = self._engine.compensation(state.compensation, old.space, new.space)
        found = look(self._store, old, new, compensation, self._recent(state.collection_uid))
        if found is None:
            return None
        index = self._index(state)
        queries = state.shadow[: self._settings.shadow_queries]
        plan = only(index.name)
        carried = self._judge.hits(plan, index, (Leg(state.old, carry, state.compensation),), queries)
        own = self._judge.hits(plan, index, (Leg(state.old),), queries)
        return found.model_copy(update={"overlap": round(overlap(carried, own), 4)})
