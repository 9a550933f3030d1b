"""Kafka through kafka-python: group members, producers, group-less readers and topic administration."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import IllegalStateError, KafkaError, TopicAlreadyExistsError, for_code
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.structs import OffsetAndMetadata

from driftline.adapters.kafka_errors import LOST_MEMBERSHIP, TOO_LARGE, UNKNOWN_TOPIC, unavailable
from driftline.adapters.kafka_lease import Lease
from driftline.adapters.kafka_wire import read_any_header_keys
from driftline.core.errors import ConfigError, Fenced, RecordTooLarge
from driftline.core.records import Incoming, Outgoing
from driftline.core.settings import KafkaSettings, read_secret
from driftline.core.topics import DEAD_LETTERS

log = logging.getLogger(__name__)
_LONGEST_BACKOFF_MS = 2_000

read_any_header_keys()


class RebalanceListener(Protocol):
    def on_revoked(self) -> None: ...
    def on_lost(self) -> None: ...
    def on_assigned(self, partitions: int) -> None: ...


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """Connection settings that every kafka-python client takes. Raises ConfigError.

    Read in constructors, so that a wrong secret ends the start and not the thread that connects first.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "security_protocol": settings.security_protocol,
        "client_id": "driftline",
        # By default a client waits up to 30 s before it tries a broker again: after an outage of half a minute that is
        # how much longer it lasts. With this everything goes on within some seconds of its end.
        "reconnect_backoff_max_ms": _LONGEST_BACKOFF_MS,
    }
    if settings.ssl_cafile is not None:
        config["ssl_cafile"] = str(settings.ssl_cafile)
        try:
            ssl.create_default_context(cafile=settings.ssl_cafile)
        except OSError as error:
            raise ConfigError(f"kafka.ssl_cafile {settings.ssl_cafile}: {error.strerror or error}") from error
    if settings.security_protocol.startswith("SASL"):
        password = read_secret(settings.sasl_password_file, "kafka.sasl_password_file")
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else "",
        }
    return config


def _incoming(record: Any, prefix: str) -> Incoming:
    return Incoming(
        record.topic.removeprefix(prefix),
        record.partition,
        record.offset,
        record.key or b"",
        record.value,
        tuple((k, v or b"") for k, v in record.headers),
    )


class KafkaPublisher:
    """An idempotent producer with acks=all. Thread-safe; a failed one is replaced."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises ConfigError; connects with the first record."""
        self._settings = settings
        self._config = client_config(settings)
        self._lock = threading.Lock()
        self._producer: Any = None

    def _current(self) -> Any:
        with self._lock:
            if self._producer is None:
                self._producer = KafkaProducer(
                    **self._config,
                    acks="all",
                    enable_idempotence=True,
                    # Not flushed either: a flush waits for everybody's records, of partitions that have no leader too.
                    linger_ms=0,
                    batch_size=256 * 1024,
                    max_request_size=self._settings.letter_bytes,
                    compression_type=None if self._settings.compression == "none" else self._settings.compression,
                    delivery_timeout_ms=30_000,
                    request_timeout_ms=10_000,
                )
            return self._producer

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        deadline = time.monotonic() + timeout_seconds
        prefix = self._settings.topic_prefix
        # All of them before any is sent: what the client itself refuses leaves nothing half done.
        for index, record in enumerate(records):
            self._check_size(index, record)
        producer: Any = None
        try:
            producer = self._current()
            futures = [
                producer.send(
                    prefix + r.topic, key=r.key, value=r.value, partition=r.partition, headers=list(r.headers)
                )
                for r in records
            ]
            placed = [self._placed(i, f, deadline) for i, f in enumerate(futures)]
        except RecordTooLarge:
            # The broker's refusal left a gap in the producer's sequence.
            self._discard(producer)
            raise
        except KafkaError as error:
            self._discard(producer)
            raise unavailable(error) from error
        return [(p.partition, p.offset) for p in placed]

    def _check_size(self, index: int, record: Outgoing) -> None:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers))
        settings = self._settings
        # A dead letter holds a record that may be as large as the limit.
        largest = settings.letter_bytes if record.topic == DEAD_LETTERS.name else settings.max_request_bytes
        if size > largest:
            raise RecordTooLarge(
                index,
                f"{size} bytes for topic {record.topic!r}, over {largest} (kafka.max_request_bytes)",
            )

    @staticmethod
    def _placed(index: int, future: Any, deadline: float) -> Any:
        """kafka-python cuts a batch that a broker refuses into single records before it gives one of them up."""
        try:
            return future.get(timeout=max(0.01, deadline - time.monotonic()))
        except TOO_LARGE as error:
            raise RecordTooLarge(index, f"the broker refuses it: {error}") from error

    def _discard(self, producer: Any) -> None:
        """A producer that failed once may be in a fatal state, and may still hold records: start afresh."""
        with self._lock:
            if producer is None or self._producer is not producer:
                return
            self._producer = None
        _end(producer, 0)

    def close(self) -> None:
        with self._lock:
            if self._producer is not None:
                _end(self._producer, 5)
                self._producer = None


