"""One suite for both logs: memory and the Kafka broker of the stack."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaProducer

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber, KafkaTopicAdmin
from driftline.adapters.memory import (
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemorySubscriber,
    MemoryTopicAdmin,
)
from driftline.core.errors import RecordTooLarge
from driftline.core.follow import read_to_end
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


def test_a_record_that_is_too_large_is_named_and_nothing_is_appended(broker: Broker) -> None:
    """It was taken for an outage: whoever had to publish it tried for ever."""
    with pytest.raises(RecordTooLarge, match=r"9000\d+ bytes") as caught:
        broker.publisher.publish(records(broker.topic, b"1", b"2" * 9_000_000, b"3"))
    assert (caught.value.index, caught.value.reason) == (1, "record_too_large")
    assert set(broker.reader.ends(broker.topic).values()) == {0}
    assert broker.publisher.publish(records(broker.topic, b"1")) == [(0, 0)]


def test_a_record_that_the_broker_finds_too_large_is_named(kafka_settings: KafkaSettings) -> None:
    topic = f"t{uuid.uuid4().hex[:8]}"
    admin, publisher = KafkaTopicAdmin(kafka_settings), KafkaPublisher(kafka_settings)
    admin.create(topic, 1, 1, {"max.message.bytes": "2000"})
    batch = records(topic, b"1" * 500, b"2" * 5_000, b"3" * 500)
    if FULL:
        with pytest.raises(RecordTooLarge, match="broker") as caught:
            publisher.publish(batch)
        assert caught.value.index == 1
    else:
        assert len(publisher.publish(batch)) == 3, "the embedded broker knows no limit"
    assert publisher.publish(records(topic, b"4"))
    publisher.close()
    admin.close()


class RawKey(str):
    """A header key that is sent as Latin-1, which kafka-python's own producer would not do."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return super().encode("latin-1")


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_what_any_producer_sends_is_read_in_whole_and_in_order(
    kafka_settings: KafkaSettings, compression: str | None
) -> None:
    """A header key that is not UTF-8 raised out of every poll, for good; without its library so did a compression."""
    topic = f"t{uuid.uuid4().hex[:8]}"
    admin = KafkaTopicAdmin(kafka_settings)
    admin.create(topic, 3, 1, {})
    producer = KafkaProducer(bootstrap_servers=kafka_settings.bootstrap_servers, compression_type=compression)
    sent: list[tuple[bytes, str]] = [(b"plain " * 100, "k"), (b"bad", RawKey("caf\xe9")), (b"after", "k")]
    for value, header in sent:
        producer.send(f"contract.{topic}", value, b"k", [(header, b"x")], 0)
    producer.flush(20)
    producer.close()
    member = KafkaSubscriber(kafka_settings, uuid.uuid4().hex, [topic])
    member.subscribe(Listener())
    reader, publisher = KafkaLogReader(kafka_settings), KafkaPublisher(kafka_settings)
    reader.seek({(topic, 0): 0})
    for found in (collect(member.poll, 3), collect(reader.poll, 3)):
        assert [(r.value, r.headers) for r in found] == [
            (b"plain " * 100, (("k", b"x"),)),
            (b"bad", (("caf\\xe9", b"x"),)),
            (b"after", (("k", b"x"),)),
        ]
    # As a dead letter or a replay would: the keys as they were read can be sent.
    publisher.publish([Outgoing(topic, b"k", b"again", 0, found[1].headers)])
    for client in (member, reader, publisher, admin):
        client.close()


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
    assert broker.reader.position((broker.topic, 0)) == 2
    assert [r.value for r in collect(broker.reader.poll, 1)] == [b"3"]
    assert broker.reader.position((broker.topic, 0)) == 3
    assert [r.value for r in read_to_end(broker.reader, broker.topic)] == [b"1", b"2", b"3"]


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


def standing(member: KafkaSubscriber) -> dict[str, Any]:
    """Of a group's member, for the message of a failure: what it is assigned, where it stands, and how it is joined."""
    consumer = member._consumer
    state, coordinator = consumer._subscription, consumer._coordinator
    return {
        "assigned": {tp.partition: str(state.assignment[tp].position) for tp in consumer.assignment()},
        "group": (str(coordinator.state), coordinator.rejoining, coordinator.need_rejoin(), coordinator.coordinator_id),
        "generation": str(coordinator.generation_if_stable()),
    }


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
            for record in member.poll(100, 0.1):
                read[record.partition][name].append(record.value)
    assert listener.revoked
    told = {name: standing(member) for name, member in (("first", first), ("second", second))}
    # A partition that stays is read from 1; one that goes from its committed offset, which is 0.
    for by in read.values():
        assert by["first"][-2:] == [b"2", b"3"] or by["second"][-3:] == [b"1", b"2", b"3"], (read, told)
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
