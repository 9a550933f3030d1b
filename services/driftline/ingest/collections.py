"""Creating, showing and deleting collections. They live in the control topic; every service follows it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from driftline.core.collections import Collection, parse_definition
from driftline.core.control import ControlView, ControlWriter, collection_record, new_collection, space_record
from driftline.core.errors import Conflict, InvalidRequest, NotLoaded, PartlyUnavailable, Unavailable
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Clock, StoreTarget, now_us
from driftline.retrieval.embeddings import describe

_LOOK_AGAIN_SECONDS = 0.1


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
    """`wait_seconds` is how long `create` waits at most until index has made the store."""

    def __init__(
        self,
        view: ControlView,
        writer: ControlWriter,
        embedder: Embedder,
        store: VectorStore,
        store_prefix: str,
        wait_seconds: float = 0.0,
        clock: Clock = now_us,
        new_uid: Callable[[], str] = lambda: secrets.token_hex(5),
    ) -> None:
        self._view = view
        self._writer = writer
        self._embedder = embedder
        self._store = store
        self._prefix = store_prefix
        self._wait_seconds = wait_seconds
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
        self._wait_for_store(collection)
        return collection, True

    def _wait_for_store(self, collection: Collection) -> None:
        """Whoever creates a collection searches it next, and would be told that its store cannot be used yet.

        It is created all the same where index or Milvus is away: what is written waits for them.
        """
        target = self._target(collection)
        deadline = time.monotonic() + self._wait_seconds
        while time.monotonic() < deadline:
            try:
                if self._store.count(target) is not None:
                    return
            except PartlyUnavailable:
                pass  # there, and not loaded yet
            except Unavailable:
                return
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _target(self, collection: Collection) -> StoreTarget:
        return collection.target(collection.complete, self._view.space(collection.complete.space))

    def delete(self, name: str) -> None:
        """Raises NotFound. Index drops what it stored when it sees the record."""
        collection = self._view.collection(name)
        self._writer.write([collection_record(replace(collection, deleted=True))])

    def count(self, collection: Collection) -> int:
        """Searchable documents; 0 while the store was not created yet."""
        return self._store.count(self._target(collection)) or 0
