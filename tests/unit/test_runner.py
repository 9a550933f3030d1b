from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from driftline.adapters.memory import MemoryLog, MemoryPublisher, MemorySubscriber
from driftline.core import codec, metrics
from driftline.core import runner as runner_module
from driftline.core.breaker import Breaker, Flooded
from driftline.core.errors import Fenced, InvalidRecord, Unavailable
from driftline.core.health import Health
from driftline.core.records import Incoming, Outgoing
from driftline.core.runner import Runner
from driftline.core.settings import RunnerSettings
from driftline.core.stage import Processed, Refused, Result
from driftline.core.topics import LETTER_ROOM


class Echo:
    """Publishes every value to `out`; `before` may raise."""

    def __init__(self) -> None:
        self.before: Callable[[Sequence[bytes]], None] = lambda batch: None
        self.batches: list[list[bytes]] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def process(self, batch: Sequence[bytes]) -> Processed:
        self.before(batch)
        self.batches.append(list(batch))
        results: list[Result] = []
        for value in batch:
            if value.startswith(b"bad"):
                results.append(Refused(InvalidRecord("bad", "told so")))
            elif value.startswith(b"suspect"):
                results.append(Refused(InvalidRecord("bad", suspect=True), origin=value.decode()))
            else:
                results.append((Outgoing("out", b"", value, 0),))
        return Processed(results)

    def reject(self, item: bytes, error: InvalidRecord) -> Processed:
        return Processed([Refused(error, origin="test")])


def decode(record: Incoming) -> bytes:
    if (record.value or b"").startswith(b"poison"):
        raise InvalidRecord("undecodable", "poison")
    if record.value == b"crash":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    return record.value or b""


class Harness:
    def __init__(self, breaker: Breaker | None = None, largest: int = 8_000_000, **settings: object) -> None:
        self.log = MemoryLog(1)
        self.publisher = MemoryPublisher(self.log, largest)
        self.subscriber = MemorySubscriber(self.log, "g", ["in"])
        self.stage = Echo()
        self.health = Health()
        values = {"batch_records": 4, "batch_age_seconds": 0.0, "dead_letter_limit": 1.0} | settings
        self.runner: Runner[bytes] = Runner(
            service="test", subscriber=self.subscriber, publisher=self.publisher, stage=self.stage, decode=decode,
            settings=RunnerSettings.model_validate(values), health=self.health, breaker=breaker,
            largest_record_bytes=largest,
        )  # fmt: skip
        self.error: BaseException | None = None

    def put(self, *values: bytes) -> None:
        for value in values:
            self.log.append(Outgoing("in", b"k", value, 0))

    def out(self) -> list[bytes]:
        return [r.value or b"" for r in self.log.all("out")]

    def letters(self) -> list[tuple[str, bytes]]:
        letters = [codec.decode_dead_letter(r.value) for r in self.log.all("dead-letters")]
        return [(x.reason, x.value) for x in letters]

    def committed(self) -> int:
        return self.log.committed.get(("g", "in", 0), 0)

    def run_until(self, done: Callable[[], bool], seconds: float = 10) -> None:
        def run() -> None:
            try:
                self.runner.run()
            except BaseException as error:
                self.error = error

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + seconds
        while not done() and thread.is_alive() and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        self.runner.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_results_are_published_in_order_and_committed() -> None:
    h = Harness()
    values = [b"%d" % i for i in range(50)]
    h.put(*values)
    h.run_until(lambda: h.committed() == 50)
    assert h.out() == values


def test_a_refused_and_an_undecodable_record_are_dead_lettered_alone() -> None:
    h = Harness()
    h.put(b"1", b"bad", b"poison", b"2")
    h.run_until(lambda: h.committed() == 4)
    assert h.out() == [b"1", b"2"]
    assert sorted(h.letters()) == [("bad", b"bad"), ("undecodable", b"poison")]


def test_unavailable_puts_the_batch_off_and_loses_nothing() -> None:
    h = Harness()
    failures = iter([Unavailable("triton", "down", 0.01), Unavailable("triton", "down", 0.01)])

    def before(batch: Sequence[bytes]) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    h.stage.before = before
    h.put(b"1", b"2", b"3", b"4", b"5", b"6")
    h.run_until(lambda: h.committed() == 6)
    assert h.out() == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert h.letters() == []


def test_readiness_says_why_while_a_dependency_is_down() -> None:
    h = Harness()

    def before(batch: Sequence[bytes]) -> None:
        raise Unavailable("milvus", "no answer", 0.01)

    h.stage.before = before
    h.put(b"1")
    h.run_until(lambda: "milvus is unavailable: no answer" in h.health.report()[1].values())
    assert h.health.report()[0] is False
    assert h.committed() == 0


