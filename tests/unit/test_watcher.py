"""Estimates beside the control loop."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest

from driftline.core.errors import Unavailable
from driftline.core.records import Leg
from driftline.upgrade.quality import Judge
from driftline.upgrade.state import Estimate
from driftline.upgrade.watcher import InBackground
from tests.unit.upgrading import World, start


@pytest.fixture
def world() -> object:
    made = World(quality_every_seconds=0.001, window=5)
    yield made
    made.close()


def test_a_paused_upgrade_is_still_watched_and_falls_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    start(world)
    world.run_until("backfilling")
    world.controller.pause("things", True)
    bad = Estimate(at_us=1, fraction=0, queries=30, served=0.1, status_quo=0.9, difference=(-0.8, -0.9, -0.7))
    monkeypatch.setattr(Judge, "estimate", lambda *_: bad)
    for _ in range(5):
        time.sleep(0.002)
        world.controller.tick()
    assert world.state.paused
    assert world.state.fallback
    assert world.now.primary.routes == (Leg(1),)


def test_a_look_that_takes_long_does_not_hold_up_the_backfill(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.controller = world.a_controller(InBackground())
    start(world)
    world.run_until("backfilling")
    begun, go_on = threading.Event(), threading.Event()
    estimate = Judge.estimate

    def slow(self: Judge, *given: Any) -> Estimate | None:
        begun.set()
        assert go_on.wait(30)
        return estimate(self, *given)

    monkeypatch.setattr(Judge, "estimate", slow)
    while not begun.wait(0.002):
        world.controller.tick()
    looked, held = len(world.state.curve), len(world.versions(2))
    for _ in range(5):
        world.controller.tick()
        world.backfill()
    assert len(world.versions(2)) > held
    assert len(world.state.curve) == looked
    go_on.set()
    deadline = time.monotonic() + 30
    while len(world.state.curve) == looked and time.monotonic() < deadline:
        world.controller.tick()
        time.sleep(0.002)
    assert len(world.state.curve) == looked + 1
    world.run_until("complete")


def test_a_look_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.controller = world.a_controller(InBackground())
    start(world)
    world.run_until("backfilling")
    world.controller.pause("things", True)
    looked = len(world.state.curve)
    estimate, asked = Judge.estimate, itertools.count()

    def flaky(self: Judge, *given: Any) -> Estimate | None:
        if next(asked) == 0:
            raise Unavailable("milvus", "down")
        return estimate(self, *given)

    monkeypatch.setattr(Judge, "estimate", flaky)
    deadline = time.monotonic() + 30
    while len(world.state.curve) == looked and time.monotonic() < deadline:
        world.controller.tick()
        time.sleep(0.002)
    assert len(world.state.curve) > looked
    assert next(asked) > 1
