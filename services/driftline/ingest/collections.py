"""Creating, showing and deleting collections. They live in the control topic; every service follows it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from driftline.core.collections import Collection, parse_definition
from driftline.core.control import ControlView, ControlWriter, collection_record, new_collection, space_record
from driftline.core.errors import Conflict, InvalidRequest, NotLoaded
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Clock, now_us
from driftline.retrieval.embeddings import describe


def as_json(collection: Collection, documents: int | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": collection.name,
        "uid": collection.uid,
        "created_at_us": collection.created_at_us,
        "definition": collection.definition.model_dump(mode="json"),
        "generations": [
            {"number": g.number, "vector_name": g.vector_name, "space": g.space, "store": g.store}
            for g in collection.generations
        ],
        "route": [
            {"generation": leg.generation, "carry": leg.carry.name.lower(), "compensation": leg.compensation}
            for leg in collection.routes
        ],
        "complete": collection.complete.number,
    }
    if documents is not None:
        body["documents"] = documents
    return body


class Collections:
    def __init__(
        self,
        view: ControlView,
        writer: ControlWriter,
        embedder: Embedder,
        store: VectorStore,
        store_prefix: str,
        clock: Clock = now_us,
        new_uid: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        self._view = view
        self._writer = writer
        self._embedder = embedder
        self._store = store
        self._prefix = store_prefix
        self._clock = clock
        self._new_uid = new_uid

    def create(self, raw: Any) -> tuple[Collection, bool]:
        """(collection, whether it is new). The same definition again is no error; another one is a Conflict."""
        definition = parse_definition(raw)
        existing = next((c for c in self._view.collections() if c.name == definition.name), None)
        if existing is not None:
            if existing.definition == definition:
                return existing, False
            raise Conflict("collection_exists", f"collection {definition.name!r} exists with another definition")
        try:
            space = describe(self._embedder, definition.embedding.encoder)
        except NotLoaded as error:
            raise InvalidRequest("unknown_encoder", error.detail, "embedding.encoder") from error
        if definition.metric == "cosine" and not space.normalized:
            raise InvalidRequest(
                "metric_mismatch", "the encoder does not normalise its vectors: use ip or l2", "metric"
            )
        collection = new_collection(definition, self._new_uid(), space, self._clock(), self._prefix)
        self._writer.write([space_record(space), collection_record(collection)])
        winner = self._view.collection(definition.name)
        if winner.uid != collection.uid:
            raise Conflict("collection_exists", f"collection {definition.name!r} was created by someone else just now")
        return collection, True

    def delete(self, name: str) -> None:
        """Raises NotFound. Index drops what it stored when it sees the record."""
        collection = self._view.collection(name)
        self._writer.write([collection_record(replace(collection, deleted=True))])

    def count(self, collection: Collection) -> int:
        """Searchable documents; 0 while the store was not created yet."""
        space = self._view.space(collection.complete.space)
        target = collection.target(collection.complete, space.dimension)
        return self._store.count(target) or 0