def _end(producer: Any, timeout_seconds: float) -> None:
    """Close a producer, and drop what it could not send in that time.

    kafka-python flushes before it closes, and where the flush does not end in time it raises and closes nothing: the
    producer's thread would live on and send its records when the broker is back, after they were published anew.
    """
    try:
        producer.close(timeout=timeout_seconds)
    except KafkaError as error:
        log.warning("records are dropped with their producer", extra={"error": str(error)})
        producer._sender.force_close()
        # It fails what it still holds, which takes no answer of a broker; then there is nothing left to flush.
        producer._sender.join(5)
        with contextlib.suppress(KafkaError):
            producer.close(timeout=0)


class KafkaSubscriber:
    """A group member. Offsets are committed by hand; a rebalance calls the listener inside `poll`."""

    def __init__(self, settings: KafkaSettings, group: str, topics: Sequence[str], prefix: str | None = None) -> None:
        """`prefix` replaces the setting's: sources read topics by their full names."""
        self._settings = settings
        self._prefix = settings.topic_prefix if prefix is None else prefix
        self._topics = topics
        self._paused = False
        self._lease = Lease(settings.session_timeout_ms / 1000)
        try:
            self._consumer = KafkaConsumer(
                **client_config(settings),
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=settings.heartbeat_interval_ms,
                max_poll_records=20_000,
                fetch_max_wait_ms=settings.fetch_wait_ms,
                fetch_min_bytes=1,
                max_partition_fetch_bytes=2_000_000,
                isolation_level="read_committed",
                # A group's leader that does not know a topic yet when it assigns leaves its partitions to nobody, and
                # looks again with the next metadata: by default five minutes later.
                metadata_max_age_ms=10_000,
            )
        except KafkaError as error:
            raise unavailable(error) from error
        self._watch_heartbeats()
        self._finish_joins()

    def subscribe(self, listener: RebalanceListener) -> None:
        """Join the group with the next poll."""
        self._consumer.subscribe([self._prefix + t for t in self._topics], listener=self._rebalance_listener(listener))

    def _watch_heartbeats(self) -> None:
        """Note when each acknowledged heartbeat was *sent*: from then on the broker's session runs anew.

        Receiving is not enough: an answer that was waiting while the process was frozen is read afterwards.
        kafka-python offers no public hook, so its heartbeat object's method is extended.
        """
        heartbeat = self._consumer._coordinator.heartbeat
        received = heartbeat.received_heartbeat

        def received_heartbeat() -> None:
            self._lease.renew(heartbeat.last_send)
            received()

        heartbeat.received_heartbeat = received_heartbeat

    def _finish_joins(self) -> None:
        """Have a join that has begun go on in the next polls until it is done.

        kafka-python 3.0.12 asks itself in each poll whether to join. Where it began because metadata changed, the
        answer to JoinGroup notes the new metadata as seen: if a poll ends in between, the next ones find nothing to
        do, and the member stays without partitions and heartbeats for good, at 100 % of a core.
        """
        coordinator = self._consumer._coordinator
        needed = coordinator.need_rejoin
        coordinator.need_rejoin = lambda: coordinator.rejoining or needed()

    def _rebalance_listener(self, listener: RebalanceListener) -> Any:
        subscriber = self

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
            def on_partitions_revoked(self, revoked: Any) -> None:
                if revoked:
                    listener.on_revoked()

            def on_partitions_lost(self, lost: Any) -> None:
                if lost:
                    listener.on_lost()

            def on_partitions_assigned(self, assigned: Any) -> None:
                subscriber._lease.renew(time.monotonic())
                if subscriber._paused and assigned:
                    subscriber._consumer.pause(*assigned)
                listener.on_assigned(len(assigned))

        return Listener()

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_seconds * 1000), max_records=max_records)
        except KafkaError as error:
            raise unavailable(error) from error
        return [_incoming(record, self._prefix) for records in polled.values() for record in records]

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        wanted = {
            TopicPartition(self._prefix + topic, partition): OffsetAndMetadata(offset, "", -1)
            for (topic, partition), offset in offsets.items()
        }
        try:
            self._consumer.commit(wanted, timeout_ms=10_000)
        except LOST_MEMBERSHIP as error:
            raise Fenced(f"{type(error).__name__}: {error}") from error
        except KafkaError as error:
            raise unavailable(error) from error

    def rewind(self, offsets: Mapping[tuple[str, int], int]) -> None:
        assigned = self._consumer.assignment()
        for (topic, partition), offset in offsets.items():
            tp = TopicPartition(self._prefix + topic, partition)
            if tp in assigned:
                try:
                    self._consumer.seek(tp, offset)
                except (IllegalStateError, AssertionError):
                    # Revoked between the two calls: its next owner starts from the committed offset.
                    log.info("partition went away while rewinding", extra={"partition": partition})

    def pause(self) -> None:
        self._paused = True
        if assigned := self._consumer.assignment():
            self._consumer.pause(*assigned)

    def resume(self) -> None:
        self._paused = False
        if assigned := self._consumer.assignment():
            self._consumer.resume(*assigned)

    def lease_seconds(self) -> float:
        return self._lease.remaining()

    def lag(self) -> Mapping[tuple[str, int], int]:
        behind: dict[tuple[str, int], int] = {}
        for tp in self._consumer.assignment():
            end = self._consumer.highwater(tp)
            if end is not None:
                position = self._consumer.position(tp, timeout_ms=1_000)
                if position is not None:
                    behind[(tp.topic.removeprefix(self._prefix), tp.partition)] = max(0, end - position)
        return behind

    def close(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=5_000)


