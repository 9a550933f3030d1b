"""Following the compacted `control` topic: which collections, spaces and logs there are, live."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from driftline.core import control_codec, jsons
from driftline.core.collections import Collection, CollectionDefinition, parse_definition
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound, PartlyUnavailable, Unavailable
from driftline.core.follow import Follower
from driftline.core.ports import LogReader, Publisher
from driftline.core.records import (
    CompensationPart,
    Generation,
    Incoming,
    LogIncarnation,
    Outgoing,
    Space,
    StatisticsRecord,
    UpgradeRecord,
)
from driftline.core.topics import CONTROL
from driftline.core.values import shown

log = logging.getLogger(__name__)
# A compensation of 768 x 768 has 2.4 MB; a record must fit the 1 MB that a broker takes by default.
_PART_BYTES = 512 * 1024


def encode_definition(definition: CollectionDefinition) -> str:
    return orjson.dumps(definition.as_given()).decode()


class ControlView:
    """What the control topic says so far. Readers on any thread, one writer: the follower."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._collections: dict[str, Collection] = {}
        self._by_uid: dict[str, Collection] = {}
        self._spaces: dict[str, Space] = {}
        self._logs: dict[str, LogIncarnation] = {}
        self._compensations: dict[str, dict[int, CompensationPart]] = {}
        self._upgrades: dict[str, UpgradeRecord] = {}
        self._statistics: dict[tuple[str, int], bytes] = {}
        self._listeners: list[Callable[[Collection], None]] = []
        self._anew: dict[str, list[Callable[[], None]]] = {}
        self._asked: dict[str, float] = {}
        self._confirmed_at = 0.0

    def on_collection(self, listener: Callable[[Collection], None]) -> None:
        """Call this for every created and deleted collection, on the follower's thread."""
        self._listeners.append(listener)

    def on_log_made_anew(self, topic: str, listener: Callable[[], None]) -> None:
        """Call this when a log's next life is registered, on the follower's thread."""
        self._anew.setdefault(topic, []).append(listener)

    def apply(self, value: bytes | None) -> None:
        """Take one record. One that cannot be read is logged and left out: control never stops the pipeline."""
        try:
            record = control_codec.decode_control(value)
            if isinstance(record, control_codec.CollectionParts):
                self._apply_collection(record)
                return
        except (InvalidRecord, InvalidRequest) as error:
            log.error("unreadable control record", extra={"error": str(error)})
            return
        if isinstance(record, LogIncarnation):
            self._apply_log(record)
            return
        with self._lock:
            if isinstance(record, Space):
                self._spaces[record.fingerprint] = record
            elif isinstance(record, CompensationPart):
                self._compensations.setdefault(record.id, {})[record.part] = record
            elif isinstance(record, StatisticsRecord):
                self._statistics[(record.collection_uid, record.generation)] = record.content
            else:
                self._upgrades[record.collection_uid] = record

    def _apply_log(self, incarnation: LogIncarnation) -> None:
        with self._lock:
            known = self._logs.get(incarnation.topic)
            self._logs[incarnation.topic] = incarnation
        if known is not None and known.topic_id != incarnation.topic_id:
            log.warning("a log was made anew", extra={"topic": incarnation.topic})
            for listener in self._anew.get(incarnation.topic, ()):
                listener()

    def forget(self, key: bytes) -> None:
        """A record was deleted: only what nothing is served by any more is."""
        kind, _, rest = key.decode("utf-8", "replace").partition("/")
        if kind == "compensation":
            with self._lock:
                self._compensations.pop(rest.partition("/")[0], None)
        if kind == "statistics":
            uid, _, generation = rest.partition("/")
            with self._lock:
                self._statistics.pop((uid, int(generation)) if generation.isdecimal() else ("", 0), None)

    def _apply_collection(self, parts: control_codec.CollectionParts) -> None:
        definition = parse_definition(jsons.parse(parts.definition_json, "definition_json"))
        if definition.name != parts.name:
            raise InvalidRecord("undecodable", f"collection {parts.name!r} has the definition of {definition.name!r}")
        if {g.vector_name for g in parts.generations} != set(definition.named_indexes):
            raise InvalidRecord("undecodable", f"collection {parts.name!r}: expected a live generation of every index")
        if set(definition.named_indexes) <= set(parts.unfinished):
            raise InvalidRecord("undecodable", f"collection {parts.name!r}: expected an index that is finished")
        collection = Collection(
            definition=definition,
            uid=parts.uid,
            generations=parts.generations,
            created_at_us=parts.created_at_us,
            deleted=parts.deleted,
            legs=parts.legs,
            next_generation=parts.next_generation,
            retired=parts.retired,
            unfinished=parts.unfinished,
        )
        with self._lock:
            self._by_uid[collection.uid] = collection
            if collection.deleted:
                current = self._collections.get(collection.name)
                if current is not None and current.uid == collection.uid:
                    del self._collections[collection.name]
            else:
                self._collections[collection.name] = collection
        for listener in self._listeners:
            listener(collection)

    def collections(self) -> list[Collection]:
        with self._lock:
            return sorted(self._collections.values(), key=lambda c: c.name)

    def collection(self, name: str) -> Collection:
        """Raises NotFound."""
        with self._lock:
            found = self._collections.get(name)
        if found is None:
            raise NotFound("unknown_collection", f"there is no collection {shown(name)}", "collection")
        return found

    def incarnation(self, name: str, uid: str) -> Collection | None:
        """The collection an event was accepted for: None when it is gone, also when a successor has its name.

        Raises Unavailable while it may only not have been read yet: ingest may know a collection, and accept its
        first document, before this process has read its record.
        """
        with self._lock:
            found = self._by_uid.get(uid) if uid else self._collections.get(name)
            if found is None and uid and not self._surely_unknown(uid):
                raise Unavailable("control", f"collection {name!r} ({uid}) is not known yet", 0.3)
        return None if found is None or found.deleted else found

    def _surely_unknown(self, uid: str) -> bool:
        """Whether everything written before this uid was first asked for has been read since."""
        if len(self._asked) > 10_000:
            self._asked.clear()
        first = self._asked.setdefault(uid, time.monotonic())
        # Half a second more, for brokers that report the end of a topic too small for a moment.
        return self._confirmed_at > first + 0.5

    def asks(self) -> bool:
        """Whether somebody waits for a confirmation."""
        with self._lock:
            return any(first + 0.5 >= self._confirmed_at for first in self._asked.values())

    def confirm(self, at: float) -> None:
        """Everything written before `at`, on the monotonic clock, has been applied."""
        with self._lock:
            self._confirmed_at = max(self._confirmed_at, at)

    def space(self, fingerprint: str) -> Space:
        """Raises PartlyUnavailable until it has been read."""
        with self._lock:
            found = self._spaces.get(fingerprint)
        if found is None:
            raise PartlyUnavailable("control", f"space {fingerprint} is not in the control topic yet")
        return found

    def compensation(self, identity: str) -> bytes:
        """A stored compensation. Raises Unavailable until all of its parts have been read."""
        with self._lock:
            parts = dict(self._compensations.get(identity, {}))
        if not parts or len(parts) < next(iter(parts.values())).parts:
            raise Unavailable("control", f"compensation {identity} is not in the control topic yet")
        return b"".join(parts[i].content for i in sorted(parts))

    def upgrades(self) -> list[UpgradeRecord]:
        """The last state of every collection's upgrade."""
        with self._lock:
            return list(self._upgrades.values())

    def statistics(self, collection_uid: str, generation: int) -> bytes:
        """Of the texts of a lexical index's generation; empty until some are known."""
        with self._lock:
            return self._statistics.get((collection_uid, generation), b"")

    def known_statistics(self) -> list[tuple[str, int]]:
        """The uid of the collection and the number of the generation of all that are known."""
        with self._lock:
            return list(self._statistics)

    def log_base(self, topic: str) -> int:
        """Base of versions assigned from a log. Raises Unavailable until the log is registered."""
        with self._lock:
            found = self._logs.get(topic)
        if found is None:
            raise Unavailable("control", f"topic {topic!r} is not registered: run `driftline topics create`")
        return found.base_version

    def log(self, topic: str) -> LogIncarnation | None:
        with self._lock:
            return self._logs.get(topic)


