"""One suite for both logs: memory and the Kafka broker of the stack."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber, KafkaTopicAdmin
from driftline.adapters.memory import (
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemorySubscriber,
    MemoryTopicAdmin,
)
from driftline.core.ports import LogReader, Publisher, Subscriber, TopicAdmin
from driftline.core.provision import ensure_topics, incarnations, register_changes
from driftline.core.records import Incoming, Outgoing
from driftline.core.settings import KafkaSettings
from driftline.core.topics import TOPICS
from tests.conftest import FULL

pytestmark = pytest.mark.brokers


class Listener:
    def __init__(self, when_revoked: Callable[[], None] = lambda: None) -> None:
        self.assigned = 0
        self.revoked = 0
        self.when_revoked = when_revoked

    def on_revoked(self) -> None:
        self.revoked += 1
        self.when_revoked()

    def on_lost(self) -> None:
        self.revoked += 1

    def on_assigned(self, partitions: int) -> None:
        self.assigned = partitions


@dataclass
class Broker:
    publisher: Publisher
    reader: LogReader
    admin: TopicAdmin
    subscribe: Callable[[str, str], Subscriber]
    topic: str
    partitions: int


@pytest.fixture(params=["memory", "kafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    topic = f"t{uuid.uuid4().hex[:8]}"
    if request.param == "memory":
        log, admin = MemoryLog(3), MemoryTopicAdmin()
        admin.create(topic, 3, 1, {})
        yield Broker(
            MemoryPublisher(log), MemoryLogReader(log), admin, lambda t, g: MemorySubscriber(log, g, [t]), topic, 3
        )
        return
    settings: KafkaSettings = request.getfixturevalue("kafka_settings")
    kafka_admin = KafkaTopicAdmin(settings)
    kafka_admin.create(topic, 3, 1, {})
    publisher, reader = KafkaPublisher(settings), KafkaLogReader(settings)
    members: list[KafkaSubscriber] = []

    def subscribe(name: str, group: str) -> Subscriber:
        member = KafkaSubscriber(settings, group, [name])
        member.subscribe(Listener())
        members.append(member)
        return member

    yield Broker(publisher, reader, kafka_admin, subscribe, topic, 3)
    for member in members:
        member.close()
    publisher.close()
    reader.close()
    kafka_admin.close()


def collect(poll: Callable[[int, float], list[Incoming]], count: int, seconds: float = 30) -> list[Incoming]:
    found: list[Incoming] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += poll(100, 0.2)
    return found


def records(topic: str, *values: bytes, partition: int | None = 0) -> list[Outgoing]:
    return [Outgoing(topic, b"k", v, partition, (("h", b"x"),)) for v in values]


def test_published_records_come_back_in_order_with_their_places(broker: Broker) -> None:
    placed = broker.publisher.publish(records(broker.topic, b"1", b"2", b"3", partition=1))
    assert placed == [(1, 0), (1, 1), (1, 2)]
    broker.reader.seek({(broker.topic, 1): 0})
    found = collect(broker.reader.poll, 3)
    assert [(r.topic, r.partition, r.offset, r.key, r.value) for r in found] == [
        (broker.topic, 1, i, b"k", b"%d" % (i + 1)) for i in range(3)
    ]
    assert found[0].headers == (("h", b"x"),)


def test_one_key_stays_on_one_partition(broker: Broker) -> None:
    placed = broker.publisher.publish([Outgoing(broker.topic, b"same", b"v") for _ in range(5)])
    assert len({partition for partition, _ in placed}) == 1


def test_a_null_value_is_a_tombstone(broker: Broker) -> None:
    broker.publisher.publish([Outgoing(broker.topic, b"k", None, 0)])
    broker.reader.seek({(broker.topic, 0): 0})
    assert collect(broker.reader.poll, 1)[0].value is None


def test_reading_from_an_offset_and_to_the_end(broker: Broker) -> None:
    broker.publisher.publish(records(broker.topic, b"1", b"2", b"3"))
    ends = broker.reader.ends(broker.topic)
    # The embedded broker tells where the last *batch* begins: too small, as the port allows, never too large.
    exact = isinstance(broker.reader, MemoryLogReader) or FULL
    assert (ends[0] == 3 if exact else 1 <= ends[0] <= 3) and ends[1] == ends[2] == 0
    broker.reader.seek({(broker.topic, 0): 2})
    assert [r.value for r in collect(broker.reader.poll, 1)] == [b"3"]


def test_a_group_goes_on_from_its_commit(broker: Broker) -> None:
    broker.publisher.publish(records(broker.topic, b"1", b"2", b"3"))
    group = uuid.uuid4().hex
    first = broker.subscribe(broker.topic, group)
    assert len(collect(first.poll, 3)) == 3
    first.commit({(broker.topic, 0): 2})
    first.close()
    second = broker.subscribe(broker.topic, group)
    assert [r.value for r in collect(second.poll, 1)] == [b"3"]


def test_rewound_records_come_again(broker: Broker) -> None:
    broker.publisher.publish(records(broker.topic, b"1", b"2", b"3"))
    member = broker.subscribe(broker.topic, uuid.uuid4().hex)
    assert len(collect(member.poll, 3)) == 3
    member.rewind({(broker.topic, 0): 1})
    assert [r.value for r in collect(member.poll, 2)] == [b"2", b"3"]


def test_a_partition_that_stays_is_read_from_where_the_callback_rewound_it(kafka_settings: KafkaSettings) -> None:
    """kafka-python keeps the position of a partition that a rebalance gives back to the same member."""
    topic, group = f"t{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    admin, publisher = KafkaTopicAdmin(kafka_settings), KafkaPublisher(kafka_settings)
    admin.create(topic, 3, 1, {})
    for partition in range(3):
        publisher.publish(records(topic, b"1", b"2", b"3", partition=partition))
    first = KafkaSubscriber(kafka_settings, group, [topic])
    second = KafkaSubscriber(kafka_settings, group, [topic])
    listener = Listener(lambda: first.rewind({(topic, p): 1 for p in range(3)}))
    first.subscribe(listener)
    assert len(collect(first.poll, 9)) == 9
    second.subscribe(Listener())
    read: dict[int, dict[str, list[bytes | None]]] = {p: {"first": [], "second": []} for p in range(3)}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not all(b"3" in by["first"] + by["second"] for by in read.values()):
        for name, member in (("first", first), ("second", second)):
            for record in member.poll(100, 0.05):
                read[record.partition][name].append(record.value)
    assert listener.revoked
    # A partition that stays is read from 1; one that goes from its committed offset, which is 0.
    for by in read.values():
        assert by["first"][-2:] == [b"2", b"3"] or by["second"][-3:] == [b"1", b"2", b"3"], read
    assert any(by["first"] for by in read.values()), read
    first.close()
    second.close()
    publisher.close()
    admin.close()


def test_a_group_that_came_before_its_topic_gets_the_partitions(kafka_settings: KafkaSettings) -> None:
    """Polled so briefly that every poll ends in the middle of a join: kafka-python 3.0.12 forgets a join that new
    metadata began, and stays without partitions and heartbeats for good. Only real brokers have rebalances."""
    topic = f"t{uuid.uuid4().hex[:8]}"
    admin = KafkaTopicAdmin(kafka_settings)
    member = KafkaSubscriber(kafka_settings, f"g-{topic}", [topic])
    listener = Listener()
    listener.assigned = -1
    member.subscribe(listener)
    try:
        poll_until(lambda: listener.assigned >= 0, member, 0.002)
        # The embedded broker makes a topic as soon as it is asked for one.
        assert FULL is (listener.assigned == 0)
        admin.create(topic, 3, 1, {})
        poll_until(lambda: listener.assigned > 0, member, 0.002)
        settled = time.monotonic() + 3 * kafka_settings.heartbeat_interval_ms / 1000
        poll_until(lambda: time.monotonic() > settled, member, 0.1)
        assert member.lease_seconds() > kafka_settings.session_timeout_ms / 1000 - 2
    finally:
        member.close()
        admin.close()


def poll_until(done: Callable[[], bool], member: KafkaSubscriber, each: float) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "not within 30 s"
        member.poll(10, each)


def test_a_paused_member_gets_nothing_and_stays_a_member(broker: Broker) -> None:
    member = broker.subscribe(broker.topic, uuid.uuid4().hex)
    broker.publisher.publish(records(broker.topic, b"1"))
    assert len(collect(member.poll, 1)) == 1
    member.pause()
    broker.publisher.publish(records(broker.topic, b"2"))
    assert collect(member.poll, 1, seconds=1) == []
    assert member.lease_seconds() > 0
    member.resume()
    assert [r.value for r in collect(member.poll, 1)] == [b"2"]


def test_admin_creates_once_and_describes(broker: Broker) -> None:
    name = f"t{uuid.uuid4().hex[:8]}"
    assert broker.admin.describe(name) is None
    broker.admin.create(name, 2, 1, {"cleanup.policy": "compact"})
    broker.admin.create(name, 2, 1, {"cleanup.policy": "compact"})
    found = broker.admin.describe(name)
    assert found is not None
    assert found[1] == 2
    assert found[0]


def test_provisioning_is_idempotent_and_keeps_the_logs_base(broker: Broker) -> None:
    settings = KafkaSettings(partitions=3)
    first = ensure_topics(broker.admin, settings)
    assert {r.topic for r in first} == {t.name for t in TOPICS}
    assert all(not r.created and not r.problems for r in ensure_topics(broker.admin, settings))
    log = register_changes(broker.admin, broker.reader, broker.publisher)
    assert register_changes(broker.admin, broker.reader, broker.publisher) == log
    assert incarnations(broker.reader)["changes"] == log
    wrong = ensure_topics(broker.admin, KafkaSettings(partitions=5))
    assert any("3 partitions" in problem for r in wrong for problem in r.problems)
