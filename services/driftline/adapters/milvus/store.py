"""Milvus: a collection per embedding space, its identity stored with it.

Rows are chunks. The row of chunk 0 carries the document's fields, its version and how many chunks it has, so a
version is read by primary key and a document is replaced by one upsert. Deleted versions live in one small
collection of tombstones. Works with Milvus 2.3 and later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import grpc
import numpy as np

from driftline.adapters.milvus.client import MilvusClient, MilvusException
from driftline.adapters.milvus.errors import Meaning, meaning_of
from driftline.adapters.milvus.fence import fence, guard_writes
from driftline.adapters.milvus.filter import literal
from driftline.adapters.milvus.rows import (
    document_of,
    hit_of,
    merge_versions,
    parts,
    search_filter,
    tombstones_of,
    writes_of,
)
from driftline.adapters.milvus.schema import Schemas
from driftline.adapters.store_rows import MAX_LIMIT, check_plan, check_query, counts
from driftline.core import metrics
from driftline.core.errors import (
    ConfigError,
    DriftlineError,
    Fenced,
    InvalidRecord,
    InvalidRequest,
    PartlyUnavailable,
    SpaceMismatch,
    Unavailable,
)
from driftline.core.ports import Guard
from driftline.core.records import (
    ChunkHit,
    Removal,
    StoredDocument,
    StoredVersion,
    StoreTarget,
    VectorQuery,
    WritePlan,
)
from driftline.core.settings import MilvusSettings, read_secret

log = logging.getLogger(__name__)

_T = TypeVar("_T")
Call = Callable[[Any], _T]
# Milvus answers at most 16,384 rows a query; measured best between 1,000 and 4,000.
_KEYS_PER_CALL = 2_000
# With every column: Milvus answers at most 100 MiB, and a row may have 330 KB.
_WHOLE_ROWS_PER_CALL = 200
# With the fields: 65 KB at most.
_HEADS_PER_CALL = 1_000
# A document has some rows, and Milvus answers at most 16,384.
_KEYS_PER_EXPRESSION = 100


# Where all rows are. A delete that does not name it is for all partitions, and before 2.3.15 Milvus drops those when it
# loads a compacted segment: rows that were gone came back (docs/decisions/0017-lost-deletes.md).
_PARTITION = "_default"


class MilvusStore:
    """The `VectorStore` of the services. Any method may be called from any thread, also several at once: pymilvus'
    connection is thread-safe, the lease of a write belongs to the thread that makes it, and what this object keeps is
    behind its lock."""

    def __init__(self, settings: MilvusSettings) -> None:
        """Raises ConfigError; contacts nobody."""
        self._settings = settings
        self._schemas = Schemas(settings)
        self._limit = {"timeout": settings.timeout_seconds}
        self._tombstones = f"{settings.prefix}tombstones"
        self._token = read_secret(settings.token_file, "milvus.token_file")
        self._lock = threading.Lock()
        self._connected: Any = None
        self._ensured: set[str] = set()

    # Connection and errors

    def _client(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = MilvusClient(
                    uri=self._settings.uri,
                    token=self._token.get_secret_value() if self._token else "",
                    db_name=self._settings.database,
                    timeout=min(10.0, self._settings.timeout_seconds),
                )
                guard_writes(self._connected._get_connection(), self._settings.timeout_seconds)
            return self._connected

    def _call(
        self,
        operation: str,
        call: Call[_T],
        store: str = "",
        *,
        refused: Callable[[str], DriftlineError] | None = None,
        harmless: Call[object] | None = None,
    ) -> _T:
        """Call, and raise what the port says in place of what Milvus or pymilvus raise.

        `refused` makes the error of a value that can never be taken; without it, that is the store's trouble and its
        collection waits. `harmless` is a call of the same kind that no store refuses: see `_once_more`.
        """
        channel = None
        try:
            with metrics.STORE_SECONDS.labels(operation).time():
                client = self._client()
                channel = client._get_connection()._channel
                return call(client)
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError, ConnectionError) as error:
            meaning, origin = meaning_of(error)
            if meaning is Meaning.UNTOLD and refused is not None and harmless is not None:
                return self._once_more(operation, call, store, refused, harmless)
            self._raise(operation, meaning, origin, store, refused, channel)

    def _once_more(
        self,
        operation: str,
        call: Call[_T],
        store: str,
        refused: Callable[[str], DriftlineError],
        harmless: Call[object],
    ) -> _T:
        """Milvus 2.3 has one code for a value that it refuses and for a failure inside (65535). If it then does what is
        harmless, and fails at the same call again, it is the value."""
        self._call(operation, harmless, store)
        try:
            return self._call(operation, call, store, refused=refused)
        except PartlyUnavailable as error:
            if isinstance(error.__cause__, Exception) and meaning_of(error.__cause__)[0] is Meaning.UNTOLD:
                raise refused(error.detail) from error.__cause__
            raise

    def _raise(
        self,
        operation: str,
        meaning: Meaning,
        origin: BaseException,
        store: str,
        refused: Callable[[str], DriftlineError] | None,
        channel: Any,
    ) -> NoReturn:
        detail = f"{operation}: {str(origin)[:300]}"
        if isinstance(origin, Fenced):
            raise origin
        match meaning:
            case Meaning.SETTING:
                raise ConfigError(f"milvus.uri {self._settings.uri!r}: expected http(s)://host:port") from origin
            case Meaning.UNREACHABLE:
                raise Unavailable("milvus", detail) from origin
            case Meaning.REFUSED if refused is not None:
                raise refused(detail) from origin
            case Meaning.BUG:
                if isinstance(origin, ValueError) and channel is not self._client()._get_connection()._channel:
                    # gRPC's error of a closed channel: pymilvus connected anew while this call was under way.
                    raise Unavailable("milvus", f"{operation}: the connection was made anew") from origin
                raise origin
            case Meaning.REFUSED | Meaning.UNTOLD | Meaning.PART:
                # Whoever ensures it next looks again whether it is there and loaded.
                self._forget(store, self._tombstones)
                raise PartlyUnavailable("milvus", f"collection {store!r}: {detail}") from origin

    def _forget(self, *stores: str) -> None:
        with self._lock:
            self._ensured.difference_update(stores)

    def ping(self) -> None:
        self._call("ping", lambda c: c.list_collections(timeout=5))

    # Stores

    def ensure(self, target: StoreTarget) -> None:
        self._ensure_once(self._tombstones, lambda c: self._schemas.ensure_tombstones(c, self._tombstones))
        self._ensure_once(target.store, lambda c: self._schemas.ensure_store(c, target))

    def _ensure_once(self, store: str, make: Call[None]) -> None:
        with self._lock:
            if store in self._ensured:
                return
        # Without the lock: it takes seconds, and may be done twice at once.
        self._call("ensure", make, store)
        with self._lock:
            self._ensured.add(store)

    def drop(self, target: StoreTarget) -> None:
        self._call("drop", lambda c: c.drop_collection(target.store, **self._limit), target.store)
        self._forget(target.store)

    # Writing

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        def read(client: Any) -> dict[str, StoredVersion]:
            live: dict[str, tuple[int, int]] = {}
            for part in parts(keys, _KEYS_PER_CALL):
                pks = [f"{k}:0" for k in part]
                rows = self._read(client, target.store, pks, ["version", "chunks"], visible_from)
                live |= {row["pk"][:-2]: (row["version"], row["chunks"]) for row in rows}
            dead = self._dead(client, target, keys, visible_from)
            return merge_versions(live, dead)

        return self._call("versions", read, target.store)

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        check_plan(target, plan)
        with fence(guard) as written:
            if plan.removals:
                self._upsert("tombstone", self._tombstones, tombstones_of(target, plan.removals))
            # Before the upsert: a crash between the two leaves the old version short of its last chunks and its
            # count still old, so the replay trims again. After it, the count would be new and orphans forgotten.
            gone = [f"{r.key}:{i}" for r in plan.removals for i in range(r.chunks)]
            gone += [f"{key}:{i}" for key, new, old in plan.trims for i in range(new, old)]
            for pks in parts(gone, _KEYS_PER_CALL):
                self._delete(target.store, list(pks))
            for rows in writes_of(plan.upserts):
                self._upsert("upsert", target.store, rows)
                metrics.STORE_ROWS.inc(len(rows))
            if written.untimed:
                # Writing the tombstones once more changes nothing and gives a timestamp after the deletes; without any,
                # that of a key that no document has does.
                marks = plan.removals or (Removal("-", 0, 0),)
                self._upsert("tombstone", self._tombstones, tombstones_of(target, marks))
            return written.timestamp

    def _upsert(self, operation: str, store: str, rows: list[dict[str, Any]]) -> None:
        def write(client: Any) -> int:
            return int(client.upsert(store, rows, **self._limit)["upsert_count"])

        count = self._call(
            operation,
            write,
            store,
            refused=lambda detail: InvalidRecord("store_refused", detail, suspect=True),
            harmless=lambda c: self._take_out(c, store, ["-"]),
        )
        if count != len(rows):
            raise RuntimeError(f"Milvus wrote {count} of {len(rows)} rows and reported no error")

    def _delete(self, store: str, pks: list[str]) -> None:
        self._call("delete", lambda c: self._take_out(c, store, pks), store)

    def _take_out(self, client: Any, store: str, pks: list[str]) -> None:
        client.delete(store, ids=pks, partition_name=_PARTITION, **self._limit)

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        self._call("wait_visible", lambda c: self._read(c, target.store, ["-"], ["version"], timestamp), target.store)

    def purge_tombstones(self, before_us: int) -> int:
        self._ensure_once(self._tombstones, lambda c: self._schemas.ensure_tombstones(c, self._tombstones))

        def purge(client: Any) -> int:
            old = f"deleted_at_us < {int(before_us)}"
            rows = client.query(self._tombstones, filter=old, output_fields=["pk"], limit=10_000, **self._limit)
            pks = [row["pk"] for row in rows]
            if pks:
                self._take_out(client, self._tombstones, pks)
            return len(pks)

        return self._call("purge", purge, self._tombstones)

    # Reading

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[ChunkHit]]:
        if query.vectors.shape[1] != target.dimension:
            raise SpaceMismatch(target.store, f"dimension {target.dimension}", f"dimension {query.vectors.shape[1]}")
        check_query(query)
        counted: list[list[ChunkHit]] = []
        wider = query
        while True:
            found = self._found(target, wider)
            counted = self._counted(target, found, query.with_fields)
            # What does not count took the place of what does, and an update between the two reads looks just like it:
            # the first time all is read again, then only what is short of hits and may have more.
            short = any(
                len(good) < min(len(hits), query.limit) and (wider is query or len(hits) == wider.limit)
                for good, hits in zip(counted, found, strict=True)
            )
            if not short or wider.limit >= MAX_LIMIT:
                return [hits[: query.limit] for hits in counted]
            wider = replace(wider, limit=min(MAX_LIMIT, 2 * wider.limit))

    def _found(self, target: StoreTarget, query: VectorQuery) -> list[list[ChunkHit]]:
        plain = VectorQuery(np.eye(1, target.dimension, dtype=np.float32), 1, None, with_fields=False)
        found = self._call(
            "search",
            lambda c: self._search(c, target, query),
            target.store,
            refused=lambda detail: InvalidRequest("refused_by_store", f"the store cannot take it: {detail}", "filter"),
            harmless=lambda c: self._search(c, target, plain),
        )
        sign = -1.0 if target.metric == "l2" else 1.0
        return [[hit_of(raw["entity"], sign * raw["distance"]) for raw in hits] for hits in found]

    def _search(self, client: Any, target: StoreTarget, query: VectorQuery) -> Any:
        return client.search(
            target.store,
            data=list(np.ascontiguousarray(query.vectors)),
            filter=search_filter(query),
            limit=query.limit,
            output_fields=["key", "id", "version", "chunk", "text"],
            search_params={"params": {"ef": max(self._settings.hnsw_ef, query.limit)}},
            consistency_level="Strong" if query.visible_from else "Bounded",
            **self._limit,
        )

    def _counted(self, target: StoreTarget, found: list[list[ChunkHit]], with_fields: bool) -> list[list[ChunkHit]]:
        """The hits whose rows count, see `counts`, with the fields of their documents, which the head row holds.

        Milvus has lost deletes in several ways (docs/decisions/0017-lost-deletes.md).
        """
        keys = sorted({hit.key for hits in found for hit in hits})
        if not keys:
            return found
        wanted = ["key", "version", "chunks"] + (["fields"] if with_fields else [])

        def read(client: Any) -> tuple[dict[str, Any], dict[str, int]]:
            pks = parts([f"{key}:0" for key in keys], _HEADS_PER_CALL)
            heads = {row["key"]: row for part in pks for row in self._read(client, target.store, part, wanted, 0)}
            return heads, self._dead(client, target, keys, 0)

        heads, dead = self._call("fetch", read, target.store)
        known = {key: (head["version"], head["chunks"]) for key, head in heads.items()}
        return [
            [
                replace(hit, fields_json=heads[hit.key]["fields"].encode()) if with_fields else hit
                for hit in hits
                if counts(hit.version, hit.chunk, known.get(hit.key), dead.get(hit.key))
            ]
            for hits in found
        ]

    def _dead(self, client: Any, target: StoreTarget, keys: Sequence[str], visible_from: int | None) -> dict[str, int]:
        """The versions of tombstones."""
        dead: dict[str, int] = {}
        for part in parts(keys, _KEYS_PER_CALL):
            pks = [f"{target.collection_uid}:{key}" for key in part]
            rows = self._read(client, self._tombstones, pks, ["version"], visible_from)
            dead |= {row["pk"].rpartition(":")[2]: row["version"] for row in rows}
        return dead

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        wanted = ["key", "tenant", "id", "version", "chunk", "chunks", "text", "fields", "attributes"]
        if with_vectors:
            wanted.append("vector")

        def read(client: Any) -> list[StoredDocument]:
            heads = read_all(client, [f"{k}:0" for k in keys])
            # A tombstone is written before the rows go: a strong read of the rows that still finds one is of a delete
            # that was lost long ago, and whose tombstone any read sees.
            dead = self._dead(client, target, [head["key"] for head in heads], 0)
            heads = [
                head
                for head in heads
                if counts(head["version"], 0, (head["version"], head["chunks"]), dead.get(head["key"]))
            ]
            rows = read_all(client, [f"{h['key']}:{i}" for h in heads for i in range(1, h["chunks"])])
            tails: dict[str, list[Any]] = {head["key"]: [] for head in heads}
            for row in rows:
                tails[row["key"]].append(row)
            return [document_of(head, tails[head["key"]], with_vectors) for head in heads]

        def read_all(client: Any, pks: Sequence[str]) -> list[Any]:
            cut = parts(pks, _WHOLE_ROWS_PER_CALL)
            return [row for part in cut for row in self._read(client, target.store, part, wanted, None)]

        return self._call("fetch", read, target.store)

    def rows_up_to(self, target: StoreTarget, keys: Sequence[str]) -> Mapping[str, int]:
        def read(client: Any) -> dict[str, int]:
            found: dict[str, int] = {}
            for part in parts(sorted(set(keys)), _KEYS_PER_EXPRESSION):
                rows = client.query(
                    target.store,
                    filter=f"key in [{', '.join(literal(key) for key in part)}]",
                    output_fields=["key", "chunk"],
                    consistency_level="Strong",
                    **self._limit,
                )
                for row in rows:
                    found[row["key"]] = max(found.get(row["key"], 0), row["chunk"] + 1)
            return found

        return self._call("rows_up_to", read, target.store)

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        fields = ["key", "id", "version", "chunk"]
        # An iterator of Milvus 2.3 reads whatever is there: a strong read first makes that everything.
        self._call("scan", lambda c: self._read(c, target.store, ["-"], ["version"], None), target.store)
        iterator = self._call(
            "scan",
            lambda c: c.query_iterator(
                target.store,
                filter="chunk >= 0",
                output_fields=fields,
                batch_size=1_000,
                consistency_level="Strong",
                **self._limit,
            ),
            target.store,
        )
        try:
            while rows := self._call("scan", lambda _: iterator.next(), target.store):
                yield from ((row["key"], row["id"], row["version"], row["chunk"]) for row in rows)
        finally:
            iterator.close()

    def count(self, target: StoreTarget) -> int | None:
        def read(client: Any) -> int | None:
            if not client.has_collection(target.store, **self._limit):
                return None
            rows = client.query(
                target.store,
                filter="chunk == 0",
                output_fields=["count(*)"],
                consistency_level="Strong",
                **self._limit,
            )
            return int(rows[0]["count(*)"])

        return self._call("count", read, target.store)

    def _read(
        self, client: Any, store: str, pks: Sequence[str], fields: list[str], visible_from: int | None
    ) -> list[Any]:
        """Rows by primary key. `visible_from` None is a strong read; a timestamp waits for that write at most."""
        if visible_from is None:
            how: dict[str, Any] = {"consistency_level": "Strong"}
        else:
            # 1 is Milvus' timestamp for "whatever is there".
            how = {"consistency_level": "Customized", "guarantee_timestamp": max(1, visible_from)}
        if not pks:
            return []
        rows: list[Any] = client.query(store, ids=list(pks), output_fields=["pk", *fields], **how, **self._limit)
        return rows
