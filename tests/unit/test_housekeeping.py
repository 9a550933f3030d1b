"""Stores of generations: made when they go live, dropped a grace after they are retired."""

from __future__ import annotations

import time
from dataclasses import replace

from driftline.adapters.memory import MemoryEmbedder, MemoryStore
from driftline.core.collections import Collection
from driftline.core.errors import Unavailable
from driftline.core.records import Generation
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
    store, view = MemoryStore(), a_view()
    keeper = Housekeeper(view, store, 8, grace_seconds=0.3)
    keeper.notice(upgraded())
    keeper._work()
    assert stores(store) == {"test_things_u1_1", "test_things_u1_2"}
    keeper.notice(rolled_back())
    keeper._work()
    assert stores(store) == {"test_things_u1_1", "test_things_u1_2"}, "a search may be reading it"
    time.sleep(0.35)
    keeper._work()
    assert stores(store) == {"test_things_u1_1"}
    keeper.notice(replace(a_collection(), deleted=True))
    keeper._work()
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
