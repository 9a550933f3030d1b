"""Milvus: a collection per embedding space, its identity stored with it.

Rows are chunks. The row of chunk 0 carries the document's fields, its version and how many chunks it has, so a
version is read by primary key and a document is replaced by one upsert. Deleted versions live in one small
collection of tombstones. Works with Milvus 2.3 and later.
"""

from __future__ import annotations

from typing import Any

from driftline.adapters.milvus.fence import fence
from driftline.adapters.milvus.reader import KEYS_PER_CALL, MilvusReader
from driftline.adapters.milvus.rows import parts, tombstones_of, writes_of
from driftline.adapters.milvus.schema import Schemas
from driftline.adapters.store_rows import check_plan
from driftline.core import metrics
from driftline.core.errors import InvalidRecord
from driftline.core.ports import Guard
from driftline.core.settings import MilvusSettings
from driftline.core.store import Removal, StoreTarget, WritePlan

# Where all rows are. A delete that does not name it is for all partitions, and before 2.3.15 Milvus drops those when it
# loads a compacted segment: rows that were gone came back (docs/decisions/0017-lost-deletes.md).
_PARTITION = "_default"


class MilvusStore(MilvusReader):
    """The `VectorStore` of the services. Any method may be called from any thread, also several at once: pymilvus'
    connection is thread-safe, and the lease of a write belongs to the thread that makes it."""

    def __init__(self, settings: MilvusSettings) -> None:
        """Raises ConfigError; contacts nobody."""
        super().__init__(settings)
        self._schemas = Schemas(settings)

    # Stores

    def ensure(self, target: StoreTarget) -> None:
        self._ensure_tombstones()
        self._calls.ensure(target.store, lambda c: self._schemas.ensure_store(c, target))

    def _ensure_tombstones(self) -> None:
        name = self._calls.tombstones
        self._calls.ensure(name, lambda c: self._schemas.ensure_tombstones(c, name))

    def drop(self, target: StoreTarget) -> None:
        self._calls.call("drop", lambda c: c.drop_collection(target.store, **self._limit), target.store)
        self._calls.forget(target.store)

    # Writing

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        check_plan(target, plan)
        with fence(guard) as written:
            if plan.removals:
                self._upsert("tombstone", self._calls.tombstones, tombstones_of(target, plan.removals))
            # Before the upsert: a crash between the two leaves the old version short of its last chunks and its
            # count still old, so the replay trims again. After it, the count would be new and orphans forgotten.
            gone = [f"{r.key}:{i}" for r in plan.removals for i in range(r.chunks)]
            gone += [f"{key}:{i}" for key, new, old in plan.trims for i in range(new, old)]
            for pks in parts(gone, KEYS_PER_CALL):
                self._delete(target.store, list(pks))
            native = bool(plan.upserts) and self._is_native(target)
            for rows in writes_of(plan.upserts, native):
                self._upsert("upsert", target.store, rows)
                metrics.STORE_ROWS.inc(len(rows))
            if written.untimed:
                # Writing the tombstones once more changes nothing and gives a timestamp after the deletes; without any,
                # that of a key that no document has does.
                marks = plan.removals or (Removal("-", 0, 0),)
                self._upsert("tombstone", self._calls.tombstones, tombstones_of(target, marks))
            return written.timestamp

    def _upsert(self, operation: str, store: str, rows: list[dict[str, Any]]) -> None:
        def write(client: Any) -> int:
            return int(client.upsert(store, rows, **self._limit)["upsert_count"])

        count = self._calls.call(
            operation,
            write,
            store,
            refused=lambda detail: InvalidRecord("store_refused", detail, suspect=True),
            harmless=lambda c: self._take_out(c, store, ["-"]),
        )
        if count != len(rows):
            raise RuntimeError(f"Milvus wrote {count} of {len(rows)} rows and reported no error")

    def _delete(self, store: str, pks: list[str]) -> None:
        self._calls.call("delete", lambda c: self._take_out(c, store, pks), store)

    def _take_out(self, client: Any, store: str, pks: list[str]) -> None:
        client.delete(store, ids=pks, partition_name=_PARTITION, **self._limit)

    def purge_tombstones(self, before_us: int) -> int:
        self._ensure_tombstones()

        def purge(client: Any) -> int:
            old = f"deleted_at_us < {int(before_us)}"
            rows = client.query(self._calls.tombstones, filter=old, output_fields=["pk"], limit=10_000, **self._limit)
            pks = [row["pk"] for row in rows]
            if pks:
                self._take_out(client, self._calls.tombstones, pks)
            return len(pks)

        return self._calls.call("purge", purge, self._calls.tombstones)
