"""What index remembers, what it may trust after partitions moved, and what it tells before others can see it.

The store here is slow to show: a read sees another's write at once, as a strong one does, or only what was settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from driftline.adapters.memory import (
    MemoryCache,
    MemoryEmbedder,
    MemoryLog,
    MemoryPublisher,
    MemoryStore,
    MemorySubscriber,
)
from driftline.core import codec
from driftline.core.collections import Collection
from driftline.core.errors import Unavailable
from driftline.core.health import Health
from driftline.core.ports import Guard
from driftline.core.records import Generation, NamedVectors, Outcome, VectorRecord
from driftline.core.runner import Runner
from driftline.core.settings import RunnerSettings
from driftline.core.stage import Processed
from driftline.core.store import StoredVersion, StoreTarget, WritePlan
from driftline.index.settings import IndexSection
from driftline.index.stage import IndexStage
from tests.build import a_collection, a_vector_record, a_view


class SlowToShow(MemoryStore):
    """Reads with a timestamp see what was visible by then and no more; a strong read sees everything."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0
        self._written: dict[str, list[tuple[int, dict[str, StoredVersion]]]] = {}
        self.failing_store = ""

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        if target.store == self.failing_store:
            raise Unavailable("memory store", "crashed")
        timestamp = super().apply(target, plan, guard)
        keys = [d.key for d in plan.upserts] + [r.key for r in plan.removals] + [key for key, _, _ in plan.trims]
        now = dict(super().versions(target, keys, None))
        self._written.setdefault(target.store, []).append((timestamp, now))
        return timestamp

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        if visible_from is None:
            return super().versions(target, keys, None)
        seen: dict[str, StoredVersion] = {}
        for timestamp, versions in self._written.get(target.store, []):
            if timestamp <= max(visible_from, self.shown):
                seen |= versions
        return {key: seen[key] for key in keys if key in seen}

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        super().wait_visible(target, timestamp)
        self.shown = max(self.shown, timestamp)


class World:
    """Members of one group over one store; `member` gives each its own memory."""

    def __init__(self, collection: Collection | None = None) -> None:
        self.collection = collection or a_collection()
        self.view = a_view(self.collection)
        self.store = SlowToShow()

    def member(self, **settings: int) -> IndexStage:
        return IndexStage(self.view, self.store, MemoryCache(), lambda: 10.0, IndexSection.model_validate(settings))

    def event(self, id: str, version: int, *, delete: bool = False, generations: Sequence[int] = (1,)) -> VectorRecord:
        record = a_vector_record(id, version=version, delete=delete, collection=self.collection)
        if delete:
            return record
        dimension = MemoryEmbedder().space.dimension
        values = np.ones((1, dimension), dtype=np.float32)
        vectors = tuple(NamedVectors("default", self.collection.primary.complete.space, g, values) for g in generations)
        return replace(record, vectors=vectors)

    def held(self, generation: int = 1) -> dict[str, int]:
        """Document id -> version of the live documents."""
        target = self.collection.target(self.collection.primary.generation(generation), MemoryEmbedder().space)
        return {id: version for _, id, version, _ in self.store.scan(target)}


class Remembering:
    """A stage that counts how often it is told to forget."""

    def __init__(self) -> None:
        self.resets = 0

    def process(self, batch: Sequence[object]) -> Processed:
        return Processed([() for _ in batch])

    def reset(self) -> None:
        self.resets += 1


def test_every_change_of_ownership_makes_the_stage_forget() -> None:
    log, stage = MemoryLog(1), Remembering()
    runner: Runner[object] = Runner(
        service="test",
        subscriber=MemorySubscriber(log, "g", ["in"]),
        publisher=MemoryPublisher(log),
        stage=stage,
        decode=lambda record: record,
        settings=RunnerSettings(),
        health=Health(),
    )
    for told in (lambda: runner.on_assigned(1), runner.on_revoked, runner.on_lost, lambda: runner.on_assigned(1)):
        before = stage.resets
        told()
        assert stage.resets > before


def settled(processed: Processed) -> list[Outcome]:
    assert processed.settle is not None
    return [r.outcome for batch in processed.settle() for r in codec.decode_receipts(batch.value)]


@pytest.mark.parametrize("delete", [False, True], ids=["changed", "deleted"])
def test_what_another_member_wrote_meanwhile_is_not_overwritten(delete: bool) -> None:
    world = World()
    first, second = world.member(), world.member()
    settled(first.process([world.event("a", 1)]))
    settled(second.process([world.event("a", 5, delete=delete)]))
    # The partitions come back: what this member knew of them is worth nothing.
    first.reset()
    assert settled(first.process([world.event("a", 3)])) == [Outcome.SUPERSEDED]
    assert world.held() == ({} if delete else {"a": 5})


def test_a_version_is_remembered_until_its_write_can_be_read_back() -> None:
    """More documents than it may remember, and none of them visible yet: a late event must still lose."""
    world = World()
    member = world.member(recent_versions=1_000)
    recent = {f"d{i}": 5 for i in range(1_100)}
    settled(member.process([world.event("first", 1)]))
    late = member.process([world.event(id, version) for id, version in recent.items()])
    # An older batch settles last, as one that waited long does; the newer one is not visible by that.
    for memory in member._recent.values():
        memory.mark_visible(0)
    assert [len(r) if isinstance(r, tuple) else r for r in member.process([world.event("d0", 3)]).results] == [0]
    assert settled(late) == [Outcome.SEARCHABLE] * 1_100
    assert world.held() == recent | {"first": 1}


def test_a_receipt_waits_until_searches_can_see_the_write() -> None:
    world = World()
    processed = world.member().process([world.event("a", 1)])
    target = world.collection.target(world.collection.primary.complete, MemoryEmbedder().space)
    assert world.store.versions(target, [world.store.scan(target).__next__()[0]], 0) == {}
    assert settled(processed) == [Outcome.SEARCHABLE]
    assert len(world.store.versions(target, [world.store.scan(target).__next__()[0]], 0)) == 1


def test_a_crash_between_two_generations_leaves_the_complete_one_ahead() -> None:
    """Generation 2 may lack what generation 1 has, and is filled; the other way round nothing would."""
    base = a_collection()
    second = Generation(2, "default", base.primary.complete.space, "test_things_u1_2")
    world = World(replace(base, generations=(*base.generations, second)))
    member = world.member()
    for failing in ("test_things_u1_2", base.primary.complete.store):
        world.store.failing_store = failing
        with pytest.raises(Unavailable):
            member.process([world.event("a", 1, generations=(1, 2))])
        assert world.held(2).items() <= world.held(1).items()
        member.reset()
    world.store.failing_store = ""
    settled(member.process([world.event("a", 1, generations=(1, 2))]))
    assert world.held(1) == world.held(2) == {"a": 1}
