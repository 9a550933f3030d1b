"""Reading a topic to its end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from driftline.adapters.kafka import KafkaLogReader
from driftline.adapters.memory import MemoryLog, MemoryLogReader, MemoryPublisher
from driftline.core import follow
from driftline.core.errors import Unavailable
from driftline.core.follow import Follower, read_to_end
from driftline.core.records import Incoming, Outgoing
from driftline.core.settings import KafkaSettings


class Frozen(MemoryLogReader):
    """What a reader is while its broker is frozen: it knew the ends, and polls give nothing."""

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        del max_records, timeout_seconds
        return []


class Slow(MemoryLogReader):
    """A broker that answers every third poll, one record at a time, as a busy one seems to."""

    polls = 0

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        self.polls += 1
        return super().poll(1, timeout_seconds) if self.polls % 3 == 0 else []


def a_log(count: int) -> MemoryLog:
    log = MemoryLog(partitions=2)
    MemoryPublisher(log).publish([Outgoing("t", b"k", b"%d" % i, i % 2) for i in range(count)])
    return log


def test_polls_that_give_nothing_are_not_the_end() -> None:
    found = list(read_to_end(Slow(a_log(9)), "t"))
    assert sorted(int(r.value or b"") for r in found) == list(range(9))


def test_an_empty_topic_has_an_end() -> None:
    assert list(read_to_end(MemoryLogReader(a_log(0)), "t")) == []


def test_the_last_records_of_each_partition() -> None:
    found = list(read_to_end(MemoryLogReader(a_log(9)), "t", last=2))
    assert sorted(int(r.value or b"") for r in found) == [5, 6, 7, 8]


def test_a_broker_that_gives_nothing_is_unavailable_and_not_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_STALLED_SECONDS", 0.1)
    with pytest.raises(Unavailable, match="'t' is not read to its end"):
        list(read_to_end(Frozen(a_log(9)), "t"))


def test_a_follower_starts_at_the_end_of_what_there_was_and_goes_on_after_an_outage() -> None:
    class Flaky(MemoryLogReader):
        outages = 1

        def ends(self, topic: str) -> Mapping[int, int]:
            if taken and self.outages:
                self.outages -= 1
            return super().ends(topic)

        def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
            if len(taken) == 9 and self.outages:
                raise Unavailable("kafka", "an outage")
            return super().poll(max_records, timeout_seconds)

    class Taking(Follower):
        def take(self, record: Incoming) -> None:
            taken.append(int(record.value or b""))
            if len(taken) == 10:
                all_of_it.set()

    taken: list[int] = []
    all_of_it = threading.Event()
    log = a_log(9)
    follower = Taking(Flaky(log), "t")
    with pytest.raises(Unavailable):
        follower.start(0.0)
    follower.start(30)
    assert sorted(taken) == list(range(9))
    MemoryPublisher(log).publish([Outgoing("t", b"k", b"9", 0)])
    assert all_of_it.wait(30)
    follower.close()
    assert sorted(taken) == list(range(10)), "no record twice"


def test_a_position_that_the_broker_does_not_tell_is_before_every_end() -> None:
    """kafka-python gives None, which has no order: the follower's thread, and so the process, would end."""
    reader = KafkaLogReader(KafkaSettings())
    reader._consumer = SimpleNamespace(position=lambda partition, timeout_ms: None)
    assert reader.position(("control", 0)) == -1
