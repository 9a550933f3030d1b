"""The control loop of model changes: commands, and one step after the other (`steps`), each of which can be done twice.

The state of an upgrade is a record of the control topic, and what it demands of the collection follows from it
(`state.wanted`). A step writes the state first and brings the collection in line afterwards; after a crash between
the two the next tick does the second half.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from driftline.core.collections import Collection, CollectionDefinition
from driftline.core.control import (
    ControlView,
    ControlWriter,
    collection_record,
    forget_compensation,
    space_record,
    store_name,
    upgrade_record,
)
from driftline.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from driftline.core.indexes import Index
from driftline.core.ports import Embedder, Publisher, VectorStore
from driftline.core.records import Clock, Space, now_us
from driftline.upgrade.admission import admitted, described
from driftline.upgrade.changes import Changes, changes
from driftline.upgrade.models import Models
from driftline.upgrade.settings import UpgradeSection
from driftline.upgrade.state import (
    ShadowQuery,
    UpgradeState,
    read_state,
    wanted,
)
from driftline.upgrade.steps import WATCHED, Steps
from driftline.upgrade.view import measure
from driftline.upgrade.watcher import Watcher

log = logging.getLogger(__name__)
# Of a state's record; brokers take 1 MB by default.
_STATE_BYTES = 600_000


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
        self._publisher = publisher
        self._prefix = store_prefix
        self._settings = settings
        self._leading = leading
        self._clock = clock
        self._models = Models(view, embedder, clock)
        self._steps = Steps(view, writer, embedder, store, publisher, settings, watcher, demand, clock)
        self._lock = threading.RLock()

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
            self._must_be_idle(collection)
            index = collection.index(options["index"]) if options.get("index") else collection.primary
            space = admitted(self._embedder, index, encoder)
            state = self._registered(
                collection,
                index.name,
                space,
                encoder=encoder,
                old=index.complete.number,
                shadow=judged,
                judged=bool(judged),
                **{name: options[name] for name in ("margin", "pairs", "per_second") if name in options},
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

    def _registered(self, collection: Collection, index: str, space: Space, **given: Any) -> UpgradeState:
        """The first state of an upgrade of an index to a space; what is not given comes from the settings."""
        number = collection.unused_number
        settings = {name: getattr(self._settings, name) for name in ("margin", "pairs", "per_second")}
        return UpgradeState(
            id=secrets.token_hex(8),
            collection=collection.name,
            collection_uid=collection.uid,
            phase="registered",
            index=index,
            new=number,
            new_space=space.fingerprint,
            store=store_name(self._prefix, collection.name, collection.uid, number),
            entered_us={"registered": self._clock()},
            **settings | given,
        )

    def apply(self, name: str, definition: CollectionDefinition) -> Changes:
        """Change the definition of a live collection, or raise with the reason: NotFound, InvalidRequest, Conflict,
        Unavailable. An index that is added is filled by the loop."""
        with self._lock:
            self._must_lead()
            collection = self._view.collection(name)
            if definition.named_indexes != collection.definition.named_indexes:
                self._must_be_idle(collection)
            found = changes(collection, definition)
            if not found.told:
                return found
            if found.added is None:
                self._writer.write([collection_record(found.at_once)])
                return found
            # All that can be refused before anything is written.
            name, index = found.added
            space = self._space(found.at_once, name, index)
            state = self._registered(found.at_once, name, space, encoder=index.encoder, old=0, added=index)
            self._writer.write([collection_record(found.at_once), space_record(space), upgrade_record(state.record())])
            self._bring_in_line(state)
            return found

    def _space(self, collection: Collection, name: str, index: Index) -> Space:
        if index.analyzer is not None:
            return index.analyzer.space()
        return described(self._embedder, collection, index.encoder, f"indexes.{name}.encoder")

    def _must_be_idle(self, collection: Collection) -> None:
        running = next((s for s in self.states() if s.collection_uid == collection.uid and not s.ended), None)
        if running is not None:
            what = f"index {running.index!r} is being filled" if running.added else f"to {running.encoder!r}"
            raise Conflict(
                "upgrade_running", f"{collection.name!r} is being upgraded ({what}, {running.phase}): "
                "finish it or roll it back first",
            )  # fmt: skip

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
                extra={"collection": state.collection, "phase": state.phase, "route": str(demanded.legs)},
            )
        if state.ended and state.compensation:
            self._forget(state.compensation)

    def _forget(self, compensation: str) -> None:
        try:
            content = self._view.compensation(compensation)
        except Unavailable:
            return
        self._publisher.publish(forget_compensation(compensation, content))

    def _advance(self, known: UpgradeState, changed: UpgradeState) -> None:
        """Save a step's result, unless a command was faster."""
        if changed == known:
            return
        with self._lock:
            current = self.state(known.collection)
            if current.id != known.id or current.phase != known.phase or not self._leading():
                return
            self._save(changed.model_copy(update={"paused": current.paused}))
        if known.compensation and not changed.compensation:
            self._forget(known.compensation)

    # The loop

    def tick(self) -> None:
        """One step of every running upgrade. What is unavailable is tried again with the next tick."""
        if not self._leading():
            self._steps.forget()
            return
        states = self.states()
        self._models.keep(states)
        for state in states:
            try:
                with self._lock:
                    self._bring_in_line(self.state(state.collection))
                self._advance(state, self._next(state, states))
            except NotFound:
                continue
            except Unavailable as error:
                log.warning("upgrade waits", extra={"collection": state.collection, "error": str(error)})

    def _next(self, state: UpgradeState, states: list[UpgradeState]) -> UpgradeState:
        """What the state becomes with this tick."""
        if state.ended:
            self._steps.forget(state.id)
            return self._with_model_retired(state, states)
        if failed := self._swapped(state):
            return failed
        if not state.paused:
            return self._steps.step(state)
        return self._steps.watch(state) if state.phase in WATCHED else state

    def _with_model_retired(self, state: UpgradeState, states: list[UpgradeState]) -> UpgradeState:
        """Unload the model that a finished upgrade came from, once, a while after the last search may have used it."""
        after = self._settings.unload_after_seconds
        ended = state.entered_us.get("finished")
        if ended is None or state.old_model or not after or self._clock() - ended < after * 1e6:
            return state
        collection = self._view.collection(state.collection)
        old = next((g for g in collection.retired if g.number == state.old), None)
        told = "unknown" if old is None else self._models.retire(self._view.space(old.space).encoder, states)
        return state.model_copy(update={"old_model": told})

    def _swapped(self, state: UpgradeState) -> UpgradeState | None:
        """The failed upgrade, where the new model is another one by now under its name."""
        if not state.encoder:
            return None  # words have no model
        found = self._embedder.describe(state.encoder)
        if found.fingerprint == state.new_space:
            return None
        reason = f"encoder {state.encoder!r} is of space {found.fingerprint} now, the upgrade was to {state.new_space}"
        return state.into("failed", self._clock(), reason=reason)