def test_a_failed_dead_letter_write_blocks_the_commit() -> None:
    h = Harness()
    h.publisher.failing = Unavailable("kafka", "no", 0.01)
    h.put(b"bad")
    h.run_until(lambda: h.stage.resets >= 3)
    assert h.committed() == 0


def test_a_fenced_batch_is_dropped_and_read_again() -> None:
    h = Harness()
    fences = iter([Fenced("lost")])

    def before(batch: Sequence[bytes]) -> None:
        if (error := next(fences, None)) is not None:
            raise error

    h.stage.before = before
    h.put(b"1", b"2")
    h.run_until(lambda: h.committed() == 2)
    assert h.out() == [b"1", b"2"]


def test_nothing_is_published_without_a_lease() -> None:
    h = Harness()
    h.subscriber.lease = -1.0
    h.put(b"1")
    h.run_until(lambda: h.stage.resets >= 2)
    assert h.out() == []
    assert h.committed() == 0


def test_what_a_record_makes_the_stage_raise_is_its_own_dead_letter() -> None:
    h = Harness(batch_records=8)

    def before(batch: Sequence[bytes]) -> None:
        if b"cursed" in batch:
            raise RecursionError("too deep")

    h.stage.before = before
    h.put(*[b"%d" % i for i in range(5)], b"cursed", b"6", b"7")
    h.run_until(lambda: h.committed() == 8)
    assert h.out() == [b"%d" % i for i in (0, 1, 2, 3, 4, 6, 7)]
    assert h.letters() == [("unexpected", b"cursed")]


def test_what_a_record_makes_the_decoder_raise_is_its_own_dead_letter() -> None:
    h = Harness()
    h.put(b"1", b"crash", b"2")
    h.run_until(lambda: h.committed() == 3)
    assert h.out() == [b"1", b"2"]
    assert h.letters() == [("unexpected", b"crash")]


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "too many open files")])
def test_what_the_process_suffers_ends_the_run_uncommitted(error: Exception) -> None:
    h = Harness()

    def before(batch: Sequence[bytes]) -> None:
        raise error

    h.stage.before = before
    h.put(b"1", b"2")
    h.run_until(lambda: h.error is not None)
    assert h.error is error
    assert h.committed() == 0
    assert h.letters() == []


def test_one_producers_flood_of_poison_stops_nobody() -> None:
    h = Harness(dead_letter_limit=0.5, dead_letter_window=40)
    h.put(*[b"suspect-a"] * 200, b"fine")
    h.run_until(lambda: h.committed() == 201)
    assert h.error is None
    assert h.out() == [b"fine"]
    assert len(h.letters()) == 200


def test_suspect_refusals_of_several_producers_stop_the_service() -> None:
    h = Harness(dead_letter_limit=0.5, dead_letter_window=40)
    h.put(*[b"suspect-a", b"suspect-b"] * 60)
    h.run_until(lambda: h.error is not None)
    assert isinstance(h.error, Flooded)
    assert h.committed() < 60


def test_refusals_that_are_the_records_own_fault_never_stop_a_stage() -> None:
    h = Harness(dead_letter_limit=0.5, dead_letter_window=40)
    h.put(*[b"bad"] * 100)
    h.run_until(lambda: h.committed() == 100)
    assert h.error is None


def test_a_source_stops_when_most_of_its_topic_is_refused() -> None:
    h = Harness(breaker=Breaker(0.5, 40, any_reason=True, origins=1))
    h.put(*[b"bad"] * 100)
    h.run_until(lambda: h.error is not None)
    assert isinstance(h.error, Flooded)
    assert "bad: told so" in str(h.error)


def test_a_record_larger_than_the_broker_takes_becomes_a_letter_that_tells_its_size() -> None:
    h = Harness(largest=1_000_000)
    value = b"poison" + b"x" * 2_000_000
    h.put(value)
    h.run_until(lambda: h.committed() == 1)
    (record,) = h.log.all("dead-letters")
    letter = codec.decode_dead_letter(record.value)
    assert letter.cut_from == len(value)
    assert value.startswith(letter.value)
    assert record.size() <= 1_000_000 + LETTER_ROOM


def test_a_result_larger_than_the_broker_takes_is_refused_instead_of_tried_for_ever() -> None:
    h = Harness(largest=1_000_000)
    h.put(b"1", b"y" * 1_000_001, b"2")
    h.run_until(lambda: h.committed() == 3)
    assert h.out() == [b"1", b"2"]
    assert [reason for reason, _ in h.letters()] == ["record_too_large"]


