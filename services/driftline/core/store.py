"""What a vector store holds and is asked, as frozen values; `core.ports.VectorStore` says what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftline.core.filters import Filter
from driftline.core.vectors import Vectors


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What a store knows of a document: a live version with its chunks, or a tombstone (chunks = 0)."""

    version: int
    chunks: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """A collection of the vector store and the identity it must have. `kind` is that of its space; sparse vectors are
    compared by inner product, whatever `metric` says."""

    store: str
    space: str
    dimension: int
    metric: str
    collection_uid: str
    kind: str = "dense"


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A live document to write or as read back. Dense `vectors` are float32 (chunks, dimension)."""

    key: str
    tenant: str
    id: str
    version: int
    fields_json: bytes
    attributes: Mapping[str, Any]
    chunks: tuple[str, ...]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Removal:
    """A delete to apply: a tombstone of `version`, and `chunks` rows to remove."""

    key: str
    version: int
    chunks: int


@dataclass(frozen=True, slots=True)
class WritePlan:
    """One batch for the store: at most one entry per document. `trims` removes chunk rows [new, old)."""

    upserts: tuple[StoredDocument, ...] = ()
    removals: tuple[Removal, ...] = ()
    trims: tuple[tuple[str, int, int], ...] = ()

    def is_empty(self) -> bool:
        return not (self.upserts or self.removals or self.trims)


@dataclass(frozen=True, slots=True)
class Hit:
    """One found chunk; a higher score is nearer whatever the metric. `leg` is the place in the route of the leg that
    found it: 0 is the newest generation's."""

    key: str
    id: str
    version: int
    chunk: int
    score: float
    text: str
    fields_json: bytes
    leg: int = 0


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A search in one store. Dense `vectors` are float32 (queries, dimension); `limit` counts chunks."""

    vectors: Vectors
    limit: int
    tenant: str | None
    filter: Filter | None = None
    strong: bool = False  # sees every acknowledged write, and waits for it
    with_fields: bool = True
    exclude_keys: tuple[str, ...] = ()
