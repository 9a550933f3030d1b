"""Background threads: how one begins, tries again and ends, and that a bug in any of them is told."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import driftline
from driftline.adapters.memory import (
    MemoryCache,
    MemoryEmbedder,
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemoryStore,
    MemorySubscriber,
)
from driftline.core import service
from driftline.core.control import ControlFollower, ControlView
from driftline.core.errors import Unavailable
from driftline.core.health import Health, HealthServer, serve
from driftline.core.receipts import ReceiptTail
from driftline.core.worker import Worker, on_bug
from driftline.index.housekeeping import Housekeeper
from driftline.query.fills import Fills
from driftline.query.log import QueryLog
from driftline.query.write_through import WriteThrough
from driftline.upgrade.leader import Leader
from driftline.upgrade.watcher import InBackground
from driftline.web.serve import follow_health, watch
from tests.build import a_collection
from tests.client import until
from tests.unit.test_runner import Harness

Told = queue.SimpleQueue[tuple[str, BaseException]]


@pytest.fixture
def told() -> Iterator[Told]:
    """What the hook is told."""
    bugs: Told = queue.SimpleQueue()
    before = on_bug(lambda worker, error: bugs.put((worker, error)))
    yield bugs
    on_bug(before)


class Broken(Exception):
    """A bug."""


def broken(*_: Any, **__: Any) -> Any:
    raise Broken


def test_work_is_done_again_and_again_until_the_worker_is_closed(told: Told) -> None:
    done: list[int] = []
    worker = Worker("w", lambda: done.append(1), every_seconds=0.001)
    worker.start()
    worker.start()
    until(lambda: len(done) > 3, 5)
    assert worker.close(5)
    count = len(done)
    assert worker.close(5)
    assert len(done) == count
    assert told.empty()


def test_a_worker_without_a_time_of_its_own_works_only_when_woken() -> None:
    done = threading.Semaphore(0)
    worker = Worker("w", done.release, every_seconds=None)
    worker.start()
    assert not done.acquire(timeout=0.05)
    worker.wake()
    assert done.acquire(timeout=5)
    assert not done.acquire(timeout=0.05)
    assert worker.close(5)


def test_a_worker_that_is_woken_does_not_wait_for_its_time() -> None:
    done = threading.Semaphore(0)
    worker = Worker("w", done.release, every_seconds=3_600)
    worker.start()
    assert done.acquire(timeout=5)
    worker.wake()
    assert done.acquire(timeout=5)
    assert worker.close(5)


def test_unavailable_is_tried_again_and_told_to_nobody(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        if len(calls) < 4:
            raise Unavailable("kafka", "down", retry_after_seconds=0.001)

    worker = Worker("w", work, every_seconds=3_600)
    worker.start()
    until(lambda: len(calls) == 4, 5)
    assert worker.close(5)
    assert told.empty()
    pauses = [record.after_seconds for record in caplog.records if record.message == "will try again"]  # type: ignore[attr-defined]
    assert pauses == [0.001, 0.002, 0.004]


def test_an_outage_is_not_waited_for_when_the_worker_is_closed() -> None:
    failed = threading.Event()

    def work() -> None:
        failed.set()
        raise Unavailable("kafka", "down", retry_after_seconds=3_600)

    worker = Worker("w", work)
    worker.start()
    assert failed.wait(5)
    assert worker.close(5)


def test_work_that_does_not_end_is_left_at_work_after_the_deadline() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)

    worker = Worker("w", work)
    worker.start()
    assert begun.wait(5)
    assert not worker.close(0.01)
    go_on.set()
    assert worker.close(5)


def test_interrupt_makes_work_that_takes_long_return() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)

    worker = Worker("w", work, interrupt=go_on.set)
    worker.start()
    assert begun.wait(5)
    assert worker.close(5)


def test_a_worker_that_never_began_is_closed_at_once() -> None:
    assert Worker("w", broken).close(0)


@pytest.mark.parametrize("error", [Broken(), SystemExit(78), KeyboardInterrupt()])
def test_whatever_else_leaves_the_work_is_a_bug(error: BaseException, told: Told) -> None:
    def work() -> None:
        raise error

    worker = Worker("w", work)
    worker.start()
    assert told.get(timeout=5) == ("w", error)
    assert worker.close(5), "a thread that is gone is not waited for"


def test_a_close_does_not_wait_for_a_hook_that_ends_the_process() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hook(worker: str, error: BaseException) -> None:
        entered.set()
        go_on.wait(30)

    before = on_bug(hook)
    try:
        worker = Worker("w", broken)
        worker.start()
        assert entered.wait(5)
        assert worker.close(5)
    finally:
        go_on.set()
        on_bug(before)


class _BrokenReader(MemoryLogReader):
    poll = broken


class _BrokenSubscriber(MemorySubscriber):
    poll = broken


class _BrokenStore(MemoryStore):
    purge_tombstones = broken


class _BrokenPublisher(MemoryPublisher):
    publish = broken


class _BrokenCache(MemoryCache):
    set_many = broken


class _BrokenServicer:
    set = broken


def control(_: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        ControlFollower(_BrokenReader(MemoryLog(1)), ControlView()).start(0.01)


def receipts(_: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        ReceiptTail(_BrokenReader(MemoryLog(1))).start(0.01)


def housekeeping(_: pytest.MonkeyPatch) -> None:
    Housekeeper(ControlView(), _BrokenStore(), 8).start()


def leader(_: pytest.MonkeyPatch) -> None:
    Leader(_BrokenSubscriber(MemoryLog(1), "g", ["control"]), Health()).start()


def query_log(_: pytest.MonkeyPatch) -> None:
    QueryLog(_BrokenPublisher(MemoryLog(1)), per_second=10).offer(a_collection(), "", "text", [])


def write_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteThrough, "flush", broken)
    WriteThrough(MemoryStore(), MemoryPublisher(MemoryLog(1)), lambda _: MemoryEmbedder().space)


def cache_fill(_: pytest.MonkeyPatch) -> None:
    Fills(_BrokenCache()).put({"k": b"v"}, 1)


def readiness(_: pytest.MonkeyPatch) -> None:
    watch(Health(), {"milvus": broken})


def grpc_health(_: pytest.MonkeyPatch) -> None:
    follow_health(_BrokenServicer(), Health()).start()


def health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HealthServer, "_serve", broken)
    serve("127.0.0.1", 0, Health(), lambda: True)


def backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness()
    # Not what a record does: that is the record's dead letter.
    monkeypatch.setattr(harness.subscriber, "poll", broken)
    service.run_beside("backfill", harness.runner, 1.0)


def look(_: pytest.MonkeyPatch) -> None:
    def leave() -> Any:
        raise SystemExit

    InBackground()(leave)


KINDS: Sequence[Callable[[pytest.MonkeyPatch], None]] = (
    control, receipts, housekeeping, leader, query_log, write_through, cache_fill, readiness, grpc_health, health,
    backfill, look,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_a_bug_in_any_kind_of_worker_is_told(
    kind: Callable[[pytest.MonkeyPatch], None], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind(monkeypatch)
    worker, error = told.get(timeout=10)
    assert worker == kind.__name__.replace("_", "-")
    assert isinstance(error, Broken | SystemExit)


def test_a_bug_of_a_look_is_raised_where_its_answer_is_taken() -> None:
    with pytest.raises(Broken):
        InBackground()(broken).result(5)


def test_no_thread_is_made_by_hand() -> None:
    """A worker is what tells of its bug; `core.worker` is where the only thread is made."""
    files = Path(driftline.__file__).parent.rglob("*.py")
    assert [f.name for f in files if "Thread(" in f.read_text()] == ["worker.py"]
