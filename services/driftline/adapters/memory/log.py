"""The log: topics as lists, with a publisher, a subscriber, a reader and an administrator of them."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from driftline.core.errors import Fenced, RecordTooLarge, Unavailable
from driftline.core.records import Incoming, Outgoing, now_us
from driftline.core.topics import DEAD_LETTERS, LETTER_ROOM


class MemoryLog:
    """Topics as lists. Share one between publishers, subscribers and readers."""

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.records: dict[tuple[str, int], list[Incoming]] = defaultdict(list)
        self.committed: dict[tuple[str, str, int], int] = {}
        self.lock = threading.Lock()

    def append(self, record: Outgoing) -> tuple[int, int]:
        with self.lock:
            partition = record.partition
            if partition is None:
                partition = int.from_bytes(hashlib.blake2b(record.key, digest_size=4).digest()) % self.partitions
            entries = self.records[(record.topic, partition)]
            offset = len(entries)
            entries.append(
                Incoming(
                    record.topic,
                    partition,
                    offset,
                    record.key,
                    record.value,
                    record.headers,
                )
            )
            return partition, offset

    def all(self, topic: str) -> list[Incoming]:
        """Every record of a topic, in order per partition."""
        with self.lock:
            return [r for (name, _), entries in sorted(self.records.items()) if name == topic for r in entries]


class MemoryPublisher:
    """`max_record_bytes` bounds a record, and tests set `failing` to what every call raises."""

    def __init__(self, log: MemoryLog, max_record_bytes: int = 8_000_000) -> None:
        self._log = log
        self._max_record_bytes = max_record_bytes
        self.failing: Unavailable | None = None

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        del timeout_seconds
        if self.failing is not None:
            raise self.failing
        for index, record in enumerate(records):
            size = record.size()
            room = LETTER_ROOM if record.topic == DEAD_LETTERS.name else 0
            if size > self._max_record_bytes + room:
                raise RecordTooLarge(index, f"{size} bytes, over the limit of {self._max_record_bytes}")
        return [self._log.append(record) for record in records]

    def close(self) -> None:
        return


class MemorySubscriber:
    """The only member of its group: owns every partition from its first poll."""

    def __init__(self, log: MemoryLog, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._group = group
        self._topics = set(topics)
        self._positions: dict[tuple[str, int], int] = {}
        self._paused = False
        self.lease = 10.0
        self.fenced = False

    def _owned(self) -> list[tuple[str, int]]:
        return sorted(tp for tp in list(self._log.records) if tp[0] in self._topics)

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        polled: list[Incoming] = []
        if not self._paused:
            with self._log.lock:
                for tp in self._owned():
                    position = self._positions.setdefault(tp, self._log.committed.get((self._group, *tp), 0))
                    taken = self._log.records[tp][position : position + max_records - len(polled)]
                    self._positions[tp] = position + len(taken)
                    polled += taken
        if not polled:
            time.sleep(min(timeout_seconds, 0.002))  # a moment, however long a test lets it wait
        return polled

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if self.fenced:
            raise Fenced("the group has moved on")
        for tp, offset in offsets.items():
            self._log.committed[(self._group, *tp)] = offset

    def rewind(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._positions.update(offsets)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lease_seconds(self) -> float:
        return self.lease

    def lag(self) -> Mapping[tuple[str, int], int]:
        return {tp: len(self._log.records[tp]) - self._positions.get(tp, 0) for tp in self._owned()}

    def close(self) -> None:
        return


class MemoryLogReader:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[tuple[str, int], int] = {}

    def ends(self, topic: str) -> Mapping[int, int]:
        with self._log.lock:
            return {p: len(self._log.records[(topic, p)]) for p in range(self._log.partitions)}

    def seek(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def position(self, partition: tuple[str, int]) -> int:
        return self._positions[partition]

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        polled: list[Incoming] = []
        with self._log.lock:
            for tp, position in self._positions.items():
                taken = self._log.records[tp][position : position + max_records - len(polled)]
                self._positions[tp] = position + len(taken)
                polled += taken
        if not polled:
            time.sleep(min(timeout_seconds, 0.002))  # a moment, however long a test lets it wait
        return polled

    def close(self) -> None:
        return


class MemoryTopicAdmin:
    def __init__(self) -> None:
        self.topics: dict[str, tuple[str, int, dict[str, str]]] = {}

    def describe(self, topic: str) -> tuple[str, int] | None:
        found = self.topics.get(topic)
        return None if found is None else found[:2]

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, str]) -> None:
        del replicas
        self.topics.setdefault(topic, (f"id-{topic}-{now_us()}", partitions, dict(config)))

    def config(self, topic: str) -> Mapping[str, str]:
        return self.topics[topic][2]

    def close(self) -> None:
        return