class ControlFollower(Follower):
    """Feeds a `ControlView` from the topic, for ever, on a thread of its own."""

    def __init__(self, reader: LogReader, view: ControlView) -> None:
        super().__init__(reader, CONTROL.name)
        self._view = view

    @property
    def position(self) -> int:
        """Next offset to read."""
        return self._positions.get((CONTROL.name, 0), 0)

    def wait_for(self, offset: int, timeout_seconds: float) -> None:
        """Return when the record at `offset` was applied. Raises Unavailable."""
        deadline = time.monotonic() + timeout_seconds
        while self.position <= offset:
            if time.monotonic() > deadline:
                raise Unavailable("kafka", "the control topic is read with a delay")
            self._worker.rest(0.01)

    def take(self, record: Incoming) -> None:
        if record.value is None:
            self._view.forget(record.key)
        else:
            self._view.apply(record.value)

    def patience(self) -> float:
        """Only a confirmation waits for an empty poll."""
        return 0.2 if self._view.asks() else 1.0

    def rest(self) -> None:
        if self._view.asks():
            at = time.monotonic()
            if self.position >= self._reader.ends(CONTROL.name).get(0, 0):
                self._view.confirm(at)


def collection_record(collection: Collection) -> Outgoing:
    value = control_codec.encode_collection(
        control_codec.CollectionParts(
            collection.name,
            collection.uid,
            encode_definition(collection.definition),
            collection.generations,
            collection.created_at_us,
            collection.deleted,
            collection.legs,
            collection.next_generation,
            collection.retired,
            collection.unfinished,
        )
    )
    return Outgoing(CONTROL.name, f"collection/{collection.name}".encode(), value, 0)


