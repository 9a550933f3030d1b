"""Milvus: a collection per embedding space, its identity stored with it.

Rows are chunks. The row of chunk 0 carries the document's fields, its version and how many chunks it has, so a
version is read by primary key and a document is replaced by one upsert. Deleted versions live in one small
collection of tombstones. Works with Milvus 2.3 and later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np
import orjson
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from driftline.adapters.milvus_fence import FENCE, guard_writes
from driftline.adapters.milvus_filter import expression, literal
from driftline.core import metrics
from driftline.core.errors import SpaceMismatch, Unavailable
from driftline.core.ports import Guard
from driftline.core.records import (
    ChunkHit,
    Removal,
    StoredDocument,
    StoredVersion,
    StoreTarget,
    VectorQuery,
    WritePlan,
    now_us,
)
from driftline.core.settings import MilvusSettings, read_secret

_T = TypeVar("_T")
# Milvus answers at most 16,384 rows a query, and messages are bounded; measured best between 1,000 and 4,000.
_KEYS_PER_CALL = 2_000
_ROWS_PER_WRITE = 1_000
_METRICS = {"cosine": "COSINE", "ip": "IP", "l2": "L2"}


class MilvusStore:
    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connected: Any = None
        self._ensured: set[str] = set()
        self._tombstones = f"{settings.prefix}tombstones"

    # Connection and errors

    def _client(self) -> Any:
        with self._lock:
            if self._connected is None:
                token = read_secret(self._settings.token_file)
                self._connected = MilvusClient(
                    uri=self._settings.uri,
                    token=token.get_secret_value() if token else "",
                    db_name=self._settings.database,
                    timeout=min(10.0, self._settings.timeout_seconds),
                )
            guard_writes(self._connected._get_connection()._stub, self._settings.timeout_seconds)
            return self._connected

    def _call(self, operation: str, call: Callable[[Any], _T]) -> _T:
        try:
            with metrics.STORE_SECONDS.labels(operation).time():
                return call(self._client())
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError, ValueError, OSError) as error:
            if FENCE.fenced is not None:
                raise FENCE.fenced from error
            raise Unavailable("milvus", f"{operation}: {str(error)[:300]}") from error

    def ping(self) -> None:
        self._call("ping", lambda c: c.list_collections(timeout=5))

    # Stores

    def ensure(self, target: StoreTarget) -> None:
        if target.store in self._ensured:
            return
        self._call("ensure", self._ensure_tombstones)
        self._call("ensure", lambda c: self._ensure(c, target))
        self._ensured.add(target.store)

    def _ensure(self, client: Any, target: StoreTarget) -> None:
        identity = {"space": target.space, "dimension": target.dimension, "metric": target.metric}
        schema = client.create_schema(
            auto_id=False, enable_dynamic_field=False, description=orjson.dumps(identity).decode()
        )
        schema.add_field("pk", DataType.VARCHAR, max_length=48, is_primary=True)
        schema.add_field("key", DataType.VARCHAR, max_length=32)
        schema.add_field("tenant", DataType.VARCHAR, max_length=128)
        schema.add_field("id", DataType.VARCHAR, max_length=512)
        schema.add_field("version", DataType.INT64)
        schema.add_field("chunk", DataType.INT32)
        schema.add_field("chunks", DataType.INT32)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535)
        schema.add_field("fields", DataType.VARCHAR, max_length=65_535)
        schema.add_field("attributes", DataType.JSON)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=target.dimension)
        index = client.prepare_index_params()
        index.add_index(
            "vector",
            index_type="HNSW",
            metric_type=_METRICS[target.metric],
            params={"M": self._settings.hnsw_m, "efConstruction": self._settings.hnsw_ef_construction},
        )
        self._create(client, target.store, schema, index)
        found = client.describe_collection(target.store)
        stored = _identity(found.get("description", ""))
        if stored.get("space") != target.space or stored.get("dimension") != target.dimension:
            raise SpaceMismatch(f"milvus collection {target.store!r}", target.space, str(stored.get("space", "")))

    def _ensure_tombstones(self, client: Any) -> None:
        if self._tombstones in self._ensured:
            return
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description="driftline tombstones")
        schema.add_field("pk", DataType.VARCHAR, max_length=80, is_primary=True)
        schema.add_field("version", DataType.INT64)
        schema.add_field("deleted_at_us", DataType.INT64)
        # Milvus 2.3 wants a vector in every collection; this one is never searched.
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2", params={})
        self._create(client, self._tombstones, schema, index)
        self._ensured.add(self._tombstones)

    def _create(self, client: Any, name: str, schema: Any, index: Any) -> None:
        """Make a collection with its index, loaded. A creation that stopped half-way, here or in another process, is
        brought to its end: each of the three steps can be done again."""
        if not client.has_collection(name):
            try:
                client.create_collection(
                    name, schema=schema, num_shards=self._settings.shards, consistency_level="Bounded"
                )
            except MilvusException:
                # Another replica may have been first.
                if not client.has_collection(name):
                    raise
        if "Loaded" in str(client.get_load_state(name)):
            return
        if not client.list_indexes(name):
            client.create_index(name, index)
        client.load_collection(name)

    def drop(self, target: StoreTarget) -> None:
        self._call("drop", lambda c: c.drop_collection(target.store))
        self._ensured.discard(target.store)

    # Writing

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        def read(client: Any) -> dict[str, StoredVersion]:
            live: dict[str, tuple[int, int]] = {}
            for part in _parts(keys, _KEYS_PER_CALL):
                rows = _read(client, target.store, [f"{k}:0" for k in part], ["version", "chunks"], visible_from)
                live |= {row["pk"][:-2]: (row["version"], row["chunks"]) for row in rows}
            dead: dict[str, int] = {}
            for part in _parts(keys, _KEYS_PER_CALL):
                pks = [f"{target.collection_uid}:{k}" for k in part]
                rows = _read(client, self._tombstones, pks, ["version"], visible_from)
                dead |= {row["pk"].rpartition(":")[2]: row["version"] for row in rows}
            return _merge_versions(live, dead)

        return self._call("versions", read)

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        FENCE.guard, FENCE.timestamp, FENCE.untimed, FENCE.fenced = guard, 0, False, None
        try:
            if plan.removals:
                self._call("tombstone", lambda c: self._write_tombstones(c, target, plan.removals))
            # Before the upsert: a crash between the two leaves the old version short of its last chunks and its
            # count still old, so the replay trims again. After it, the count would be new and orphans forgotten.
            gone = [f"{r.key}:{i}" for r in plan.removals for i in range(r.chunks)]
            gone += [f"{key}:{i}" for key, new, old in plan.trims for i in range(new, old)]
            for part in _parts(gone, _KEYS_PER_CALL):
                self._call("delete", lambda c, p=part: c.delete(target.store, ids=p))  # type: ignore[misc]
            rows = [row for document in plan.upserts for row in _rows(document)]
            for rows_part in _parts(rows, _ROWS_PER_WRITE):
                self._call("upsert", lambda c, p=rows_part: self._upsert(c, target.store, p))  # type: ignore[misc]
            if FENCE.untimed:
                # Writing the tombstones once more changes nothing and gives a timestamp after the deletes; without any,
                # that of a key that no document has does.
                marks = plan.removals or (Removal("-", 0, 0),)
                self._call("tombstone", lambda c: self._write_tombstones(c, target, marks))
            metrics.STORE_ROWS.inc(len(rows))
            return FENCE.timestamp
        finally:
            FENCE.guard, FENCE.fenced = None, None

    @staticmethod
    def _upsert(client: Any, store: str, rows: Sequence[dict[str, Any]]) -> None:
        written = client.upsert(store, list(rows))["upsert_count"]
        if written != len(rows):
            raise ValueError(f"{written} of {len(rows)} rows were written")

    def _write_tombstones(self, client: Any, target: StoreTarget, removals: Sequence[Removal]) -> None:
        self._upsert(
            client,
            self._tombstones,
            [
                {
                    "pk": f"{target.collection_uid}:{r.key}",
                    "version": r.version,
                    "deleted_at_us": now_us(),
                    "vector": [0.0, 0.0],
                }
                for r in removals
            ],
        )

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        self._call("wait_visible", lambda c: _read(c, target.store, ["-"], ["version"], timestamp))

    def purge_tombstones(self, before_us: int) -> int:
        def purge(client: Any) -> int:
            self._ensure_tombstones(client)
            old = f"deleted_at_us < {int(before_us)}"
            rows = client.query(self._tombstones, filter=old, output_fields=["pk"], limit=10_000)
            pks = [row["pk"] for row in rows]
            if pks:
                client.delete(self._tombstones, ids=pks)
            return len(pks)

        return self._call("purge", purge)

    # Reading

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[ChunkHit]]:
        if query.vectors.shape[1] != target.dimension:
            raise SpaceMismatch(target.store, f"dimension {target.dimension}", f"dimension {query.vectors.shape[1]}")
        wanted = ["key", "id", "version", "chunk", "text"] + (["fields"] if query.with_fields else [])
        found = self._call(
            "search",
            lambda c: c.search(
                target.store,
                data=list(np.ascontiguousarray(query.vectors)),
                filter=_search_filter(query),
                limit=query.limit,
                output_fields=wanted,
                search_params={"params": {"ef": max(self._settings.hnsw_ef, query.limit)}},
                consistency_level="Strong" if query.visible_from else "Bounded",
                timeout=self._settings.timeout_seconds,
            ),
        )
        sign = -1.0 if target.metric == "l2" else 1.0
        hits = [[_hit(raw["entity"], sign * raw["distance"]) for raw in hits] for hits in found]
        return self._with_fields(target, hits) if query.with_fields else hits

    def _with_fields(self, target: StoreTarget, found: list[list[ChunkHit]]) -> list[list[ChunkHit]]:
        """Only the row of chunk 0 holds a document's fields: fetch them for hits on later chunks."""
        bare = sorted({hit.key for hits in found for hit in hits if hit.chunk > 0})
        if not bare:
            return found
        rows = self._call(
            "fetch",
            lambda c: _read(c, target.store, [f"{k}:0" for k in bare], ["key", "fields"], visible_from=0),
        )
        fields = {row["key"]: row["fields"].encode() for row in rows}
        return [
            [
                hit if hit.chunk == 0 else ChunkHit(
                    hit.key, hit.id, hit.version, hit.chunk, hit.score, hit.text, fields.get(hit.key, b"")
                )
                for hit in hits
            ]
            for hits in found
        ]  # fmt: skip

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        wanted = ["key", "tenant", "id", "version", "chunk", "chunks", "text", "fields", "attributes"]
        if with_vectors:
            wanted.append("vector")

        def read(client: Any) -> list[StoredDocument]:
            heads = _read(client, target.store, [f"{k}:0" for k in keys], wanted, None)
            tails = [f"{h['key']}:{i}" for h in heads for i in range(1, h["chunks"])]
            rows = [r for part in _parts(tails, 200) for r in _read(client, target.store, part, wanted, None)]
            return [_document(head, [r for r in rows if r["key"] == head["key"]], with_vectors) for head in heads]

        return self._call("fetch", read)

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        fields = ["key", "id", "version", "chunk"]
        # An iterator of Milvus 2.3 reads whatever is there: a strong read first makes that everything.
        self._call("scan", lambda c: _read(c, target.store, ["-"], ["version"], None))
        iterator = self._call(
            "scan",
            lambda c: c.query_iterator(
                target.store,
                filter="chunk >= 0",
                output_fields=fields,
                batch_size=1_000,
                consistency_level="Strong",
            ),
        )
        try:
            while rows := self._call("scan", lambda _: iterator.next()):
                yield from ((row["key"], row["id"], row["version"], row["chunk"]) for row in rows)
        finally:
            iterator.close()

    def count(self, target: StoreTarget) -> int | None:
        def read(client: Any) -> int | None:
            if not client.has_collection(target.store):
                return None
            rows = client.query(
                target.store, filter="chunk == 0", output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(rows[0]["count(*)"])

        return self._call("count", read)


def _identity(description: str) -> dict[str, Any]:
    try:
        found = orjson.loads(description)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _read(client: Any, store: str, pks: Sequence[str], fields: list[str], visible_from: int | None) -> list[Any]:
    """Rows by primary key. `visible_from` None is a strong read; a timestamp waits for that write at most."""
    if visible_from is None:
        how: dict[str, Any] = {"consistency_level": "Strong"}
    else:
        # 1 is Milvus' timestamp for "whatever is there".
        how = {"consistency_level": "Customized", "guarantee_timestamp": max(1, visible_from)}
    rows: list[Any] = client.query(store, ids=list(pks), output_fields=["pk", *fields], **how) if pks else []
    return rows


def _merge_versions(live: Mapping[str, tuple[int, int]], dead: Mapping[str, int]) -> dict[str, StoredVersion]:
    merged = {key: StoredVersion(version, chunks, False) for key, (version, chunks) in live.items()}
    for key, version in dead.items():
        stored = merged.get(key)
        if stored is None or version > stored.version:
            # Rows that outlived their tombstone (a crash between the two writes) are counted: a replay removes them.
            merged[key] = StoredVersion(version, stored.chunks if stored else 0, True)
    return merged


def _rows(document: StoredDocument) -> Iterator[dict[str, Any]]:
    for ordinal, (text, vector) in enumerate(zip(document.chunks, document.vectors, strict=True)):
        yield {
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


def _search_filter(query: VectorQuery) -> str:
    parts = []
    if query.tenant is not None:
        parts.append(f"tenant == {literal(query.tenant)}")
    if query.exclude_key:
        parts.append(f"key != {literal(query.exclude_key)}")
    if query.filter is not None:
        parts.append(expression(query.filter))
    return " and ".join(parts)


def _hit(row: Mapping[str, Any], score: float) -> ChunkHit:
    return ChunkHit(
        row["key"],
        row["id"],
        row["version"],
        row["chunk"],
        score,
        row["text"],
        row.get("fields", "").encode(),
    )


def _document(head: Mapping[str, Any], tail: list[Any], with_vectors: bool) -> StoredDocument:
    rows = [
        head,
        *sorted((r for r in tail if r["version"] == head["version"]), key=lambda r: int(r["chunk"])),
    ]
    vectors = np.array([r["vector"] for r in rows], dtype=np.float32) if with_vectors else np.empty((0, 0), np.float32)
    return StoredDocument(
        head["key"], head["tenant"], head["id"], head["version"], head["fields"].encode(),
        head["attributes"], tuple(r["text"] for r in rows), vectors,
    )  # fmt: skip