class KafkaLogReader:
    """Reads topics from chosen offsets, outside any group."""

    def __init__(self, settings: KafkaSettings, fetch_wait_ms: int | None = None) -> None:
        """Raises ConfigError; connects with the first call."""
        self._config = client_config(settings)
        self._fetch_wait_ms = fetch_wait_ms or settings.fetch_wait_ms
        self._prefix = settings.topic_prefix
        self._consumer: Any = None

    def _current(self) -> Any:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **self._config,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=self._fetch_wait_ms,
                max_partition_fetch_bytes=4_000_000,
                isolation_level="read_committed",
            )
        return self._consumer

    def _guarded(self, call: Callable[[Any], Any]) -> Any:
        try:
            return call(self._current())
        except (KafkaError, AssertionError) as error:
            self.close()
            raise unavailable(error) from error

    def ends(self, topic: str) -> Mapping[int, int]:
        name = self._prefix + topic

        def read(consumer: Any) -> dict[int, int]:
            partitions = consumer.partitions_for_topic(name)
            if not partitions:
                raise KafkaError(f"topic {name} does not exist")
            ends = consumer.end_offsets([TopicPartition(name, p) for p in partitions])
            return {tp.partition: end for tp, end in ends.items()}

        result: dict[int, int] = self._guarded(read)
        return result

    def seek(self, positions: Mapping[tuple[str, int], int]) -> None:
        def move(consumer: Any) -> None:
            wanted = {TopicPartition(self._prefix + t, p): offset for (t, p), offset in positions.items()}
            consumer.assign(list(wanted))
            for tp, offset in wanted.items():
                consumer.seek(tp, offset)

        self._guarded(move)

    def position(self, partition: tuple[str, int]) -> int:
        topic, number = partition
        # It asks the broker where an offset that is gone leaves off, and knows nothing until that is answered.
        offset: int | None = self._guarded(
            lambda c: c.position(TopicPartition(self._prefix + topic, number), timeout_ms=1_000)
        )
        return -1 if offset is None else offset

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        polled = self._guarded(lambda c: c.poll(timeout_ms=int(timeout_seconds * 1000), max_records=max_records))
        return [_incoming(record, self._prefix) for records in polled.values() for record in records]

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


class KafkaTopicAdmin:
    def __init__(self, settings: KafkaSettings) -> None:
        self._prefix = settings.topic_prefix
        try:
            self._client = KafkaAdminClient(**client_config(settings))
        except KafkaError as error:
            raise unavailable(error) from error

    def describe(self, topic: str) -> tuple[str, int] | None:
        try:
            found = self._client.describe_topics([self._prefix + topic])
        except UNKNOWN_TOPIC:
            return None
        except KafkaError as error:
            raise unavailable(error) from error
        if not found:
            return None
        if code := found[0]["error_code"]:
            kind = for_code(code)
            if issubclass(kind, UNKNOWN_TOPIC):
                return None
            raise unavailable(kind(f"topic {topic!r}"))
        return str(found[0].get("topic_id") or ""), len(found[0]["partitions"])

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, str]) -> None:
        wanted = NewTopic(self._prefix + topic, partitions, replicas, topic_configs=dict(config))
        try:
            self._client.create_topics([wanted], timeout_ms=20_000)
        except TopicAlreadyExistsError:
            return
        except KafkaError as error:
            raise unavailable(error) from error

    def config(self, topic: str) -> Mapping[str, str]:
        try:
            found = self._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, self._prefix + topic)])
        except KafkaError as error:
            raise unavailable(error) from error
        entries = found.get("topic", {}).get(self._prefix + topic, {})
        return {name: str(e["value"]) if isinstance(e, dict) else str(e) for name, e in entries.items()}

    def close(self) -> None:
        self._client.close()
