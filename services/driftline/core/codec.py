"""Records of the pipeline to bytes and back; those of `control` are in `core.control_codec`.

Decoders raise `InvalidRecord("undecodable")` for bytes that are not the record, and `InvalidRecord` with a
sharper reason for a record that is one but breaks its contract. What they return is within `core.limits`: whoever may
write to a topic need not be Driftline, and a row that Milvus refuses must not get as far as Milvus.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from driftline.core.errors import InvalidRecord
from driftline.core.limits import (
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_DIMENSION,
    MAX_FIELDS_BYTES,
    MAX_ID_BYTES,
    MAX_NAMED_VECTORS,
    MAX_QUERY_CHARACTERS,
    MAX_TENANT_BYTES,
)
from driftline.core.messages import LARGEST, LONGEST_NAME, LONGEST_SOURCE, bounded, parse, within
from driftline.core.records import (
    ChangeEvent,
    DeadLetter,
    MediaReference,
    NamedVectors,
    Operation,
    Outcome,
    Position,
    Receipt,
    SearchedQuery,
    VectorRecord,
)
from driftline.core.vectors import Sparse
from driftline.wire.v1 import records_pb2

_MOST_HITS = 1_000


def _check_document(m: Any) -> None:
    """What a ChangeEvent and a VectorRecord have in common."""
    bounded("id", m.id, MAX_ID_BYTES, 1)
    bounded("tenant", m.tenant, MAX_TENANT_BYTES)
    bounded("collection", m.collection, LONGEST_NAME, 1)
    bounded("collection_uid", m.collection_uid, LONGEST_NAME)
    bounded("source", m.source, LONGEST_SOURCE)
    bounded("fields_json", m.fields_json, MAX_FIELDS_BYTES)
    within("version", m.version, 0, LARGEST)
    within("backfill_generation", m.backfill_generation, 0, LARGEST)


def _position_of(m: Any) -> Position:
    within("partition", m.partition, 0, LARGEST)
    within("offset", m.offset, 0, LARGEST)
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
    m = parse(records_pb2.ChangeEvent, value)
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
        vectors=[_named_message(v) for v in record.vectors],
        accepted_at_us=record.accepted_at_us,
        read_at_us=record.read_at_us,
        encoded_at_us=record.encoded_at_us,
        source=record.source,
        rejected_reason=record.rejected_reason,
        rejected_detail=record.rejected_detail,
        backfill_generation=record.backfill_generation,
    ).SerializeToString(deterministic=True)


def _texts(chunks: Any) -> tuple[str, ...]:
    within("chunks", len(chunks), 0, MAX_CHUNKS)
    texts = tuple(c.text for c in chunks)
    for text in texts:
        bounded("chunk", text, MAX_CHUNK_BYTES)
    return texts


def _named_message(v: NamedVectors) -> records_pb2.NamedVectors:
    message = records_pb2.NamedVectors(
        name=v.name, space=v.space, generation=v.generation, chunks=_chunks(v.chunks), nothing=not len(v.values)
    )
    if isinstance(v.values, Sparse):
        message.counts.extend(np.diff(v.values.starts).tolist())
        message.terms = v.values.terms.astype("<u4", copy=False).tobytes()
        message.weights = v.values.weights.astype("<f4", copy=False).tobytes()
    elif len(v.values):
        message.dimension = v.values.shape[1]
        message.values = v.values.astype("<f4", copy=False).tobytes()
    return message


def _named_vectors(m: Any, common: int) -> NamedVectors:
    own = _texts(m.chunks)
    bounded("vector name", m.name, LONGEST_NAME)
    bounded("space", m.space, LONGEST_NAME)
    within("generation", m.generation, 1, LARGEST)
    within("dimension", m.dimension, 0, MAX_DIMENSION)
    if m.nothing:
        return NamedVectors(m.name, m.space, m.generation, np.empty((0, 0), dtype=np.float32))
    chunks = len(own) or common
    if m.counts:
        return NamedVectors(m.name, m.space, m.generation, _sparse(m, chunks), own)
    if m.dimension <= 0 or len(m.values) != 4 * m.dimension * chunks:
        raise InvalidRecord(
            "wrong_dimension",
            f"vector {m.name!r}: {len(m.values)} bytes for {chunks} chunks of dimension {m.dimension}",
        )
    values = np.frombuffer(m.values, dtype="<f4").reshape(chunks, m.dimension)
    if not np.isfinite(values).all():
        raise InvalidRecord("non_finite_vector", f"vector {m.name!r} holds NaN or infinity")
    return NamedVectors(m.name, m.space, m.generation, values, own)


def _sparse(m: Any, chunks: int) -> Sparse:
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(m.counts, dtype=np.int64))])
    if len(m.counts) != chunks or not len(m.terms) == len(m.weights) == 4 * starts[-1]:
        raise InvalidRecord(
            "wrong_dimension",
            f"vector {m.name!r}: {len(m.terms)} and {len(m.weights)} bytes of terms and weights for {len(m.counts)} "
            f"counts of {chunks} chunks",
        )
    values = Sparse(starts, np.frombuffer(m.terms, dtype="<u4"), np.frombuffer(m.weights, dtype="<f4"))
    if not values.is_well_formed():
        raise InvalidRecord(
            "non_finite_vector",
            f"vector {m.name!r}: expected ascending terms up to 2^32 - 3 and finite weights of at least 0",
        )
    return values


def decode_vector(value: bytes | None) -> VectorRecord:
    m = parse(records_pb2.VectorRecord, value)
    if not m.collection or not m.id or not m.HasField("position"):
        raise InvalidRecord("undecodable", "a VectorRecord needs a collection, an id and a position")
    _check_document(m)
    within("vectors", len(m.vectors), 0, MAX_NAMED_VECTORS)
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
    batch = parse(records_pb2.ReceiptBatch, value)
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
    m = parse(records_pb2.DeadLetter, value)
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
    m = parse(records_pb2.SearchedQuery, value)
    if not m.collection_uid or not m.text:
        raise InvalidRecord("undecodable", "a SearchedQuery needs a collection and a text")
    bounded("text", m.text, 4 * MAX_QUERY_CHARACTERS)
    bounded("tenant", m.tenant, MAX_TENANT_BYTES)
    within("hits", len(m.hits), 0, _MOST_HITS)
    return SearchedQuery(m.collection, m.collection_uid, m.tenant, m.text, m.searched_at_us, tuple(m.hits))
