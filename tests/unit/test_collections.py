"""Creating a collection returns when it can be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from driftline.core.control import ControlWriter
from driftline.core.errors import PartlyUnavailable, Unavailable
from driftline.core.store import StoreTarget
from driftline.ingest.collections import Collections
from tests.world import World

DEFINITION = {
    "name": "new",
    "fields": {"title": {"type": "text"}},
    "embedding": {"encoder": "hashing", "fields": ["title"]},
}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def collections(world: World, wait_seconds: float) -> Collections:
    writer = ControlWriter(world.publisher, world.follower)
    return Collections(world.view, writer, world.embedder, world.store, "test_", wait_seconds)


def answering(world: World, monkeypatch: pytest.MonkeyPatch, *answers: int | Exception | None) -> list[str]:
    """Let the store answer so, the last for ever; returns the stores that were asked about."""
    left: list[Any] = list(answers)
    asked: list[str] = []

    def count(target: StoreTarget) -> int | None:
        asked.append(target.store)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(world.store, "count", count)
    return asked


def test_a_creation_waits_for_a_store_that_is_not_there_and_for_one_that_is_not_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(world, monkeypatch, None, PartlyUnavailable("milvus", "not loaded"), 0)
    made, new = collections(world, wait_seconds=60).create(DEFINITION)
    assert new
    assert asked == [made.primary.complete.store] * 3


@pytest.mark.parametrize("answer", [None, PartlyUnavailable("milvus", "not loaded")])
def test_it_does_not_wait_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: PartlyUnavailable | None
) -> None:
    answering(world, monkeypatch, answer)
    begun = time.monotonic()
    assert collections(world, wait_seconds=0.3).create(DEFINITION)[1]
    assert time.monotonic() - begun >= 0.3
    assert world.view.collection("new").definition.name == "new"


def test_a_collection_is_created_while_milvus_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(world, monkeypatch, Unavailable("milvus", "away"))
    assert collections(world, wait_seconds=60).create(DEFINITION)[1]
    assert len(asked) == 1
