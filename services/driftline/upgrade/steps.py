"""The steps of an upgrade. Each takes the state as it is and returns what it becomes, or the same where nothing is to
be done yet. Each can be done twice; `controller` runs them and saves what they return.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from driftline.core.control import ControlView, ControlWriter, compensation_records
from driftline.core.ports import Embedder, Publisher, VectorStore
from driftline.core.records import Clock, Space
from driftline.drift.stored import identity_of
from driftline.upgrade.backfill import Backfill
from driftline.upgrade.sample import TooFew, build, draw, fit_compensation
from driftline.upgrade.settings import UpgradeSection
from driftline.upgrade.state import Phase, UpgradeState, new_generation
from driftline.upgrade.watcher import Seen, Watcher

log = logging.getLogger(__name__)
# Of one upgrade: a stream that drifts faster than this is served better by the backfill alone.
_REFITS = 5
_PROGRESS_US = 2_000_000
# Also while paused: searches go on, and whether they must fall back with them.
WATCHED: tuple[Phase, ...] = ("backfilling", "complete")


@dataclass(slots=True)
class _Live:
    """What is kept in memory of a running upgrade; all of it can be lost."""

    looked_us: int
    backfill: Backfill | None = None
    look: Future[Seen] | None = None
    checked_us: int = 0


class Steps:
    """Used by one thread. `demand` gives the keys of the most wanted documents of a collection, by its uid."""

    def __init__(
        self,
        view: ControlView,
        writer: ControlWriter,
        embedder: Embedder,
        store: VectorStore,
        publisher: Publisher,
        settings: UpgradeSection,
        watcher: Watcher,
        demand: Callable[[str], list[str]],
        clock: Clock,
    ) -> None:
        self._view = view
        self._writer = writer
        self._embedder = embedder
        self._store = store
        self._publisher = publisher
        self._settings = settings
        self._watcher = watcher
        self._demand = demand
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._steps: dict[Phase, Callable[[UpgradeState], UpgradeState]] = {
            "registered": self._register,
            "sampling": self._sample,
            "fitted": self._serve,
            "serving": self._open,
            "backfilling": self._backfill,
            "complete": self.watch,
        }

    def step(self, state: UpgradeState) -> UpgradeState:
        """The next step of a running upgrade. Raises Unavailable and NotFound."""
        return self._steps[state.phase](state)

    def forget(self, upgrade: str | None = None) -> None:
        """What is in memory of an upgrade that has ended; None: of all, since this replica leads no more."""
        if upgrade is None:
            self._live.clear()
        else:
            self._live.pop(upgrade, None)

    def _register(self, state: UpgradeState) -> UpgradeState:
        """Make the new generation's store; then it is live: from now on every change is written to both."""
        collection = self._view.collection(state.collection)
        self._store.ensure(collection.target(new_generation(state), self._view.space(state.new_space)))
        return state.into("backfilling" if state.added else "sampling", self._clock())

    def _sample(self, state: UpgradeState) -> UpgradeState:
        """Embed a sample by both models, fit, and choose by held-out retrieval."""
        rng = random.Random(state.id)  # noqa: S311 - the same sample again after a crash
        target, _ = self._watcher.targets(state)
        old, new = self._spaces(state)
        if "sparse" in (old.kind, new.kind):
            reason = (
                "terms of two sparse models are not mapped: the older generation answers until the new one can alone"
            )
            return state.into("fitted", self._clock(), decision="wait", reason=reason)
        given = state.shadow if state.judged else ()
        try:
            texts = draw(self._store, target, given, state.pairs, self._settings.held_out, rng)
            sample = build(texts, self._embedder, old, new)
            compensation, selection = fit_compensation(sample, old, new, state.margin)
        except (TooFew, ValueError) as error:
            reason = f"nothing was fitted ({error}): the older generation answers until the new one can alone"
            return state.into("fitted", self._clock(), decision="wait", reason=reason)
        content = compensation.to_bytes()
        identity = identity_of(content)
        self._writer.write(compensation_records(identity, content))
        return state.into(
            "fitted",
            self._clock(),
            compensation=identity,
            decision=selection.decision,
            reason=selection.reason,
            fit=selection.summary(),
            shadow=state.shadow if state.judged else sample.shadow,
            encoded=state.encoded + sample.encoded,
        )

    def _spaces(self, state: UpgradeState) -> tuple[Space, Space]:
        index = self._view.collection(state.collection).index(state.index)
        return self._view.space(index.generation(state.old).space), self._view.space(state.new_space)

    def _serve(self, state: UpgradeState) -> UpgradeState:
        return state.into("serving", self._clock())

    def _open(self, state: UpgradeState) -> UpgradeState:
        return self._watcher.estimate(state).applied(state).into("backfilling", self._clock())

    def _backfill(self, state: UpgradeState) -> UpgradeState:
        live = self._live_of(state)
        if live.backfill is None:
            olds, new = self._watcher.sources(state)
            live.backfill = Backfill(
                self._store, self._publisher, self._view.collection(state.collection), olds, new, state.new,
                self._settings.window, state.per_second, self._settings.retry_seconds,
                self._demand(state.collection_uid), state.added,
            )  # fmt: skip
        through = live.backfill.tick()
        now = self._clock()
        if not through:
            if now - live.checked_us > _PROGRESS_US:
                live.checked_us = now
                state = state.model_copy(update={"progress": live.backfill.progress()})
            return self.watch(state)
        self.forget(state.id)
        # Everything is there: what else was counted are changes between their writes to the two generations.
        progress = live.backfill.progress()
        everything = progress.model_copy(update={"done": progress.total})
        if state.added:
            return state.into("finished", now, progress=everything)
        # Whether the new generation alone is good enough is known from its own figures, which are of this moment.
        complete = state.into("complete", now, progress=everything)
        return self._watcher.estimate(complete).applied(complete)

    def watch(self, state: UpgradeState) -> UpgradeState:
        """Apply what the last look found, once it has ended, and begin another when it is time.

        A complete upgrade is watched until it is finished: the older generation is kept for a way back.
        """
        if state.added:
            return state  # there is nothing to compare it with
        live = self._live_of(state)
        if live.look is None:
            if self._clock() - live.looked_us > self._settings.quality_every_seconds * 1e6:
                live.look = self._watcher.look(state)
            return state
        if not live.look.done():
            return state
        # Counted from the end of a look: one that takes long does not become the only thing that is done.
        ended, live.look, live.looked_us = live.look, None, self._clock()
        seen = ended.result()
        state = seen.applied(state)
        drifted = seen.drift is not None and seen.drift.drifted
        if state.phase == "backfilling" and drifted and not state.paused and state.refits < _REFITS:
            return self._fit_again(state)
        return state

    def _fit_again(self, state: UpgradeState) -> UpgradeState:
        """The map does not fit what flows now: draw a sample of today. The old generation answers meanwhile."""
        log.warning("fitting again", extra={"collection": state.collection, "drift": str(state.drift)})
        self.forget(state.id)
        return state.into("sampling", self._clock(), refits=state.refits + 1, decision="", compensation="")

    def _live_of(self, state: UpgradeState) -> _Live:
        return self._live.setdefault(state.id, _Live(looked_us=self._clock()))