def test_stop_drains_what_is_in_flight() -> None:
    h = Harness()
    begun = threading.Event()

    def before(batch: Sequence[bytes]) -> None:
        begun.set()
        threading.Event().wait(0.2)

    h.stage.before = before
    h.put(b"1")
    h.run_until(begun.is_set)
    assert h.committed() == 1


def test_settled_records_are_published_after_the_results() -> None:
    h = Harness()
    plain = h.stage.process
    h.stage.process = lambda batch: Processed(plain(batch).results, lambda: [Outgoing("out", b"", b"settled", 0)])  # type: ignore[method-assign]
    h.put(b"1")
    h.run_until(lambda: h.committed() == 1)
    assert h.out() == [b"1", b"settled"]


def test_a_stage_that_answers_too_few_is_a_bug() -> None:
    h = Harness()
    h.stage.process = lambda batch: Processed([])  # type: ignore[method-assign]
    h.put(b"1")
    h.run_until(lambda: h.error is not None)
    assert isinstance(h.error, RuntimeError)


def test_revoked_partitions_are_finished_first() -> None:
    h = Harness()
    h.put(b"1", b"2")
    h.runner._take(h.subscriber.poll(10, 0))
    h.runner._submit()
    h.runner.on_revoked()
    assert h.committed() == 2
    h.runner.stop()
    h.runner.run()


def test_lost_partitions_are_not_committed() -> None:
    h = Harness()
    h.put(b"1")
    h.runner._take(h.subscriber.poll(10, 0))
    h.runner._submit()
    h.runner.on_lost()
    assert h.committed() == 0
    h.runner.stop()
    h.runner.run()


def test_what_a_rebalance_drops_is_read_again_when_the_partition_stays() -> None:
    h = Harness()
    values = [b"%d" % i for i in range(6)]
    h.put(*values)
    h.runner._take(h.subscriber.poll(10, 0))
    h.runner._submit()
    h.subscriber.fenced = True
    h.runner.on_revoked()
    h.subscriber.fenced = False
    h.runner.on_assigned(1)
    h.run_until(lambda: h.committed() == 6)
    assert h.out()[-6:] == values


def test_what_was_only_buffered_is_read_again_when_the_partition_stays() -> None:
    h = Harness()
    h.put(b"1", b"2")
    h.runner._take(h.subscriber.poll(10, 0))
    h.runner.on_revoked()
    h.runner.on_assigned(1)
    h.run_until(lambda: h.committed() == 2)
    assert h.out() == [b"1", b"2"]


def test_a_batch_that_waits_for_room_does_not_poll_busily() -> None:
    h = Harness(max_in_flight=1)
    go = threading.Event()
    polls = 0

    def before(batch: Sequence[bytes]) -> None:
        go.wait(5)

    def poll(max_records: int, timeout_seconds: float) -> list[Incoming]:
        nonlocal polls
        polls += 1
        if polls == 40:
            go.set()
        # Every poll takes as long as it may: 40 of 1 ms end at once, 40 of a patient loop take some tenths of a second.
        time.sleep(timeout_seconds)
        slept.append(timeout_seconds)
        return inner(max_records, 0)

    slept: list[float] = []
    inner = h.subscriber.poll
    h.subscriber.poll = poll  # type: ignore[method-assign]
    h.stage.before = before
    h.put(*[str(i).encode() for i in range(5)])
    h.run_until(lambda: len(h.out()) == 5)
    waiting = slept[2:39]
    assert min(waiting) >= 0.005, waiting


def test_what_is_at_work_counts_as_behind_until_it_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The position is beyond what was taken: a batch that takes minutes would look like no backlog at all."""
    monkeypatch.setattr(runner_module, "_LAG_SECONDS", 0.0)
    h = Harness()
    gate = threading.Event()
    seen: list[float] = []

    def before(_: Sequence[bytes]) -> None:
        gate.wait(10)

    def done() -> bool:
        labels = {"topic": "in", "partition": "0"}
        seen.append(metrics.REGISTRY.get_sample_value("driftline_lag_records", labels) or 0.0)
        if seen[-1] == 30:
            gate.set()
        return gate.is_set() and h.committed() == 30 and seen[-1] == 0

    h.stage.before = before
    h.put(*(b"%d" % i for i in range(30)))
    h.run_until(done)
    assert max(seen) == 30
    assert seen[-1] == 0
