"""An upgrade from its start to its end, and back, on the in-memory parts."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from driftline.adapters.memory import MemoryEmbedder, MemoryLogReader
from driftline.core import codec
from driftline.core.control import ControlWriter, collection_record
from driftline.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from driftline.core.records import Carry, Leg, Priority, document_key
from driftline.core.topics import BACKFILL, CHANGES, DEAD_LETTERS, QUERIES
from driftline.core.vectors import Matrix
from driftline.encode.stage import decode as decode_change
from driftline.index.housekeeping import Housekeeper
from driftline.query.log import QueryLog
from driftline.upgrade.demand import most_wanted
from driftline.upgrade.models import Models
from driftline.upgrade.report import page
from driftline.upgrade.state import ShadowQuery, UpgradeState, read_state, route, wanted
from driftline.upgrade.view import UpgradeView, view_of
from tests.build import a_change, a_collection, publish_change
from tests.unit.upgrading import TITLES, WORDS, World, start


@pytest.fixture
def world() -> object:
    made = World()
    yield made
    made.close()


def test_an_upgrade_carries_every_document_over_and_ends_with_the_new_generation_alone(world: World) -> None:
    start(world)
    world.new.priorities.clear()
    phases = []
    world.run_until("complete", lambda: phases.append(world.state.phase))
    assert [p for i, p in enumerate(phases) if p not in phases[:i]] == [
        "sampling", "fitted", "serving", "backfilling", "complete",
    ]  # fmt: skip
    assert world.versions(2) == world.versions(1)
    assert len(world.versions(2)) == len(TITLES)
    assert world.new.priorities == {Priority.BACKGROUND}
    assert [g.number for g in world.now.generations] == [1, 2], "the way back stays open"
    if not world.state.fallback:
        assert world.now.primary.routes == (Leg(2),)
    world.controller.finish("things", force=True)
    assert [g.number for g in world.now.generations] == [2]
    assert [g.number for g in world.now.retired] == [1]
    assert world.find(TITLES[5])[0] == TITLES[5]
    Housekeeper(world.view, world.store, 8).retire(world.now)
    assert world.versions(1) == {}


def test_searches_find_every_document_at_every_moment(world: World) -> None:
    start(world)

    def check() -> None:
        for title in (TITLES[0], TITLES[77], TITLES[-1]):
            assert title in world.find(title)[:3], (world.state.phase, world.now.primary.routes)

    world.run_until("complete", check)


def test_changes_during_an_upgrade_win_over_its_backfill(world: World) -> None:
    start(world)
    rng = random.Random(5)
    expected = dict.fromkeys(world.versions(1))
    turn = 0

    def write() -> None:
        nonlocal turn
        turn += 1
        for title in rng.sample(TITLES, 6):
            if rng.random() < 0.5:
                publish_change(world.log, a_change(title, delete=True))
                expected.pop(title, None)
            else:
                publish_change(world.log, a_change(title, title=f"{title} again {turn}"))
                expected[title] = None
        if turn % 2:
            world._run(CHANGES.name, "encode", world.encode, decode_change)

    for _ in range(25):
        world.controller.tick()
        write()
        world.backfill()
    world.drain()
    world.run_until("complete")
    assert world.versions(1).keys() == expected.keys()
    assert world.versions(2) == world.versions(1)


@pytest.mark.parametrize("phase", ["registered", "sampling", "fitted", "serving", "backfilling", "complete"])
def test_a_rollback_from_every_phase_leaves_the_collection_as_it_was(world: World, phase: str) -> None:
    start(world)
    if phase != "registered":
        world.run_until(phase)
    publish_change(world.log, a_change("fresh", title="a fresh one"))
    world.drain()
    before = world.versions(1)
    world.controller.rollback("things")
    assert world.now.primary.routes == (Leg(1),)
    assert [g.number for g in world.now.generations] == [1]
    assert world.versions(1) == before
    assert "fresh" in before
    Housekeeper(world.view, world.store, 8).retire(world.now)
    world.backfill()
    world.controller.tick()
    assert world.versions(2) == {}, "what was on its way is not written any more"
    assert world.log.all(DEAD_LETTERS.name) == []
    with pytest.raises(Conflict):
        world.controller.rollback("things")
    # The next try gets a generation number of its own.
    start(world)
    assert [g.number for g in world.now.generations] == [1], "not before its store is there"
    world.run_until("sampling")
    assert [g.number for g in world.now.generations] == [1, 3]


@pytest.mark.parametrize("phase", ["sampling", "fitted", "serving", "backfilling"])
def test_a_controller_that_dies_is_succeeded_by_one_that_goes_on(world: World, phase: str) -> None:
    start(world)
    world.run_until(phase)
    world.controller = world.a_controller()
    world.run_until("complete")
    assert world.versions(2) == world.versions(1)


def test_a_crash_between_the_state_and_the_collection_is_mended_by_the_next_tick(world: World) -> None:
    start(world)
    world.run_until("backfilling")
    broken = world.now
    world.publisher.publish([collection_record(a_collection(world.old.space))])
    world.follower.wait_for(world.log.all("control")[-1].offset, 5)
    assert world.now != broken
    world.controller.tick()
    assert [g.number for g in world.now.generations] == [1, 2]


def test_only_the_leader_acts(world: World) -> None:
    world.leads = False
    with pytest.raises(Unavailable):
        start(world)
    world.leads = True
    start(world)
    world.leads = False
    world.controller.tick()
    assert world.state.phase == "registered"


def test_a_paused_upgrade_stays_where_it_is(world: World) -> None:
    start(world)
    world.run_until("backfilling")
    world.controller.pause("things", True)
    held = len(world.versions(2))
    for _ in range(3):
        world.controller.tick()
    world.backfill()
    assert world.state.paused
    assert len(world.versions(2)) <= held + world.settings.window
    world.controller.pause("things", False)
    world.run_until("complete")


def test_a_complete_upgrade_is_told_as_whole_while_changes_are_between_their_two_writes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(world)
    count = world.store.count
    old = world.now.target(world.now.primary.complete, world.view.space(world.now.primary.complete.space)).store
    monkeypatch.setattr(world.store, "count", lambda target: count(target) + 2 * (target.store == old))
    world.run_until("complete")
    told = view_of(world.state)
    assert (told.fraction, told.eta_seconds) == (1.0, None)
    assert world.state.curve[-1].fraction == 1.0


def test_a_document_that_the_new_encoder_refuses_keeps_the_upgrade_open_and_is_still_found() -> None:
    world = World(retry_seconds=0.01)
    try:
        world.new.refused_texts = {TITLES[8]}
        start(world)
        deadline = time.monotonic() + 30
        while world.state.progress.refused == 0 and time.monotonic() < deadline:
            world.controller.tick()
            world.backfill()
            time.sleep(0.02)
        assert world.state.phase == "backfilling"
        assert world.state.progress.refused == 1
        assert TITLES[8] in world.find(f"{TITLES[8]} again")
        assert world.log.all(DEAD_LETTERS.name)
    finally:
        world.close()


def test_a_collection_too_small_to_fit_on_is_served_by_the_old_generation_until_the_new_one_is_complete() -> None:
    world = World(TITLES[:20])
    try:
        start(world)
        world.run_until("backfilling")
        assert (world.state.decision, world.now.primary.routes) == ("wait", (Leg(1),))
        world.run_until("complete")
        assert world.now.primary.routes == (Leg(2),)
    finally:
        world.close()


def test_a_worse_model_is_noticed_and_the_status_quo_is_served(world: World) -> None:
    """The new encoder gives every text the same vector: no search by it can find anything."""
    world.new._one = lambda text: world.old._one("same").repeat(2)[:64]  # type: ignore[method-assign]
    judged = tuple(ShadowQuery(text=t, relevant={t: 1.0}) for t in TITLES[:30])
    world.controller.start("things", "better", {}, judged)
    world.run_until("complete")
    assert world.state.fallback
    assert world.now.primary.routes == (Leg(1),)
    with pytest.raises(Conflict, match="status quo"):
        world.controller.finish("things")
    world.controller.finish("things", force=True)
    assert world.now.primary.routes == (Leg(2),)


def test_a_stream_that_drifts_from_the_fit_sample_is_noticed_and_fitted_again() -> None:
    """The new encoder turns the old one's vectors, and those of texts with another word otherwise: a map that was
    fitted before that word came up is wrong for them."""
    world = World(quality_every_seconds=0.001, window=3, shadow_queries=10)
    try:
        turns = [np.linalg.qr(np.random.default_rng(i).normal(size=(64, 64)))[0] for i in range(2)]

        def encode(text: str) -> Matrix:
            padded = np.pad(world.old._one(text), (0, 16))
            return (padded @ turns["strange" in text]).astype(np.float32)

        world.new._one = encode  # type: ignore[method-assign]
        start(world)
        world.run_until("backfilling")
        assert world.state.decision == "map", world.state.reason
        first = world.state.compensation
        for _ in range(3):
            world.controller.tick()
            world.backfill()
        assert world.state.refits == 0
        for i in range(220):
            publish_change(world.log, a_change(f"strange {i}", title=f"strange {WORDS[i % 18]} {WORDS[i % 7]} {i}"))
        world.drain()
        world.run_until("sampling")
        drift = world.state.drift
        assert drift is not None
        assert drift.residual > 0.5
        assert drift.shift > 0.2
        # Of a hundred hits one may stand in a tie that rounding decides; which texts are drawn is random.
        assert drift.overlap >= 0.98, "the shadow queries are of before"
        assert world.now.primary.routes == (Leg(1),)
        assert world.state.refits == 1
        world.run_until("backfilling")
        assert world.state.compensation not in ("", first)
        with pytest.raises(Unavailable):
            world.view.compensation(first)
    finally:
        world.close()


def test_another_model_under_the_same_name_fails_the_upgrade(world: World) -> None:
    start(world)
    world.run_until("backfilling")
    world.encoders.by_name["better"] = MemoryEmbedder(80, "better")  # type: ignore[attr-defined]
    world.controller.tick()
    assert world.state.phase == "failed"
    assert world.now.primary.routes == (Leg(1),)


def test_the_old_model_is_unloaded_some_time_after_the_end_and_loaded_when_it_is_needed_again() -> None:
    world = World(unload_after_seconds=0.5)
    try:
        start(world)
        world.run_until("complete")
        world.old.loaded = False
        world.controller.tick()
        assert world.old.loaded, "a live generation's model is kept loaded"
        world.controller.finish("things", force=True)
        world.controller.tick()
        assert world.old.loaded, "searches that began before the end may still use it"
        time.sleep(0.6)
        world.controller.tick()
        assert not world.old.loaded
        assert world.state.old_model == "hashing is unloaded"
        world.controller.tick()
        assert world.new.loaded
        world.controller.start("things", "hashing", {})
        assert world.old.loaded, "an upgrade to it, back for instance, loads it"
    finally:
        world.close()


def test_a_server_that_joins_without_a_model_is_given_it(world: World) -> None:
    world.old.elsewhere = False
    Models(world.view, world.encoders, lambda: 0).keep([])
    assert world.old.elsewhere, "each server behind the address of Triton must have what collections need"


def test_a_model_that_another_collection_needs_stays_loaded(world: World) -> None:
    other = replace(a_collection(world.old.space, name="others"), uid="u2")
    ControlWriter(world.publisher, world.follower).write([collection_record(other)])
    world.settings = world.settings.model_copy(update={"unload_after_seconds": 0.001})
    world.controller = world.a_controller()
    start(world)
    world.run_until("complete")
    world.controller.finish("things", force=True)
    time.sleep(0.01)
    world.controller.tick()
    assert world.old.loaded
    assert world.state.old_model == "hashing stays loaded: a collection needs it"


@pytest.mark.parametrize(
    "collection, encoder, error, words",
    [
        ("nothing", "better", NotFound, "no collection"),
        ("things", "missing", InvalidRequest, "not loaded"),
        ("things", "hashing", Conflict, "already"),
    ],
)
def test_the_gates(world: World, collection: str, encoder: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        world.controller.start(collection, encoder, {})


def test_one_upgrade_of_a_collection_at_a_time(world: World) -> None:
    start(world)
    with pytest.raises(Conflict, match="roll it back"):
        start(world)
    with pytest.raises(Conflict, match="only a complete one"):
        world.controller.finish("things")


def test_the_state_survives_its_record_and_is_told(world: World) -> None:
    start(world)
    world.run_until("complete")
    assert read_state(world.state.record()) == world.state
    told = view_of(world.state).model_dump(mode="json")
    assert (told["fraction"], told["shadow_queries"]) == (1.0, 30)
    assert "shadow" not in told
    read = UpgradeView.model_validate(told)
    assert read == view_of(world.state)
    shown = page(read)
    assert "<svg" in shown
    assert "better" in shown


def test_what_a_state_demands_is_stable() -> None:
    collection = a_collection()
    state = UpgradeState(
        id="x", collection="things", collection_uid="u1", phase="backfilling", encoder="e", old=1, new=2,
        new_space="s2", store="st", margin=0.01, pairs=100, decision="ensemble", compensation="c",
    )  # fmt: skip
    assert route(state) == (Leg(2), Leg(1, Carry.ENSEMBLE, "c"))
    once = wanted(state, collection)
    assert wanted(state, once) == once
    for phase in ("complete", "finished", "rolled_back"):
        ended = wanted(state.into(phase, 1), once)  # type: ignore[arg-type]
        assert wanted(state.into(phase, 1), ended) == ended  # type: ignore[arg-type]


def test_what_is_searched_for_is_re_embedded_first() -> None:
    world = World(window=10)
    try:
        wanted_first = [TITLES[99], TITLES[50], TITLES[120]]
        queries = QueryLog(world.publisher, per_second=100)
        for _ in range(3):
            queries.offer(world.now, "", "something", [*wanted_first, "deleted since"])
        queries.offer(world.now, "", "something", [TITLES[50]])
        queries.flush()
        queries.close()
        found = most_wanted(MemoryLogReader(world.log), world.now.uid)
        assert found[:2] == [document_key("", TITLES[99]), document_key("", TITLES[50])]
        assert most_wanted(MemoryLogReader(world.log), "another") == []
        world.controller._steps._demand = lambda uid: most_wanted(MemoryLogReader(world.log), uid)
        start(world)
        world.run_until("backfilling")
        world.controller.tick()
        asked = [codec.decode_change(r.value).id for r in world.log.all(BACKFILL.name)]
        assert set(wanted_first) <= set(asked)
        assert len(asked) == 10
        world.run_until("complete")
    finally:
        world.close()


def test_the_log_of_searches_is_bounded() -> None:
    world = World(TITLES[:2])
    try:
        queries = QueryLog(world.publisher, per_second=2)
        for i in range(50):
            queries.offer(world.now, "", f"text {i}", [])
        queries.close()
        assert 1 <= len(world.log.all(QUERIES.name)) <= 3
    finally:
        world.close()
