"""Reading topics without a group: to where they end now, or on and on."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from driftline.core.errors import Unavailable
from driftline.core.ports import LogReader, TopicPartition
from driftline.core.records import Incoming
from driftline.core.worker import Worker

_POLL_RECORDS = 1_000
_POLL_SECONDS = 0.2
# A broker that is frozen or gone makes polls empty and raises nothing.
_STALLED_SECONDS = 30.0
# Of a topic that is never at rest, the records up to its end count, and no empty poll is waited for.
_NEVER_AT_REST_SECONDS = 5.0


def read_to_end(reader: LogReader, topic: str, last: int | None = None) -> Iterator[Incoming]:
    """Every record that the topic has now, and maybe some that come meanwhile; with `last`, only that many of each
    partition. Raises Unavailable, also when the broker has given nothing for 30 s and the end is not reached."""
    ends = {(topic, partition): end for partition, end in reader.ends(topic).items()}
    reader.seek({tp: 0 if last is None else max(0, end - last) for tp, end in ends.items()})
    heard = time.monotonic()
    while True:
        records = reader.poll(_POLL_RECORDS, _POLL_SECONDS)
        yield from records
        if records:
            heard = time.monotonic()
        # An end of a compacted topic may be told too small: only an empty poll beyond it is the end.
        elif all(reader.position(tp) >= end for tp, end in ends.items()):
            return
        elif time.monotonic() - heard > _STALLED_SECONDS:
            raise Unavailable("kafka", f"topic {topic!r} is not read to its end: nothing came for {_STALLED_SECONDS} s")


class Follower(ABC):
    """Reads a topic for ever, on a thread of its own, and goes on where it was after an outage."""

    def __init__(self, reader: LogReader, topic: str) -> None:
        self._reader = reader
        self._topic = topic
        self._positions: dict[TopicPartition, int] = {}
        self._caught_up = threading.Event()
        self._worker = Worker(topic, self._follow)

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Start following and return when everything written so far was seen.

        Raises Unavailable when that takes longer; following goes on, and this may be called once more.
        """
        self._worker.start()
        if not self._caught_up.wait(timeout_seconds):
            raise Unavailable("kafka", f"topic {self._topic!r} could not be read within {timeout_seconds:.0f} s")

    def close(self) -> None:
        if self._worker.close():
            self._reader.close()

    @abstractmethod
    def take(self, record: Incoming) -> None:
        """One record, on the follower's thread."""

    def begin(self, ends: Mapping[int, int]) -> Mapping[int, int]:
        """Where each partition is read from at first, told where it ends."""
        return dict.fromkeys(ends, 0)

    def rest(self) -> None:  # noqa: B027 - not everyone has something to do then
        """Called after each poll that gave nothing."""

    def patience(self) -> float:
        """Seconds that a poll waits for a record; the first one ends it at once."""
        return 0.5

    def _follow(self) -> None:
        """Read until it is closed. Raises Unavailable, and is called again after it."""
        ends = self._reader.ends(self._topic)
        if not self._positions:
            self._positions = {(self._topic, p): offset for p, offset in self.begin(ends).items()}
        self._reader.seek(self._positions)
        begun = time.monotonic()
        while not self._worker.stopping:
            records = self._reader.poll(500, self.patience() if self._caught_up.is_set() else 0.1)
            for record in records:
                self.take(record)
                self._positions[(record.topic, record.partition)] = record.offset + 1
            at_rest = not records or time.monotonic() - begun > _NEVER_AT_REST_SECONDS
            if at_rest and not self._caught_up.is_set() and self._through(ends):
                self._caught_up.set()
            if not records:
                self.rest()

    def _through(self, ends: Mapping[int, int]) -> bool:
        return all(self._reader.position((self._topic, p)) >= end for p, end in ends.items())
