"""Rows of Milvus, to and from the pipeline's records. A row is a chunk; that of chunk 0 stands for its document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from driftline.adapters.milvus.filter import expression, literal
from driftline.adapters.milvus.sparse import of_terms, of_texts, sketch, to_terms, to_text
from driftline.core.records import now_us
from driftline.core.store import Hit, Removal, StoredDocument, StoredVersion, StoreTarget, VectorQuery
from driftline.core.vectors import Sparse, Vectors

_T = TypeVar("_T")
# Of one write. A Milvus request may have 64 MiB, and a row of the longest strings and vectors about 330 KB.
_ROWS_PER_WRITE = 1_000
_BYTES_PER_WRITE = 16 * 1024 * 1024


def parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def rows_of(document: StoredDocument, native: bool) -> Iterator[dict[str, Any]]:
    """`native`: whether the store holds sparse vectors of Milvus' own."""
    vectors: Sequence[Any] | Vectors = document.vectors
    weights: list[str] | None = None
    if isinstance(document.vectors, Sparse):
        if native:
            vectors = [to_terms(row) for row in document.vectors]
        else:
            vectors, weights = sketch(document.vectors), [to_text(row) for row in document.vectors]
    for ordinal, (text, vector) in enumerate(zip(document.chunks, vectors, strict=True)):
        row = {
            "pk": f"{document.key}:{ordinal}",
            "key": document.key,
            "tenant": document.tenant,
            "id": document.id,
            "version": document.version,
            "chunk": ordinal,
            "chunks": len(document.chunks),
            "text": text,
            "fields": document.fields_json.decode() if ordinal == 0 else "",
            "attributes": dict(document.attributes),
            "vector": vector,
        }
        if weights is not None:
            row["weights"] = weights[ordinal]
        yield row


def writes_of(documents: Sequence[StoredDocument], native: bool) -> Iterator[list[dict[str, Any]]]:
    """The rows of documents, in order, cut into what one request may hold."""
    rows: list[dict[str, Any]] = []
    size = 0
    width = 8 if native else 4  # a term with its weight, or a number
    for document in documents:
        # Attributes go with every row; they are the small part of `fields`.
        fixed = len(document.fields_json) + 1_000
        for row in rows_of(document, native):
            bytes_ = fixed + 4 * len(row["text"]) + width * len(row["vector"]) + len(row.get("weights", ""))
            if rows and (len(rows) >= _ROWS_PER_WRITE or size + bytes_ > _BYTES_PER_WRITE):
                yield rows
                rows, size = [], 0
            rows.append(row)
            size += bytes_
    if rows:
        yield rows


def tombstones_of(target: StoreTarget, removals: Sequence[Removal]) -> list[dict[str, Any]]:
    return [
        {
            "pk": f"{target.collection_uid}:{r.key}",
            "version": r.version,
            "deleted_at_us": now_us(),
            "vector": [0.0, 0.0],
        }
        for r in removals
    ]


def merge_versions(live: Mapping[str, tuple[int, int]], dead: Mapping[str, int]) -> dict[str, StoredVersion]:
    merged = {key: StoredVersion(version, chunks, False) for key, (version, chunks) in live.items()}
    for key, version in dead.items():
        stored = merged.get(key)
        if stored is None or version > stored.version:
            # Rows that outlived their tombstone (a crash between the two writes) are counted: a replay removes them.
            merged[key] = StoredVersion(version, stored.chunks if stored else 0, True)
    return merged


def search_filter(query: VectorQuery) -> str:
    terms = []
    if query.tenant is not None:
        terms.append(f"tenant == {literal(query.tenant)}")
    terms += [f"key != {literal(key)}" for key in query.exclude_keys]
    if query.filter is not None:
        terms.append(expression(query.filter))
    return " and ".join(terms)


def hit_of(row: Mapping[str, Any], score: float) -> Hit:
    return Hit(
        row["key"],
        row["id"],
        row["version"],
        row["chunk"],
        score,
        row.get("text", ""),
        b"",
    )


def document_of(head: Mapping[str, Any], tail: list[Any], with_vectors: bool) -> StoredDocument:
    rows = [
        head,
        *sorted((r for r in tail if r["version"] == head["version"]), key=lambda r: int(r["chunk"])),
    ]
    vectors: Vectors = np.empty((0, 0), np.float32)
    if with_vectors and "weights" in head:
        vectors = of_texts([r["weights"] for r in rows])
    elif with_vectors and isinstance(head["vector"], Mapping):
        vectors = of_terms([r["vector"] for r in rows])
    elif with_vectors:
        vectors = np.array([r["vector"] for r in rows], dtype=np.float32)
    return StoredDocument(
        key=head["key"],
        tenant=head["tenant"],
        id=head["id"],
        version=head["version"],
        fields_json=head["fields"].encode(),
        attributes=head["attributes"],
        chunks=tuple(r["text"] for r in rows),
        vectors=vectors,
    )
