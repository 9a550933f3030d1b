"""When a backfill is through, while documents change all the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from driftline.adapters.memory import MemoryEmbedder, MemoryLog, MemoryPublisher, MemoryStore
from driftline.core.records import Generation, document_key
from driftline.core.store import StoredDocument, StoreTarget, WritePlan
from driftline.core.topics import BACKFILL
from driftline.upgrade.backfill import Backfill
from tests.build import a_collection

SPACE = MemoryEmbedder(8).space


class Stores:
    """Two generations of a collection, and what is on its way from one to the other."""

    def __init__(self, documents: int, retry_seconds: float = 100.0, window: int = 20) -> None:
        base = a_collection(SPACE)
        second = Generation(2, "default", "f" * 32, "test_things_u1_2")
        collection = replace(base, generations=(*base.generations, second))
        self.store, self.log = MemoryStore(), MemoryLog()
        self.old, self.new = (collection.target(g, SPACE) for g in collection.generations)
        for target in (self.old, self.new):
            self.store.ensure(target)
        for i in range(documents):
            self.put(self.old, i, 1)
        self.backfill = Backfill(
            self.store, MemoryPublisher(self.log), collection, [self.old], self.new, 2, window, 0.0, retry_seconds
        )  # fmt: skip
        self.read = 0

    def put(self, target: StoreTarget, number: int, version: int) -> None:
        name = f"d{number}"
        document = StoredDocument(
            document_key("", name), "", name, version, b"{}", {}, (name,), np.ones((1, 8), dtype=np.float32)
        )
        self.store.apply(target, WritePlan((document,)), lambda: 1.0)

    def asked(self) -> int:
        """How many were asked for since the last call."""
        before, self.read = self.read, len(self.log.all(BACKFILL.name))
        return self.read - before


def test_it_is_through_although_some_change_is_always_on_its_way() -> None:
    stores = Stores(100)
    late: tuple[int, int] | None = None
    for tick in range(200):
        # Every change is in the one generation a moment before it is in the other.
        change = (tick % 100, tick + 2)
        stores.put(stores.old, *change)
        through = stores.backfill.tick()
        if late:
            stores.put(stores.new, *late)
        late = change
        held = stores.store.versions(stores.old, [document_key("", f"d{i}") for i in range(100)], None)
        for i in range(100):
            # What was asked for comes, unless the document has changed since: then its change does.
            if held[document_key("", f"d{i}")].version == 1 and tick > i // 20:
                stores.put(stores.new, i, 1)
        if through:
            break
    else:
        pytest.fail("never through")
    missing = set(stores.store.versions(stores.old, [document_key("", f"d{i}") for i in range(100)], None)) - set(
        stores.store.versions(stores.new, [document_key("", f"d{i}") for i in range(100)], None)
    )
    assert missing == set(), "every document is there in some version"


def test_it_is_not_through_while_one_never_comes() -> None:
    stores = Stores(10, retry_seconds=0.0)
    for _ in range(30):
        assert not stores.backfill.tick()
        for i in range(9):
            stores.put(stores.new, i, 1)
    assert stores.backfill.progress().refused == 1


def test_nothing_is_scanned_again_while_what_was_asked_for_is_on_its_way() -> None:
    stores = Stores(10)
    for _ in range(4):
        assert not stores.backfill.tick()
        assert stores.backfill.progress().passes == 1
    for i in range(10):
        stores.put(stores.new, i, 1)
    assert stores.backfill.tick()
    assert (stores.asked(), stores.backfill.progress().passes) == (10, 1)


def test_more_than_a_window_is_asked_for_in_turns() -> None:
    stores = Stores(50, window=20)
    assert not stores.backfill.tick()
    assert stores.asked() == 20
    for i in range(50):
        stores.put(stores.new, i, 1)
    assert not stores.backfill.tick()
    assert stores.asked() <= 30
    ticks = 0
    while not stores.backfill.tick():
        ticks += 1
        assert ticks < 5
