"""The control loop of model changes: one step after the other, each of which can be done twice.

The state of an upgrade is a record of the control topic, and what it demands of the collection follows from it
(`state.wanted`). A step writes the state first and brings the collection in line afterwards; after a crash between
the two the next tick does the second half.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from driftline.core.collections import Collection
from driftline.core.control import (
    ControlView,
    ControlWriter,
    collection_record,
    compensation_records,
    forget_compensation,
    space_record,
    store_name,
    upgrade_record,
)
from driftline.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from driftline.core.ports import Embedder, Publisher, VectorStore
from driftline.core.records import Clock, Space, now_us
from driftline.drift.stored import identity_of
from driftline.upgrade.admission import admitted
from driftline.upgrade.backfill import Backfill
from driftline.upgrade.models import Models
from driftline.upgrade.sample import TooFew, build, draw, fit_compensation
from driftline.upgrade.settings import UpgradeSection
from driftline.upgrade.state import (
    Phase,
    ShadowQuery,
    UpgradeState,
    new_generation,
    read_state,
    wanted,
)
from driftline.upgrade.telling import measure
from driftline.upgrade.watcher import Seen, Watcher

log = logging.getLogger(__name__)
# Of a state's record; brokers take 1 MB by default.
_STATE_BYTES = 600_000
# Of one upgrade: a stream that drifts faster than this is served better by the backfill alone.
_REFITS = 5
# Also while paused: searches go on, and whether they must fall back with them.
_WATCHED: tuple[Phase, ...] = ("backfilling", "complete")


@dataclass(slots=True)
class _Live:
    """What the loop keeps in memory of a running upgrade; all of it can be lost."""

    looked_us: int
    backfill: Backfill | None = None
    look: Future[Seen] | None = None
    checked_us: int = 0


class Controller:
    """Commands come from any thread; `tick` from one. Only the leader does either.

    `demand` gives the keys of the most wanted documents of a collection, by its uid.
    """

    def __init__(
        self,
        view: ControlView,
        writer: ControlWriter,
        embedder: Embedder,
        store: VectorStore,
        publisher: Publisher,
        store_prefix: str,
        settings: UpgradeSection,
        leading: Callable[[], bool],
        watcher: Watcher,
        demand: Callable[[str], list[str]] = lambda _: [],
        clock: Clock = now_us,
    ) -> None:
        self._view = view
        self._writer = writer
        self._embedder = embedder
        self._store = store
        self._publisher = publisher
        self._prefix = store_prefix
        self._settings = settings
        self._leading = leading
        self._watcher = watcher
        self._demand = demand
        self._clock = clock
        self._models = Models(view, embedder, clock)
        self._lock = threading.RLock()
        self._live: dict[str, _Live] = {}

    # Reading

    def states(self) -> list[UpgradeState]:
        """The last upgrade of every collection that is there."""
        found = []
        for record in self._view.upgrades():
            try:
                state = read_state(record)
            except ValueError as error:
                log.error("unreadable upgrade state", extra={"collection": record.collection, "error": str(error)})
                continue
            if self._collection(state) is not None:
                found.append(state)
        return sorted(found, key=lambda s: s.collection)

    def state(self, collection: str) -> UpgradeState:
        """Raises NotFound."""
        uid = self._view.collection(collection).uid
        for state in self.states():
            if state.collection_uid == uid:
                return state
        raise NotFound("no_upgrade", f"collection {collection!r} has never been upgraded", "collection")

    def _collection(self, state: UpgradeState) -> Collection | None:
        try:
            found = self._view.collection(state.collection)
        except NotFound:
            return None
        return found if found.uid == state.collection_uid else None

    # Commands

    def start(
        self, name: str, encoder: str, options: dict[str, Any], judged: tuple[ShadowQuery, ...] = ()
    ) -> UpgradeState:  # fmt: skip
        """Admit an upgrade, or raise with the reason: NotFound, InvalidRequest, Conflict, Unavailable."""
        with self._lock:
            self._must_lead()
            collection = self._view.collection(name)
            running = next((s for s in self.states() if s.collection_uid == collection.uid and not s.ended), None)
            if running is not None:
                raise Conflict(
                    "upgrade_running", f"{name!r} is being upgraded to {running.encoder!r} ({running.phase}): "
                    "finish it or roll it back first",
                )  # fmt: skip
            space = admitted(self._embedder, collection, encoder)
            number = collection.unused_number
            state = UpgradeState(
                id=secrets.token_hex(8),
                collection=collection.name,
                collection_uid=collection.uid,
                phase="registered",
                encoder=encoder,
                old=collection.complete.number,
                new=number,
                new_space=space.fingerprint,
                store=store_name(self._prefix, collection.name, collection.uid, number),
                margin=options.get("margin", self._settings.margin),
                pairs=options.get("pairs", self._settings.pairs),
                per_second=options.get("per_second", self._settings.per_second),
                shadow=judged,
                judged=bool(judged),
                entered_us={"registered": self._clock()},
            )
            if len(state.model_dump_json()) > _STATE_BYTES:
                raise InvalidRequest(
                    "too_many_queries",
                    f"expected judged queries of at most {_STATE_BYTES} bytes together",
                    "queries",
                    413,
                )
            self._writer.write([space_record(space), upgrade_record(state.record())])
            self._bring_in_line(state)
            return state

    def pause(self, name: str, paused: bool) -> UpgradeState:
        return self._command(name, lambda state: state.model_copy(update={"paused": paused}))

    def rollback(self, name: str) -> UpgradeState:
        """Back to the older generation, at once: it has every document."""
        return self._command(name, lambda state: state.into("rolled_back", self._clock(), reason="asked for"))

    def finish(self, name: str, force: bool = False) -> UpgradeState:
        """Give up the older generation. Raises Conflict unless the upgrade is complete and, without `force`, as good as
        the status quo: a model that is no longer supported may have to go whatever the queries say."""

        def end(state: UpgradeState) -> UpgradeState:
            if state.phase != "complete":
                raise Conflict("not_complete", f"the upgrade is {state.phase}: only a complete one can be finished")
            if state.fallback and not force:
                raise Conflict("fallback", f"the status quo is served: {state.fallback}")
            return state.into("finished", self._clock())

        return self._command(name, end)

    def _command(self, name: str, change: Callable[[UpgradeState], UpgradeState]) -> UpgradeState:
        with self._lock:
            self._must_lead()
            state = self.state(name)
            if state.ended:
                raise Conflict("no_upgrade", f"no upgrade of {name!r} is running: the last one is {state.phase}")
            changed = change(state)
            self._save(changed)
            return changed

    def _must_lead(self) -> None:
        if not self._leading():
            raise Unavailable("upgrade", "this replica does not lead; another one does, or will in a moment")

    # Writing

    def _save(self, state: UpgradeState) -> None:
        """Write the state, then what it demands of the collection."""
        self._writer.write([upgrade_record(state.record())])
        self._bring_in_line(state)
        measure(state)

    def _bring_in_line(self, state: UpgradeState) -> None:
        collection = self._collection(state)
        if collection is None:
            return
        demanded = wanted(state, collection)
        if demanded != collection:
            self._writer.write([collection_record(demanded)])
            log.info(
                "collection changed",
                extra={"collection": state.collection, "phase": state.phase, "route": str(demanded.routes)},
            )
        if state.ended and state.compensation:
            self._forget(state.compensation)

    def _forget(self, compensation: str) -> None:
        try:
            content = self._view.compensation(compensation)
        except Unavailable:
            return
        self._publisher.publish(forget_compensation(compensation, content))

    def _advance(self, known: UpgradeState, changed: UpgradeState) -> UpgradeState:
        """Save a step's result, unless a command was faster. Returns the state that holds."""
        with self._lock:
            current = self.state(known.collection)
            if current.id != known.id or current.phase != known.phase or not self._leading():
                return current
            changed = changed.model_copy(update={"paused": current.paused})
            self._save(changed)
            return changed

    # The loop

    def tick(self) -> None:
        """One step of every running upgrade. What is unavailable is tried again with the next tick."""
        if not self._leading():
            self._live.clear()
            return
        states = self.states()
        self._models.keep(states)
        for state in states:
            try:
                with self._lock:
                    self._bring_in_line(self.state(state.collection))
                if state.ended:
                    self._live.pop(state.id, None)
                    self._retire_model(state, states)
                    continue
                if self._is_swapped(state):
                    continue
                if not state.paused:
                    self._step(state)
                elif state.phase in _WATCHED:
                    self._watch(state)
            except NotFound:
                continue
            except Unavailable as error:
                log.warning("upgrade waits", extra={"collection": state.collection, "error": str(error)})

    def _retire_model(self, state: UpgradeState, states: list[UpgradeState]) -> None:
        """Unload the model that a finished upgrade came from, once, a while after the last search may have used it."""
        after = self._settings.unload_after_seconds
        ended = state.entered_us.get("finished")
        if ended is None or state.old_model or not after or self._clock() - ended < after * 1e6:
            return
        collection = self._view.collection(state.collection)
        old = next((g for g in collection.retired if g.number == state.old), None)
        told = "unknown" if old is None else self._models.retire(self._view.space(old.space).encoder, states)
        self._advance(state, state.model_copy(update={"old_model": told}))

    def _is_swapped(self, state: UpgradeState) -> bool:
        """Whether the new model is another one by now under its name: then the upgrade has failed."""
        found = self._embedder.describe(state.encoder)
        if found.fingerprint == state.new_space:
            return False
        reason = f"encoder {state.encoder!r} is of space {found.fingerprint} now, the upgrade was to {state.new_space}"
        self._advance(state, state.into("failed", self._clock(), reason=reason))
        return True

    def _step(self, state: UpgradeState) -> None:
        steps: dict[Phase, Callable[[UpgradeState], None]] = {
            "registered": self._register,
            "sampling": self._sample,
            "fitted": self._serve,
            "serving": self._open,
            "backfilling": self._backfill,
            "complete": self._watch,
        }
        steps[state.phase](state)

    def _register(self, state: UpgradeState) -> None:
        """Make the new generation's store; then it is live: from now on every change is written to both."""
        collection = self._view.collection(state.collection)
        dimension = self._view.space(state.new_space).dimension
        self._store.ensure(collection.target(new_generation(state), dimension))
        self._advance(state, state.into("sampling", self._clock()))

    def _spaces(self, state: UpgradeState) -> tuple[Space, Space]:
        collection = self._view.collection(state.collection)
        return self._view.space(collection.generation(state.old).space), self._view.space(state.new_space)

    def _sample(self, state: UpgradeState) -> None:
        """Embed a sample by both models, fit, and choose by held-out retrieval."""
        rng = random.Random(state.id)  # noqa: S311 - the same sample again after a crash
        target, _ = self._watcher.targets(state)
        old, new = self._spaces(state)
        given = state.shadow if state.judged else ()
        try:
            texts = draw(self._store, target, given, state.pairs, self._settings.held_out, rng)
            sample = build(texts, self._embedder, old, new)
            compensation, selection = fit_compensation(sample, old, new, state.margin)
        except (TooFew, ValueError) as error:
            reason = f"nothing was fitted ({error}): the older generation answers until the new one can alone"
            self._advance(state, state.into("fitted", self._clock(), decision="wait", reason=reason))
            return
        content = compensation.to_bytes()
        identity = identity_of(content)
        self._writer.write(compensation_records(identity, content))
        self._advance(
            state,
            state.into(
                "fitted", self._clock(), compensation=identity, decision=selection.decision, reason=selection.reason,
                fit=selection.summary(), shadow=state.shadow if state.judged else sample.shadow,
                encoded=state.encoded + sample.encoded,
            ),
        )  # fmt: skip

    def _serve(self, state: UpgradeState) -> None:
        self._advance(state, state.into("serving", self._clock()))

    def _open(self, state: UpgradeState) -> None:
        self._advance(state, self._watcher.estimate(state).applied(state).into("backfilling", self._clock()))

    def _backfill(self, state: UpgradeState) -> None:
        live = self._live_of(state)
        if live.backfill is None:
            old, new = self._watcher.targets(state)
            live.backfill = Backfill(
                self._store, self._publisher, self._view.collection(state.collection), old, new, state.new,
                self._settings.window, state.per_second, self._settings.retry_seconds,
                self._demand(state.collection_uid),
            )  # fmt: skip
        through = live.backfill.tick()
        now = self._clock()
        if now - live.checked_us > 2_000_000 or through:
            live.checked_us = now
            state = self._advance(state, state.model_copy(update={"progress": live.backfill.progress()}))
        if state.phase != "backfilling":
            return
        if through:
            del self._live[state.id]
            # Everything is there: what else was counted are changes between their writes to the two generations.
            everything = state.progress.model_copy(update={"done": state.progress.total})
            state = state.model_copy(update={"progress": everything})
            # Whether the new generation alone is good enough is known from its own figures, which are of this moment.
            complete = state.into("complete", now)
            self._advance(state, self._watcher.estimate(complete).applied(complete))
        else:
            self._watch(state)

    def _fit_again(self, state: UpgradeState) -> None:
        """The map does not fit what flows now: draw a sample of today. The old generation answers meanwhile."""
        log.warning("fitting again", extra={"collection": state.collection, "drift": str(state.drift)})
        self._live.pop(state.id, None)
        fresh = state.into("sampling", self._clock(), refits=state.refits + 1, decision="", compensation="")
        if self._advance(state, fresh).compensation == "":
            self._forget(state.compensation)

    def _live_of(self, state: UpgradeState) -> _Live:
        return self._live.setdefault(state.id, _Live(looked_us=self._clock()))

    def _watch(self, state: UpgradeState) -> None:
        """Take what was seen by now, if anything, and look again when it is time.

        A complete upgrade is watched until it is finished: the older generation is kept for a way back.
        """
        live = self._live_of(state)
        if live.look is None:
            if self._clock() - live.looked_us > self._settings.quality_every_seconds * 1e6:
                live.look = self._watcher.look(state)
            return
        if not live.look.done():
            return
        # Counted from the end of a look: one that takes long does not become the only thing that is done.
        ended, live.look, live.looked_us = live.look, None, self._clock()
        seen = ended.result()
        state = self._advance(state, seen.applied(state))
        drifted = seen.drift is not None and seen.drift.drifted
        if state.phase == "backfilling" and drifted and not state.paused and state.refits < _REFITS:
            self._fit_again(state)
