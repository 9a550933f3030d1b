"""Builders of test data: every argument has a default, so a test names only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from driftline.adapters.memory import MemoryEmbedder, MemoryLog, MemoryLogReader, MemoryPublisher
from driftline.core import codec
from driftline.core.collections import Collection, CollectionDefinition, parse_definition
from driftline.core.control import (
    ControlFollower,
    ControlView,
    collection_record,
    log_record,
    new_collection,
    space_record,
)
from driftline.core.errors import NotLoaded
from driftline.core.records import (
    ChangeEvent,
    LogIncarnation,
    NamedVectors,
    Operation,
    Outgoing,
    Position,
    Priority,
    Space,
    VectorRecord,
    document_key,
    record_key,
)
from driftline.core.store import StoredDocument, StoreTarget
from driftline.core.topics import CHANGES
from driftline.core.vectors import Matrix

BASE = 1_700_000_000_000_000


def a_definition(**changes: Any) -> CollectionDefinition:
    raw: dict[str, Any] = {
        "name": "things",
        "fields": {
            "title": {"type": "text"},
            "body": {"type": "text"},
            "kind": {"type": "keyword", "filter": True},
            "year": {"type": "integer", "filter": True},
            "price": {"type": "float", "filter": True},
            "sold": {"type": "boolean", "filter": True},
            "seen": {"type": "datetime", "filter": True},
            "tags": {"type": "keyword_list", "filter": True},
            "codes": {"type": "integer_list", "filter": True},
            "extra": {"type": "json"},
        },
        "embedding": {"encoder": "hashing", "fields": ["title", "body"]},
    }
    if "indexes" in changes:
        del raw["embedding"]
    return parse_definition(raw | changes)


def a_collection(
    space: Space | None = None, others: Mapping[str, Space] | None = None, **changes: Any
) -> Collection:  # fmt: skip
    """In one space for every encoder, but those of `others` by the name of the encoder."""
    definition, space = a_definition(**changes), space or MemoryEmbedder().space
    return new_collection(definition, "u1", spaces_of(definition, space, others), BASE, "test_")


def spaces_of(
    definition: CollectionDefinition, space: Space, others: Mapping[str, Space] | None = None
) -> dict[str, Space]:  # fmt: skip
    """The space of each index: the analyzer's own, that of its encoder among `others`, or this one."""
    return {
        name: index.analyzer.space() if index.analyzer else (others or {}).get(index.encoder, space)
        for name, index in definition.named_indexes.items()
    }


def a_view(*collections: Collection, space: Space | None = None) -> ControlView:
    """A view that knows the space, these collections, and the changes log."""
    view = ControlView()
    view.confirm(float("inf"))
    view.apply(space_record(space or MemoryEmbedder().space).value)
    view.apply(log_record(LogIncarnation(CHANGES.name, "t1", BASE)).value)
    for collection in collections:
        for lexical in spaces_of(collection.definition, space or MemoryEmbedder().space).values():
            view.apply(space_record(lexical).value)
        view.apply(collection_record(collection).value)
    return view


def a_follower(log: MemoryLog, view: ControlView) -> ControlFollower:
    follower = ControlFollower(MemoryLogReader(log), view)
    follower.start(10)
    return follower


def a_change(
    id: str = "a", *, version: int = 0, delete: bool = False, collection: Collection | None = None, tenant: str = "",
    **fields: Any,
) -> ChangeEvent:  # fmt: skip
    collection = collection or a_collection()
    return ChangeEvent(
        collection.name, collection.uid, tenant, id, Operation.DELETE if delete else Operation.UPSERT, version,
        b"" if delete else orjson.dumps(fields or {"title": f"document {id}"}), BASE, "http",
    )  # fmt: skip


def publish_change(log: MemoryLog, event: ChangeEvent) -> Position:
    record = Outgoing(
        CHANGES.name, record_key(event.collection_uid, event.tenant, event.id), codec.encode_change(event)
    )
    return Position(*MemoryPublisher(log).publish([record])[0])


def a_vector_record(
    id: str = "a", *, version: int = 1, delete: bool = False, chunks: int = 1, offset: int = 0, partition: int = 0,
    collection: Collection | None = None, **changes: Any,
) -> VectorRecord:  # fmt: skip
    collection = collection or a_collection()
    dimension = MemoryEmbedder().space.dimension
    texts = () if delete else tuple(f"{id} v{version} chunk {i}" for i in range(chunks))
    values = np.ones((chunks, dimension), dtype=np.float32) / np.sqrt(np.float32(dimension))
    vectors = () if delete else (NamedVectors("default", collection.primary.complete.space, 1, values),)
    values_ = {
        "position": Position(partition, offset),
        "collection": collection.name,
        "collection_uid": collection.uid,
        "tenant": "",
        "id": id,
        "operation": Operation.DELETE if delete else Operation.UPSERT,
        "version": version,
        "fields_json": b"" if delete else orjson.dumps({"title": id}),
        "accepted_at_us": BASE,
        "read_at_us": BASE + 1,
        "encoded_at_us": BASE + 2,
        "chunks": texts,
        "vectors": vectors,
    }
    return VectorRecord(**(values_ | changes))


class Encoders:
    """Several encoders behind one port, as Triton holds them."""

    def __init__(self, *embedders: MemoryEmbedder) -> None:
        self.by_name = {e.space.encoder: e for e in embedders}

    def _of(self, encoder: str) -> MemoryEmbedder:
        if encoder not in self.by_name:
            raise NotLoaded("triton", f"encoder {encoder!r}: not loaded")
        return self.by_name[encoder]

    def describe(self, encoder: str) -> Space:
        return self._of(encoder).describe(encoder)

    def load(self, encoder: str) -> None:
        self._of(encoder).load(encoder)

    def loaded_everywhere(self, encoder: str) -> bool:
        return self._of(encoder).loaded_everywhere(encoder)

    def unload(self, encoder: str) -> None:
        self._of(encoder).unload(encoder)

    def tokenizer_json(self, encoder: str) -> str:
        return self._of(encoder).tokenizer_json(encoder)

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[Matrix | Exception]:  # fmt: skip
        return self._of(encoder).embed(encoder, space, requests, priority)

    def ping(self) -> None: ...


def a_target(dimension: int = 8, space: str = "s1", store: str = "test_store", metric: str = "cosine") -> StoreTarget:
    return StoreTarget(store, space, dimension, metric, "u1")


def a_stored(
    id: str = "a", *, version: int = 1, chunks: int = 1, dimension: int = 8, seed: int = 0, tenant: str = "",
    **attributes: Any,
) -> StoredDocument:  # fmt: skip
    rng = np.random.default_rng([seed, *id.encode()])
    vectors = rng.standard_normal((chunks, dimension)).astype(np.float32)
    return StoredDocument(
        document_key(tenant, id), tenant, id, version, orjson.dumps({"title": id}), attributes,
        tuple(f"{id} {version} {i}" for i in range(chunks)), vectors,
    )  # fmt: skip
