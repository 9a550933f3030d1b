"""A source's loop: it waits for its topic, pauses after a flood, and is nobody else's trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from driftline.adapters.memory import MemoryLog, MemoryPublisher, MemorySubscriber
from driftline.core import codec, metrics
from driftline.core.breaker import Breaker
from driftline.core.control import log_record
from driftline.core.errors import Unavailable
from driftline.core.health import Health
from driftline.core.records import LogIncarnation, Outgoing
from driftline.core.runner import Runner
from driftline.core.settings import RunnerSettings
from driftline.core.topics import CHANGES, DEAD_LETTERS
from driftline.ingest.loops import SourceLoop
from driftline.ingest.sources import Source, SourceStage, source_log
from tests.build import BASE, a_collection, a_view
from tests.client import until


class Reading:
    """Loops over one log, each on a thread, as ingest runs them."""

    def __init__(self) -> None:
        self.log = MemoryLog(1)
        self.view = a_view(a_collection())
        self.loops: list[SourceLoop] = []
        self.threads: list[threading.Thread] = []

    def start(self, topic: str, register: Callable[[], None] = lambda: None, pause_seconds: float = 60) -> SourceLoop:
        self.view.apply(log_record(LogIncarnation(source_log(topic), "t", BASE)).value)
        stage = SourceStage(Source(topic=topic, collection="things"), self.view)

        def open_() -> tuple[Runner[Any], Callable[[], None]]:
            runner: Runner[Any] = Runner(
                service="ingest",
                subscriber=MemorySubscriber(self.log, topic, [topic]),
                publisher=MemoryPublisher(self.log),
                stage=stage,
                decode=stage.decode,
                settings=RunnerSettings(batch_records=20, batch_age_seconds=0),
                health=Health(),
                breaker=Breaker(0.5, 40, any_reason=True, origins=1),
            )
            return runner, lambda: None

        loop = SourceLoop(topic, register, open_, pause_seconds)
        self.loops.append(loop)
        self.threads.append(threading.Thread(target=loop.run))
        self.threads[-1].start()
        return loop

    def put(self, topic: str, *values: bytes) -> None:
        for value in values:
            self.log.append(Outgoing(topic, b"k", value, 0))

    def taken(self, topic: str) -> int:
        """Records of a source that became changes."""
        events = [codec.decode_change(r.value) for r in self.log.all(CHANGES.name)]
        return sum(e.source == f"kafka:{topic}" for e in events)

    def stop(self) -> None:
        for loop in self.loops:
            loop.stop()
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads)


def paused(topic: str) -> float:
    return metrics.REGISTRY.get_sample_value("driftline_source_paused", {"topic": topic}) or 0.0


GOOD = b'{"title": "fine"}'


def test_a_flood_of_bad_records_pauses_its_source_and_no_other() -> None:
    reading = Reading()
    reading.put("bad", *[b"{broken"] * 500)
    reading.put("good", *[GOOD] * 10)
    reading.start("bad")
    reading.start("good")
    until(lambda: paused("bad") == 1 and reading.taken("good") == 10, 10)
    set_aside = len(reading.log.all(DEAD_LETTERS.name))
    reading.put("good", *[GOOD] * 10)
    until(lambda: reading.taken("good") == 20, 10)
    assert len(reading.log.all(DEAD_LETTERS.name)) == set_aside < 100
    reading.stop()


def test_a_paused_source_reads_on_after_its_pause() -> None:
    reading = Reading()
    reading.put("bad", *[b"{broken"] * 40)
    reading.put("bad", *[GOOD] * 30)
    reading.start("bad", pause_seconds=0.02)
    until(lambda: reading.taken("bad") == 30, 10)
    assert len(reading.log.all(DEAD_LETTERS.name)) == 40
    reading.stop()


def test_a_source_whose_topic_is_not_there_holds_up_no_other() -> None:
    reading = Reading()

    def register() -> None:
        raise Unavailable("kafka", "source topic 'later' does not exist")

    reading.start("later", register)
    reading.put("good", GOOD)
    reading.start("good")
    until(lambda: reading.taken("good") == 1, 10)
    reading.stop()
