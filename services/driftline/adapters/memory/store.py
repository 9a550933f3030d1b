"""The vector store."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from driftline.adapters.store_rows import check_plan, check_query, check_shape, counts
from driftline.core.errors import InvalidRecord, PartlyUnavailable, SpaceMismatch, Unavailable
from driftline.core.filters import matches
from driftline.core.ports import Guard
from driftline.core.records import now_us
from driftline.core.store import Hit, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from driftline.core.vectors import Matrix, Sparse, score


class MemoryStore:
    """Exact search.

    What tests turn: `failing` is raised by every call, `failing_stores` by those for a store of that name, `refused`
    holds ids of documents that `apply` can never take, and `crash_after` makes `apply` fail after that many of its
    three steps, as a crash would. While `loses_deletes`, rows that a plan takes out stay, as it happens in Milvus.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._identities: dict[str, StoreTarget] = {}
        self._rows: dict[str, dict[tuple[str, int], tuple[StoredDocument, int]]] = defaultdict(dict)
        self._tombstones: dict[tuple[str, str], tuple[int, int]] = {}
        self._timestamp = 0
        self.failing: Unavailable | None = None
        self.failing_stores: dict[str, Unavailable] = {}
        self.refused: set[str] = set()
        self.crash_after: int | None = None
        self.loses_deletes = False

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing

    def _usable(self, target: StoreTarget) -> None:
        """Raises what a call for this store raises, PartlyUnavailable when it was never made."""
        self._reachable(target)
        if target.store not in self._identities:
            raise PartlyUnavailable("memory store", f"there is no store {target.store!r}")

    def _reachable(self, target: StoreTarget) -> None:
        self._check()
        if target.store in self.failing_stores:
            raise self.failing_stores[target.store]

    def ensure(self, target: StoreTarget) -> None:
        self._reachable(target)
        with self._lock:
            found = self._identities.setdefault(target.store, target)
        if (found.space, found.dimension) != (target.space, target.dimension):
            raise SpaceMismatch(f"store {target.store!r}", target.space, found.space)

    def drop(self, target: StoreTarget) -> None:
        self._reachable(target)
        with self._lock:
            self._identities.pop(target.store, None)
            self._rows.pop(target.store, None)

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        del visible_from
        self._usable(target)
        found: dict[str, StoredVersion] = {}
        with self._lock:
            for key in keys:
                head = self._rows[target.store].get((key, 0))
                tombstone = self._tombstones.get((target.collection_uid, key))
                if head is not None:
                    found[key] = StoredVersion(head[0].version, head[1], False)
                if tombstone is not None and (head is None or tombstone[0] > head[0].version):
                    found[key] = StoredVersion(tombstone[0], head[1] if head else 0, True)
        return found

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        self._usable(target)
        check_plan(target, plan)
        if any(document.id in self.refused for document in plan.upserts):
            raise InvalidRecord("store_refused", "a row of the plan is refused", suspect=True)
        steps = [self._write_tombstones, self._delete_rows, self._upsert_rows]
        for number, step in enumerate(steps):
            if self.crash_after == number:
                self.crash_after = None
                raise Unavailable("memory store", "crashed")
            guard()
            with self._lock:
                step(target, plan)
        with self._lock:
            self._timestamp += 1
            return self._timestamp

    def _write_tombstones(self, target: StoreTarget, plan: WritePlan) -> None:
        for r in plan.removals:
            self._tombstones[(target.collection_uid, r.key)] = (r.version, now_us())

    def _delete_rows(self, target: StoreTarget, plan: WritePlan) -> None:
        if self.loses_deletes:
            return
        rows = self._rows[target.store]
        for r in plan.removals:
            for i in range(r.chunks):
                rows.pop((r.key, i), None)
        for key, new, old in plan.trims:
            for i in range(new, old):
                rows.pop((key, i), None)

    def _upsert_rows(self, target: StoreTarget, plan: WritePlan) -> None:
        for document in plan.upserts:
            for i in range(len(document.chunks)):
                self._rows[target.store][(document.key, i)] = (document, len(document.chunks))

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        del timestamp
        self._usable(target)

    def purge_tombstones(self, before_us: int) -> int:
        self._check()
        with self._lock:
            old = [k for k, (_, at) in self._tombstones.items() if at < before_us]
            for key in old:
                del self._tombstones[key]
        return len(old)

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[Hit]]:
        self._usable(target)
        check_shape(target, query)
        check_query(query)
        with self._lock:
            rows = [
                (document, i)
                for (_, i), (document, _) in self._rows[target.store].items()
                if self._counts(target, document, i)
                and (query.tenant is None or document.tenant == query.tenant)
                and document.key not in query.exclude_keys
                and (query.filter is None or matches(query.filter, document.attributes))
            ]
        return [self._nearest(target, vector, rows, query.limit) for vector in query.vectors]

    def _counts(self, target: StoreTarget, document: StoredDocument, chunk: int) -> bool:
        head = self._rows[target.store].get((document.key, 0))
        tombstone = self._tombstones.get((target.collection_uid, document.key))
        return counts(
            document.version,
            chunk,
            None if head is None else (head[0].version, head[1]),
            None if tombstone is None else tombstone[0],
        )

    @staticmethod
    def _nearest(
        target: StoreTarget, vector: Matrix | Sparse, rows: list[tuple[StoredDocument, int]], limit: int
    ) -> list[Hit]:
        scored = []
        for document, i in rows:
            found = score(target.metric, vector, document.vectors[i])
            # What shares no term with a sparse query is not found by it.
            if found > 0 or not isinstance(vector, Sparse):
                scored.append((found, document, i))
        scored.sort(key=lambda s: (-s[0], s[1].key, s[2]))
        return [Hit(d.key, d.id, d.version, i, found, d.chunks[i], d.fields_json) for found, d, i in scored[:limit]]

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        del with_vectors
        self._usable(target)
        with self._lock:
            heads = [self._rows[target.store].get((key, 0)) for key in keys]
            return [head[0] for head in heads if head is not None and self._counts(target, head[0], 0)]

    def rows_up_to(self, target: StoreTarget, keys: Sequence[str]) -> Mapping[str, int]:
        self._usable(target)
        found: dict[str, int] = {}
        with self._lock:
            for key, chunk in self._rows[target.store]:
                if key in keys:
                    found[key] = max(found.get(key, 0), chunk + 1)
        return found

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        self._usable(target)
        with self._lock:
            rows = list(self._rows[target.store].items())
        yield from ((key, document.id, document.version, i) for (key, i), (document, _) in rows)

    def count(self, target: StoreTarget) -> int | None:
        self._reachable(target)
        with self._lock:
            if target.store not in self._identities:
                return None
            return sum(1 for _, chunk in self._rows[target.store] if chunk == 0)

    def ping(self) -> None:
        self._check()
