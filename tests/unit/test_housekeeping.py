"""Stores of generations: made when they go live, dropped a grace after they are retired."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from driftline.adapters.memory import MemoryEmbedder, MemoryStore
from driftline.core.collections import Collection
from driftline.core.errors import Unavailable
from driftline.core.records import Generation, now_us
from driftline.core.store import Removal, StoreTarget, WritePlan
from driftline.index.housekeeping import Housekeeper
from tests.build import a_collection, a_view
from tests.client import until

SPACE = MemoryEmbedder().space
SECOND = Generation(2, "default", SPACE.fingerprint, "test_things_u1_2")


def stores(store: MemoryStore) -> set[str]:
    return set(store._identities)


def upgraded() -> Collection:
    base = a_collection()
    return replace(base, generations=(*base.generations, SECOND))


def rolled_back() -> Collection:
    return replace(a_collection(), retired=(SECOND,))


def test_a_retired_generation_is_dropped_only_after_the_grace() -> None:
    store, view, clock = MemoryStore(), a_view(), Time()
    keeper = Housekeeper(view, store, 8, grace_seconds=30, monotonic=clock)
    keeper.notice(upgraded())
    keeper.turn()
    assert stores(store) == {"test_things_u1_1", "test_things_u1_2"}
    keeper.notice(rolled_back())
    keeper.turn()
    assert stores(store) == {"test_things_u1_1", "test_things_u1_2"}, "a search may be reading it"
    clock.now += 31
    keeper.turn()
    assert stores(store) == {"test_things_u1_1"}
    keeper.notice(replace(a_collection(), deleted=True))
    keeper.turn()
    assert stores(store) == set()


def test_what_fails_is_tried_again() -> None:
    store, view = MemoryStore(), a_view()
    keeper = Housekeeper(view, store, 8, grace_seconds=0)
    keeper.start()
    try:
        store.failing = Unavailable("milvus", "down")
        keeper.notice(upgraded())
        time.sleep(0.2)
        assert stores(store) == set()
        store.failing = None
        keeper.notice(upgraded())
        until(lambda: len(stores(store)) == 2, 10)
        # The next record that comes drops what an earlier, unfinished one had left.
        keeper.notice(rolled_back())
        until(lambda: stores(store) == {"test_things_u1_1"}, 10)
    finally:
        keeper.close()


class Time:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Counting(MemoryStore):
    """Counts what is asked of it; the stores of one collection cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.purged = 0
        self.broken = ""

    def ensure(self, target: StoreTarget) -> None:
        self.asked.append(target.store)
        if target.store == self.broken:
            raise Unavailable("milvus", "this one can never be made")
        super().ensure(target)

    def purge_tombstones(self, before_us: int) -> int:
        self.purged += 1
        return super().purge_tombstones(before_us)


def another(uid: str) -> Collection:
    made = a_collection(name=uid)
    generation = replace(made.generations[0], store=f"test_{uid}_1")
    return replace(made, uid=uid, generations=(generation,))


def test_notices_do_not_bring_the_next_purge_forward() -> None:
    store, clock = Counting(), Time()
    keeper = Housekeeper(a_view(), store, 8, every_seconds=600, monotonic=clock)
    keeper.turn()
    assert store.purged == 1
    for i in range(200):
        keeper.notice(another(f"c{i}"))
        clock.now += 1
        keeper.turn()
    assert store.purged == 1
    clock.now += 400
    keeper.turn()
    assert store.purged == 2


def test_a_broken_collection_is_tried_less_and_less_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = Counting(), Time()
    broken = another("broken")
    store.broken = broken.generations[0].store
    keeper = Housekeeper(a_view(), store, 8, monotonic=clock)
    keeper.notice(broken)
    # Ten minutes in which a collection is made every second: each notice wakes the housekeeper.
    for i in range(600):
        keeper.notice(another(f"c{i}"))
        keeper.turn()
        assert f"test_c{i}_1" in stores(store)
        clock.now += 1
    # 5, 10, 20 and 40 seconds apart, and then every minute.
    assert store.asked.count(store.broken) == 13
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 13


def test_a_new_notice_of_a_collection_is_followed_at_once() -> None:
    store, clock = Counting(), Time()
    broken = another("broken")
    store.broken = broken.generations[0].store
    keeper = Housekeeper(a_view(), store, 8, monotonic=clock)
    keeper.notice(broken)
    for _ in range(100):
        keeper.turn()
        clock.now += 5
    store.broken = ""
    keeper.notice(broken)
    keeper.turn()
    assert "test_broken_1" in stores(store)


def test_a_tombstone_is_purged_only_after_its_days() -> None:
    """The changes log keeps events for as long: one that comes again from there must still find the tombstone."""
    store, view, now = MemoryStore(), a_view(), now_us()
    target = a_collection().target(a_collection().primary.complete, SPACE)
    store.ensure(target)
    store.apply(target, WritePlan(removals=(Removal("k", 5, 0),)), lambda: 1.0)
    for days, kept in ((0.0, True), (7.9, True), (8.1, False)):
        Housekeeper(view, store, 8, clock=lambda d=days: now + int(d * 86_400e6)).purge()  # type: ignore[misc]
        assert bool(store.versions(target, ["k"], None)) is kept, days
