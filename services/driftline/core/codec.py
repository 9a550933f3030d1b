"""Records to bytes and back: the only place that knows protobuf.

Decoders raise `InvalidRecord("undecodable")` for bytes that are not the record, and `InvalidRecord` with a
sharper reason for a record that is one but breaks its contract. What they return is within `core.limits`: whoever may
write to a topic need not be Driftline, and a row that Milvus refuses must not get as far as Milvus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from driftline.core.errors import InvalidRecord
from driftline.core.limits import (
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_COMPENSATION_PARTS,
    MAX_DIMENSION,
    MAX_FIELDS_BYTES,
    MAX_ID_BYTES,
    MAX_NAMED_VECTORS,
    MAX_QUERY_CHARACTERS,
    MAX_TENANT_BYTES,
)
from driftline.core.records import (
    Carry,
    ChangeEvent,
    CompensationPart,
    DeadLetter,
    Generation,
    Leg,
    LogIncarnation,
    MediaReference,
    NamedVectors,
    Operation,
    Outcome,
    Position,
    Receipt,
    SearchedQuery,
    Space,
    UpgradeRecord,
    VectorRecord,
)
from driftline.wire.v1 import control_pb2, records_pb2

_M = TypeVar("_M", bound=Message)
# Of a collection's name and uid, a space's fingerprint, a store: ours are under 100.
_LONGEST_NAME = 255
# "kafka:" and a topic, which has at most 249 characters.
_LONGEST_SOURCE = 300
_LARGEST = 2**63 - 1
# Live or retired: a collection is upgraded some times in its life.
_MOST_GENERATIONS = 10_000
_MOST_HITS = 1_000


def _parse(kind: type[_M], value: bytes | None) -> _M:
    if value is None:
        raise InvalidRecord("undecodable", f"expected a {kind.__name__}, found a null value")
    message = kind()
    try:
        message.ParseFromString(value)
    except (DecodeError, ValueError) as error:
        raise InvalidRecord("undecodable", f"not a {kind.__name__}: {error}") from error
    return message


def _bounded(what: str, text: str | bytes, most: int, least: int = 0) -> None:
    size = len(text if isinstance(text, bytes) else text.encode())
    if not least <= size <= most:
        raise InvalidRecord("out_of_bounds", f"{what}: expected {least} to {most} bytes, found {size}")


def _within(what: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise InvalidRecord("out_of_bounds", f"{what}: expected {least} to {most}, found {number}")


def _check_document(m: Any) -> None:
    """What a ChangeEvent and a VectorRecord have in common."""
    _bounded("id", m.id, MAX_ID_BYTES, 1)
    _bounded("tenant", m.tenant, MAX_TENANT_BYTES)
    _bounded("collection", m.collection, _LONGEST_NAME, 1)
    _bounded("collection_uid", m.collection_uid, _LONGEST_NAME)
    _bounded("source", m.source, _LONGEST_SOURCE)
    _bounded("fields_json", m.fields_json, MAX_FIELDS_BYTES)
    _within("version", m.version, 0, _LARGEST)
    _within("backfill_generation", m.backfill_generation, 0, _LARGEST)


def _position_of(m: Any) -> Position:
    _within("partition", m.partition, 0, _LARGEST)
    _within("offset", m.offset, 0, _LARGEST)
    return Position(m.partition, m.offset)


def _operation(number: int) -> Operation:
    try:
        return Operation(number)
    except ValueError as error:
        raise InvalidRecord("undecodable", f"unknown operation {number}") from error


def _media(references: Any) -> tuple[MediaReference, ...]:
    return tuple(MediaReference(m.field, m.uri, m.media_type, m.content_sha256) for m in references)


def _media_messages(media: tuple[MediaReference, ...]) -> list[records_pb2.MediaReference]:
    return [
        records_pb2.MediaReference(field=m.field, uri=m.uri, media_type=m.media_type, content_sha256=m.content_sha256)
        for m in media
    ]


def encode_change(event: ChangeEvent) -> bytes:
    return records_pb2.ChangeEvent(
        collection=event.collection,
        collection_uid=event.collection_uid,
        tenant=event.tenant,
        id=event.id,
        operation=int(event.operation),  # type: ignore[arg-type]
        version=event.version,
        fields_json=event.fields_json,
        media=_media_messages(event.media),
        accepted_at_us=event.accepted_at_us,
        source=event.source,
        origin=None if event.origin is None else _position(event.origin),
        backfill_generation=event.backfill_generation,
        not_before_us=event.not_before_us,
    ).SerializeToString(deterministic=True)


def _position(position: Position) -> records_pb2.Position:
    return records_pb2.Position(partition=position.partition, offset=position.offset)


def decode_change(value: bytes | None) -> ChangeEvent:
    m = _parse(records_pb2.ChangeEvent, value)
    if not m.collection or not m.id:
        raise InvalidRecord("undecodable", "a ChangeEvent needs a collection and an id")
    _check_document(m)
    return ChangeEvent(
        m.collection,
        m.collection_uid,
        m.tenant,
        m.id,
        _operation(m.operation),
        m.version,
        m.fields_json,
        m.accepted_at_us,
        m.source,
        _media(m.media) if m.media else (),
        _position_of(m.origin) if m.HasField("origin") else None,
        m.backfill_generation,
        m.not_before_us,
    )


def _chunks(texts: tuple[str, ...]) -> list[records_pb2.Chunk]:
    return [records_pb2.Chunk(ordinal=i, text=text) for i, text in enumerate(texts)]


def encode_vector(record: VectorRecord) -> bytes:
    return records_pb2.VectorRecord(
        position=_position(record.position),
        collection=record.collection,
        collection_uid=record.collection_uid,
        tenant=record.tenant,
        id=record.id,
        operation=int(record.operation),  # type: ignore[arg-type]
        version=record.version,
        fields_json=record.fields_json,
        media=_media_messages(record.media),
        chunks=_chunks(record.chunks),
        vectors=[
            records_pb2.NamedVectors(
                name=v.name,
                space=v.space,
                generation=v.generation,
                dimension=v.values.shape[1],
                values=v.values.astype("<f4", copy=False).tobytes(),
                chunks=_chunks(v.chunks),
            )
            for v in record.vectors
        ],
        accepted_at_us=record.accepted_at_us,
        read_at_us=record.read_at_us,
        encoded_at_us=record.encoded_at_us,
        source=record.source,
        rejected_reason=record.rejected_reason,
        rejected_detail=record.rejected_detail,
        backfill_generation=record.backfill_generation,
    ).SerializeToString(deterministic=True)


def _texts(chunks: Any) -> tuple[str, ...]:
    _within("chunks", len(chunks), 0, MAX_CHUNKS)
    texts = tuple(c.text for c in chunks)
    for text in texts:
        _bounded("chunk", text, MAX_CHUNK_BYTES)
    return texts


def _named_vectors(m: Any, common: int) -> NamedVectors:
    own = _texts(m.chunks)
    _bounded("vector name", m.name, _LONGEST_NAME)
    _bounded("space", m.space, _LONGEST_NAME)
    _within("generation", m.generation, 1, _LARGEST)
    _within("dimension", m.dimension, 0, MAX_DIMENSION)
    chunks = len(own) or common
    if m.dimension <= 0 or len(m.values) != 4 * m.dimension * chunks:
        raise InvalidRecord(
            "wrong_dimension",
            f"vector {m.name!r}: {len(m.values)} bytes for {chunks} chunks of dimension {m.dimension}",
        )
    values = np.frombuffer(m.values, dtype="<f4").reshape(chunks, m.dimension)
    if not np.isfinite(values).all():
        raise InvalidRecord("non_finite_vector", f"vector {m.name!r} holds NaN or infinity")
    return NamedVectors(m.name, m.space, m.generation, values, own)


def decode_vector(value: bytes | None) -> VectorRecord:
    m = _parse(records_pb2.VectorRecord, value)
    if not m.collection or not m.id or not m.HasField("position"):
        raise InvalidRecord("undecodable", "a VectorRecord needs a collection, an id and a position")
    _check_document(m)
    _within("vectors", len(m.vectors), 0, MAX_NAMED_VECTORS)
    return VectorRecord(
        position=_position_of(m.position),
        collection=m.collection,
        collection_uid=m.collection_uid,
        tenant=m.tenant,
        id=m.id,
        operation=_operation(m.operation),
        version=m.version,
        fields_json=m.fields_json,
        accepted_at_us=m.accepted_at_us,
        read_at_us=m.read_at_us,
        encoded_at_us=m.encoded_at_us,
        source=m.source,
        chunks=_texts(m.chunks),
        vectors=tuple(_named_vectors(v, len(m.chunks)) for v in m.vectors),
        media=_media(m.media) if m.media else (),
        rejected_reason=m.rejected_reason,
        rejected_detail=m.rejected_detail,
        backfill_generation=m.backfill_generation,
    )


def encode_receipts(receipts: list[Receipt]) -> bytes:
    return records_pb2.ReceiptBatch(
        receipts=[
            records_pb2.Receipt(
                position=_position(r.position),
                collection=r.collection,
                tenant=r.tenant,
                id=r.id,
                operation=int(r.operation),  # type: ignore[arg-type]
                version=r.version,
                outcome=int(r.outcome),  # type: ignore[arg-type]
                reason=r.reason,
                detail=r.detail,
                superseded_by=r.superseded_by,
                chunks=r.chunks,
                accepted_at_us=r.accepted_at_us,
                read_at_us=r.read_at_us,
                encoded_at_us=r.encoded_at_us,
                written_at_us=r.written_at_us,
                searchable_at_us=r.searchable_at_us,
            )
            for r in receipts
        ]
    ).SerializeToString(deterministic=True)


def decode_receipts(value: bytes | None) -> list[Receipt]:
    batch = _parse(records_pb2.ReceiptBatch, value)
    try:
        return [
            Receipt(
                _position_of(r.position),
                r.collection,
                r.tenant,
                r.id,
                _operation(r.operation),
                r.version,
                Outcome(r.outcome),
                r.reason,
                r.detail,
                r.superseded_by,
                r.chunks,
                r.accepted_at_us,
                r.read_at_us,
                r.encoded_at_us,
                r.written_at_us,
                r.searchable_at_us,
            )
            for r in batch.receipts
        ]
    except ValueError as error:
        raise InvalidRecord("undecodable", f"not a ReceiptBatch: {error}") from error


def encode_dead_letter(letter: DeadLetter) -> bytes:
    return records_pb2.DeadLetter(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        key=letter.key,
        value=letter.value,
        headers=[records_pb2.Header(key=k, value=v) for k, v in letter.headers],
        reason=letter.reason,
        detail=letter.detail,
        service=letter.service,
        failed_at_us=letter.failed_at_us,
        cut_from=letter.cut_from,
    ).SerializeToString(deterministic=True)


def decode_dead_letter(value: bytes | None) -> DeadLetter:
    m = _parse(records_pb2.DeadLetter, value)
    headers = tuple((h.key, h.value) for h in m.headers)
    return DeadLetter(
        m.topic,
        m.partition,
        m.offset,
        m.key,
        m.value,
        headers,
        m.reason,
        m.detail,
        m.service,
        m.failed_at_us,
        m.cut_from,
    )


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
    return control_pb2.ControlRecord(space=record).SerializeToString(deterministic=True)


def encode_log(log: LogIncarnation) -> bytes:
    record = control_pb2.LogRecord(topic=log.topic, topic_id=log.topic_id, base_version=log.base_version)
    return control_pb2.ControlRecord(log=record).SerializeToString(deterministic=True)


ControlRecord = Space | LogIncarnation | CollectionParts | CompensationPart | UpgradeRecord


def decode_control(value: bytes | None) -> ControlRecord:
    m = _parse(control_pb2.ControlRecord, value)
    match m.WhichOneof("record"):
        case "space":
            _bounded("fingerprint", m.space.fingerprint, _LONGEST_NAME, 1)
            _within("dimension", m.space.dimension, 1, MAX_DIMENSION)
            _within("max_tokens", m.space.max_tokens, 1, _LARGEST)
            _within("max_batch", m.space.max_batch, 1, _LARGEST)
            return Space(**{name: getattr(m.space, name) for name in Space.__slots__})
        case "log":
            _bounded("topic", m.log.topic, _LONGEST_SOURCE, 1)
            # A version is the base and an offset: the sum must still be a 64-bit integer.
            _within("base_version", m.log.base_version, 0, 2**62)
            return LogIncarnation(m.log.topic, m.log.topic_id, m.log.base_version)
        case "compensation":
            c = m.compensation
            _bounded("compensation", c.id, _LONGEST_NAME, 1)
            _within("parts", c.parts, 1, MAX_COMPENSATION_PARTS)
            _within("part", c.part, 0, c.parts - 1)
            return CompensationPart(c.id, c.part, c.parts, c.content)
        case "upgrade":
            _bounded("collection_uid", m.upgrade.collection_uid, _LONGEST_NAME, 1)
            return UpgradeRecord(m.upgrade.collection, m.upgrade.collection_uid, m.upgrade.state_json)
        case "collection":
            return _collection(m.collection)
    raise InvalidRecord("undecodable", "a ControlRecord without a record that this version knows")


def _collection(c: control_pb2.CollectionRecord) -> CollectionParts:
    _bounded("name", c.name, _LONGEST_NAME, 1)
    _bounded("uid", c.uid, _LONGEST_NAME, 1)
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
    _within("next_generation", c.next_generation, 0, _LARGEST)
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
    )


def _decoded_generations(found: Any) -> tuple[Generation, ...]:
    _within("generations", len(found), 0, _MOST_GENERATIONS)
    for g in found:
        _within("generation", g.number, 1, _LARGEST)
        _bounded("space", g.space, _LONGEST_NAME, 1)
        _bounded("store", g.store, _LONGEST_NAME, 1)
    return tuple(Generation(g.number, g.vector_name, g.space, g.store) for g in found)


def encode_query(query: SearchedQuery) -> bytes:
    return records_pb2.SearchedQuery(
        collection=query.collection,
        collection_uid=query.collection_uid,
        tenant=query.tenant,
        text=query.text,
        searched_at_us=query.searched_at_us,
        hits=query.hits,
    ).SerializeToString(deterministic=True)


def decode_query(value: bytes | None) -> SearchedQuery:
    m = _parse(records_pb2.SearchedQuery, value)
    if not m.collection_uid or not m.text:
        raise InvalidRecord("undecodable", "a SearchedQuery needs a collection and a text")
    _bounded("text", m.text, 4 * MAX_QUERY_CHARACTERS)
    _bounded("tenant", m.tenant, MAX_TENANT_BYTES)
    _within("hits", len(m.hits), 0, _MOST_HITS)
    return SearchedQuery(m.collection, m.collection_uid, m.tenant, m.text, m.searched_at_us, tuple(m.hits))
