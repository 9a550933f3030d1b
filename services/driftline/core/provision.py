"""Making the topics, and checking those that exist."""

from __future__ import annotations

from dataclasses import dataclass

from driftline.core import control_codec
from driftline.core.control import log_record
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.follow import read_to_end
from driftline.core.ports import LogReader, Publisher, TopicAdmin
from driftline.core.records import Clock, LogIncarnation, now_us
from driftline.core.settings import KafkaSettings
from driftline.core.topics import CHANGES, CONTROL, DEAD_LETTERS, TOPICS, Topic

# More than any partition of a log's former life held: 1,000 events a second for three years.
_EVENTS_OF_A_LIFE = 10**11


@dataclass(frozen=True, slots=True)
class TopicReport:
    topic: str
    partitions: int
    created: bool
    problems: tuple[str, ...]


def config_of(topic: Topic, settings: KafkaSettings) -> dict[str, str]:
    largest = settings.letter_bytes if topic is DEAD_LETTERS else settings.max_request_bytes
    return {**topic.config, "max.message.bytes": str(largest)}


def ensure_topics(admin: TopicAdmin, settings: KafkaSettings) -> list[TopicReport]:
    """Create the topics that are missing and verify the others. Idempotent."""
    return [_ensure(admin, topic, settings) for topic in TOPICS]


def _ensure(admin: TopicAdmin, topic: Topic, settings: KafkaSettings) -> TopicReport:
    wanted = topic.partitions or settings.partitions
    found = admin.describe(topic.name)
    if found is None:
        admin.create(topic.name, wanted, settings.replicas, config_of(topic, settings))
        return TopicReport(topic.name, wanted, True, ())
    problems = []
    if found[1] != wanted:
        problems.append(
            f"has {found[1]} partitions, the settings say {wanted}: set kafka.partitions to {found[1]}, "
            "or move to new topics (another kafka.topic_prefix); a document must stay on its partition"
        )
    # A broker that does not report configurations (the embedded one) leaves nothing to compare.
    actual = admin.config(topic.name)
    for name, value in config_of(topic, settings).items():
        if name in actual and actual[name] != value:
            problems.append(f"{name} is {actual[name]}, expected {value}")
    return TopicReport(topic.name, found[1], False, tuple(problems))


def register_log(
    topic: str, topic_id: str, reader: LogReader, publisher: Publisher, clock: Clock = now_us
) -> LogIncarnation:
    """Note a log's life in the control topic: the same topic id keeps its base, a new one outranks the old."""
    known = incarnations(reader).get(topic)
    if known is not None and known.topic_id == topic_id:
        return known
    # The clock alone would do, were it right: one that is behind must not place this life among the former's versions.
    base = max(clock(), known.base_version + _EVENTS_OF_A_LIFE if known else 0)
    incarnation = LogIncarnation(topic, topic_id, base)
    publisher.publish([log_record(incarnation)])
    return incarnation


def register_changes(admin: TopicAdmin, reader: LogReader, publisher: Publisher) -> LogIncarnation:
    """Register `changes`; call after `ensure_topics`. Raises Unavailable when the topic is not there."""
    found = admin.describe(CHANGES.name)
    if found is None:
        raise Unavailable("kafka", f"topic {CHANGES.name!r} does not exist")
    return register_log(CHANGES.name, found[0], reader, publisher)


def incarnations(reader: LogReader) -> dict[str, LogIncarnation]:
    """The newest record of every log, by its topic, by reading the control topic once."""
    newest: dict[str, LogIncarnation] = {}
    for record in read_to_end(reader, CONTROL.name):
        try:
            decoded = control_codec.decode_control(record.value)
        except InvalidRecord:
            continue
        if isinstance(decoded, LogIncarnation):
            newest[decoded.topic] = decoded
    return newest
