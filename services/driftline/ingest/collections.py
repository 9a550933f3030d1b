"""Creating, showing and deleting collections. They live in the control topic; every service follows it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from driftline.core.collections import Collection, CollectionDefinition, CollectionIndex, parse_definition
from driftline.core.control import ControlView, ControlWriter, collection_record, new_collection, space_record
from driftline.core.errors import Conflict, InvalidRequest, NotLoaded, PartlyUnavailable, Unavailable
from driftline.core.indexes import Index
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Clock, Space, now_us
from driftline.core.store import StoreTarget
from driftline.retrieval.embeddings import describe
from driftline.retrieval.plan import check_profiles

_LOOK_AGAIN_SECONDS = 0.1


def _index_body(index: CollectionIndex, documents: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {} if documents is None else {"documents": documents}
    return body | {
        "route": [
            {"generation": leg.generation, "carry": leg.carry.name.lower(), "compensation": leg.compensation}
            for leg in index.routes
        ],
        "complete": index.complete.number,
        "finished": index.is_finished,
    }


def as_json(collection: Collection, documents: Mapping[str, int] | None = None) -> dict[str, Any]:
    """`documents` are counts by index; the collection has at least as many as the index that has the most."""
    counts = documents or {}
    body: dict[str, Any] = {
        "name": collection.name,
        "uid": collection.uid,
        "created_at_us": collection.created_at_us,
        "definition": collection.definition.as_given(),
        "generations": [
            {"number": g.number, "vector_name": g.vector_name, "space": g.space, "store": g.store}
            for g in collection.generations
        ],
        "indexes": {index.name: _index_body(index, counts.get(index.name)) for index in collection.indexes},
    }
    if documents is not None:
        body["documents"] = max(documents.values())
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
        check_profiles(definition)
        existing = next((c for c in self._view.collections() if c.name == definition.name), None)
        if existing is not None:
            if existing.definition == definition:
                return existing, False
            raise Conflict(
                "collection_exists",
                f"collection {definition.name!r} exists with another definition; `driftline collections apply` changes "
                "a live one",
            )
        spaces = {name: self._space(definition, name, index) for name, index in definition.named_indexes.items()}
        collection = new_collection(definition, self._new_uid(), spaces, self._clock(), self._prefix)
        self._writer.write([*map(space_record, spaces.values()), collection_record(collection)])
        winner = self._view.collection(definition.name)
        if winner.uid != collection.uid:
            raise Conflict("collection_exists", f"collection {definition.name!r} was created by someone else just now")
        self._wait_for_store(collection)
        return collection, True

    def _space(self, definition: CollectionDefinition, name: str, index: Index) -> Space:
        if index.analyzer is not None:
            return index.analyzer.space()
        try:
            space = describe(self._embedder, index.encoder)
        except NotLoaded as error:
            where = "embedding" if definition.embedding else f"indexes.{name}"
            raise InvalidRequest("unknown_encoder", error.detail, f"{where}.encoder") from error
        if definition.metric == "cosine" and space.kind == "dense" and not space.normalized:
            raise InvalidRequest(
                "metric_mismatch", "the encoder does not normalise its vectors: use ip or l2", "metric"
            )
        return space

    def _wait_for_store(self, collection: Collection) -> None:
        """Whoever creates a collection searches it next, and would be told that its store cannot be used yet.

        It is created all the same where index or Milvus is away: what is written waits for them.
        """
        targets = self._targets(collection).values()
        deadline = time.monotonic() + self._wait_seconds
        while time.monotonic() < deadline:
            try:
                if all(self._store.count(target) is not None for target in targets):
                    return
            except PartlyUnavailable:
                pass  # there, and not loaded yet
            except Unavailable:
                return
            time.sleep(_LOOK_AGAIN_SECONDS)  # polling a server

    def _targets(self, collection: Collection) -> dict[str, StoreTarget]:
        """The store of each finished index that holds everything, by the index's name."""
        complete = {index.name: index.complete for index in collection.finished}
        return {name: collection.target(g, self._view.space(g.space)) for name, g in complete.items()}

    def delete(self, name: str) -> None:
        """Raises NotFound. Index drops what it stored when it sees the record."""
        collection = self._view.collection(name)
        self._writer.write([collection_record(replace(collection, deleted=True))])

    def counts(self, collection: Collection) -> dict[str, int]:
        """Searchable documents by index; 0 while its store was not created yet."""
        return {name: self._store.count(target) or 0 for name, target in self._targets(collection).items()}
