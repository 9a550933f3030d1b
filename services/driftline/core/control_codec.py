"""Records of the `control` topic to bytes and back. Decoders raise as those of `core.codec` do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from driftline.core.errors import InvalidRecord
from driftline.core.limits import MAX_COMPENSATION_PARTS, MAX_DIMENSION, MAX_STATISTICS_BYTES
from driftline.core.messages import LARGEST, LONGEST_NAME, LONGEST_SOURCE, bounded, parse, within
from driftline.core.records import (
    Carry,
    CompensationPart,
    Generation,
    Leg,
    LogIncarnation,
    Space,
    StatisticsRecord,
    UpgradeRecord,
)
from driftline.wire.v1 import control_pb2

# Live or retired: a collection is upgraded some times in its life.
_MOST_GENERATIONS = 10_000
_SPACE_KINDS = ("dense", "sparse")


@dataclass(frozen=True, slots=True)
class CollectionParts:
    """A collection record before its definition is parsed."""

    name: str
    uid: str
    definition_json: str
    generations: tuple[Generation, ...]
    created_at_us: int
    deleted: bool
    legs: tuple[Leg, ...] = ()
    next_generation: int = 0
    retired: tuple[Generation, ...] = ()
    unfinished: tuple[str, ...] = ()


def encode_collection(parts: CollectionParts) -> bytes:
    record = control_pb2.CollectionRecord(
        name=parts.name,
        uid=parts.uid,
        definition_json=parts.definition_json,
        generations=_generations(parts.generations),
        created_at_us=parts.created_at_us,
        deleted=parts.deleted,
        legs=[
            control_pb2.Leg(generation=leg.generation, carry=int(leg.carry), compensation=leg.compensation)  # type: ignore[arg-type]
            for leg in parts.legs
        ],
        next_generation=parts.next_generation,
        retired=_generations(parts.retired),
        unfinished=parts.unfinished,
    )
    return control_pb2.ControlRecord(collection=record).SerializeToString(deterministic=True)


def _generations(generations: tuple[Generation, ...]) -> list[control_pb2.Generation]:
    return [
        control_pb2.Generation(number=g.number, vector_name=g.vector_name, space=g.space, store=g.store)
        for g in generations
    ]


def encode_compensation(part: CompensationPart) -> bytes:
    record = control_pb2.CompensationPart(id=part.id, part=part.part, parts=part.parts, content=part.content)
    return control_pb2.ControlRecord(compensation=record).SerializeToString(deterministic=True)


def encode_upgrade(upgrade: UpgradeRecord) -> bytes:
    record = control_pb2.UpgradeRecord(
        collection=upgrade.collection, collection_uid=upgrade.collection_uid, state_json=upgrade.state_json
    )
    return control_pb2.ControlRecord(upgrade=record).SerializeToString(deterministic=True)


def encode_space(space: Space) -> bytes:
    record = control_pb2.SpaceRecord(**{name: getattr(space, name) for name in Space.__slots__})
    if space.kind == "dense":
        record.kind = ""  # as before there were kinds
    return control_pb2.ControlRecord(space=record).SerializeToString(deterministic=True)


def encode_log(log: LogIncarnation) -> bytes:
    record = control_pb2.LogRecord(topic=log.topic, topic_id=log.topic_id, base_version=log.base_version)
    return control_pb2.ControlRecord(log=record).SerializeToString(deterministic=True)


def encode_statistics(statistics: StatisticsRecord) -> bytes:
    record = control_pb2.StatisticsRecord(
        collection_uid=statistics.collection_uid, generation=statistics.generation, content=statistics.content
    )
    return control_pb2.ControlRecord(statistics=record).SerializeToString(deterministic=True)


ControlRecord = Space | LogIncarnation | CollectionParts | CompensationPart | UpgradeRecord | StatisticsRecord


def decode_control(value: bytes | None) -> ControlRecord:
    m = parse(control_pb2.ControlRecord, value)
    match m.WhichOneof("record"):
        case "space":
            bounded("fingerprint", m.space.fingerprint, LONGEST_NAME, 1)
            within("dimension", m.space.dimension, 1, MAX_DIMENSION)
            within("max_tokens", m.space.max_tokens, 1, LARGEST)
            within("max_batch", m.space.max_batch, 1, LARGEST)
            space = Space(**{name: getattr(m.space, name) for name in Space.__slots__})
            space = replace(space, kind=space.kind or "dense")
            if space.kind not in _SPACE_KINDS:
                raise InvalidRecord("undecodable", f"a space of kind {space.kind[:LONGEST_NAME]!r}")
            return space
        case "log":
            bounded("topic", m.log.topic, LONGEST_SOURCE, 1)
            # A version is the base and an offset: the sum must still be a 64-bit integer.
            within("base_version", m.log.base_version, 0, 2**62)
            return LogIncarnation(m.log.topic, m.log.topic_id, m.log.base_version)
        case "compensation":
            c = m.compensation
            bounded("compensation", c.id, LONGEST_NAME, 1)
            within("parts", c.parts, 1, MAX_COMPENSATION_PARTS)
            within("part", c.part, 0, c.parts - 1)
            return CompensationPart(c.id, c.part, c.parts, c.content)
        case "upgrade":
            bounded("collection_uid", m.upgrade.collection_uid, LONGEST_NAME, 1)
            return UpgradeRecord(m.upgrade.collection, m.upgrade.collection_uid, m.upgrade.state_json)
        case "statistics":
            s = m.statistics
            bounded("collection_uid", s.collection_uid, LONGEST_NAME, 1)
            within("generation", s.generation, 1, LARGEST)
            bounded("content", s.content, MAX_STATISTICS_BYTES)
            return StatisticsRecord(s.collection_uid, s.generation, s.content)
        case "collection":
            return _collection(m.collection)
    raise InvalidRecord("undecodable", "a ControlRecord without a record that this version knows")


def _collection(c: control_pb2.CollectionRecord) -> CollectionParts:
    bounded("name", c.name, LONGEST_NAME, 1)
    bounded("uid", c.uid, LONGEST_NAME, 1)
    try:
        legs = tuple(Leg(leg.generation, Carry(leg.carry), leg.compensation) for leg in c.legs)
    except ValueError as error:
        raise InvalidRecord("undecodable", f"collection {c.name!r}: {error}") from error
    live = _decoded_generations(c.generations)
    numbers = {generation.number for generation in live}
    if not numbers or len(numbers) < len(live) or not {leg.generation for leg in legs} <= numbers:
        raise InvalidRecord(
            "undecodable", f"collection {c.name!r}: expected live generations, each once, and legs that are of them"
        )
    within("next_generation", c.next_generation, 0, LARGEST)
    return CollectionParts(
        c.name,
        c.uid,
        c.definition_json,
        live,
        c.created_at_us,
        c.deleted,
        legs,
        c.next_generation,
        _decoded_generations(c.retired),
        tuple(c.unfinished),
    )


def _decoded_generations(found: Any) -> tuple[Generation, ...]:
    within("generations", len(found), 0, _MOST_GENERATIONS)
    for g in found:
        within("generation", g.number, 1, LARGEST)
        bounded("space", g.space, LONGEST_NAME, 1)
        bounded("store", g.store, LONGEST_NAME, 1)
    return tuple(Generation(g.number, g.vector_name, g.space, g.store) for g in found)