def compensation_records(identity: str, content: bytes) -> list[Outgoing]:
    """A stored compensation in records that every broker takes."""
    pieces = [content[i : i + _PART_BYTES] for i in range(0, len(content), _PART_BYTES)]
    return [
        Outgoing(
            CONTROL.name, f"compensation/{identity}/{i}".encode(),
            control_codec.encode_compensation(CompensationPart(identity, i, len(pieces), piece)), 0,
        )
        for i, piece in enumerate(pieces)
    ]  # fmt: skip


def forget_compensation(identity: str, content: bytes) -> list[Outgoing]:
    """What deletes a stored compensation from the compacted topic."""
    return [Outgoing(record.topic, record.key, None, 0) for record in compensation_records(identity, content)]


def upgrade_record(upgrade: UpgradeRecord) -> Outgoing:
    key = f"upgrade/{upgrade.collection_uid}".encode()
    return Outgoing(CONTROL.name, key, control_codec.encode_upgrade(upgrade), 0)


def statistics_record(collection_uid: str, generation: int, content: bytes | None) -> Outgoing:
    """None: nothing is to be known any more."""
    value = None
    if content is not None:
        value = control_codec.encode_statistics(StatisticsRecord(collection_uid, generation, content))
    return Outgoing(CONTROL.name, f"statistics/{collection_uid}/{generation}".encode(), value, 0)


def space_record(space: Space) -> Outgoing:
    return Outgoing(CONTROL.name, f"space/{space.fingerprint}".encode(), control_codec.encode_space(space), 0)


def log_record(incarnation: LogIncarnation) -> Outgoing:
    return Outgoing(CONTROL.name, f"log/{incarnation.topic}".encode(), control_codec.encode_log(incarnation), 0)


class ControlWriter:
    """Writes to the control topic and returns once this process has read its own record back."""

    def __init__(self, publisher: Publisher, follower: ControlFollower) -> None:
        self._publisher = publisher
        self._follower = follower

    def write(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> None:
        placed = self._publisher.publish(records, timeout_seconds)
        self._follower.wait_for(max(offset for _, offset in placed), timeout_seconds)


def store_name(prefix: str, name: str, uid: str, generation: int) -> str:
    """Name of the store of a generation."""
    return f"{prefix}{name.replace('-', '_')}_{uid}_{generation}"


def new_collection(
    definition: CollectionDefinition, uid: str, spaces: Mapping[str, Space], created_at_us: int, store_prefix: str
) -> Collection:
    """A fresh collection with the first generation of each index; `spaces` are by the names of these."""
    generations = tuple(
        Generation(number, name, spaces[name].fingerprint, store_name(store_prefix, definition.name, uid, number))
        for number, name in enumerate(definition.named_indexes, 1)
    )
    return Collection(definition, uid, generations, created_at_us)
