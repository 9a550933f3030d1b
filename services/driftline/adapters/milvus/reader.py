"""Reading of Milvus' collections: versions, searches, documents."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from driftline.adapters.milvus.calls import MilvusCalls
from driftline.adapters.milvus.filter import literal
from driftline.adapters.milvus.rows import document_of, hit_of, merge_versions, parts, search_filter
from driftline.adapters.milvus.sparse import candidates, is_native, of_texts, sketch, to_terms
from driftline.adapters.store_rows import MAX_LIMIT, check_query, check_shape, counts
from driftline.core.errors import InvalidRequest
from driftline.core.settings import MilvusSettings
from driftline.core.store import Hit, StoredDocument, StoredVersion, StoreTarget, VectorQuery
from driftline.core.vectors import Sparse, Vectors, as_dense

# Milvus answers at most 16,384 rows a query; measured best between 1,000 and 4,000.
KEYS_PER_CALL = 2_000
# With every column: Milvus answers at most 100 MiB, and a row may have 330 KB.
_WHOLE_ROWS_PER_CALL = 200
# With the fields: 65 KB at most.
_HEADS_PER_CALL = 1_000
# A document has some rows, and Milvus answers at most 16,384.
_KEYS_PER_EXPRESSION = 100
# Searches at once whose two reads of heads and tombstones overlap; others make them one after the other.
_BESIDE = 16


# Of a hit.
_SHOWN = ["key", "id", "version", "chunk", "text"]


def _refused(detail: str) -> InvalidRequest:
    return InvalidRequest("refused_by_store", f"the store cannot take it: {detail}", "filter")


class MilvusReader:
    """The reading half of the store."""

    def __init__(self, settings: MilvusSettings) -> None:
        """Raises ConfigError; contacts nobody."""
        self._settings = settings
        self._limit = {"timeout": settings.timeout_seconds}
        self._calls = MilvusCalls(settings)
        self._lock = threading.Lock()
        # By store, which is made once under its name.
        self._natives: dict[str, bool] = {}
        self._beside = ThreadPoolExecutor(_BESIDE, thread_name_prefix="tombstones")

    def ping(self) -> None:
        self._calls.call("ping", lambda c: c.list_collections(timeout=5))

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        def read(client: Any) -> dict[str, StoredVersion]:
            live: dict[str, tuple[int, int]] = {}
            for part in parts(keys, KEYS_PER_CALL):
                pks = [f"{k}:0" for k in part]
                rows = self._read(client, target.store, pks, ["version", "chunks"], visible_from)
                live |= {row["pk"][:-2]: (row["version"], row["chunks"]) for row in rows}
            dead = self._dead(client, target, keys, visible_from)
            return merge_versions(live, dead)

        return self._calls.call("versions", read, target.store)

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        self._calls.call(
            "wait_visible", lambda c: self._read(c, target.store, ["-"], ["version"], timestamp), target.store
        )

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[Hit]]:
        check_shape(target, query)
        check_query(query)
        counted: list[list[Hit]] = []
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

    def _found(self, target: StoreTarget, query: VectorQuery) -> list[list[Hit]]:
        if isinstance(query.vectors, Sparse) and not self._is_native(target):
            return [self._rescored(target, query, row) for row in query.vectors]
        first = query.vectors[0] if isinstance(query.vectors, Sparse) else np.eye(1, target.dimension, dtype=np.float32)
        plain = VectorQuery(first, 1, None, with_fields=False)
        found = self._calls.call(
            "search",
            lambda c: self._search(c, target, query, query.vectors, _SHOWN),
            target.store,
            refused=_refused,
            harmless=lambda c: self._search(c, target, plain, plain.vectors, _SHOWN),
        )
        sign = -1.0 if target.metric == "l2" and target.kind == "dense" else 1.0
        hits = [[hit_of(raw["entity"], sign * raw["distance"]) for raw in row] for row in found]
        if isinstance(query.vectors, Sparse):
            return [of if asked else [] for of, asked in zip(hits, np.diff(query.vectors.starts), strict=True)]
        return hits

    def _rescored(self, target: StoreTarget, query: VectorQuery, row: Sparse) -> list[Hit]:
        """The best rows of a sparse store for one row: candidates by their sketches, ranked by their exact scores."""
        asked = replace(query, limit=candidates(query.limit, MAX_LIMIT))
        plain = replace(query, filter=None, tenant=None, limit=1)
        vectors, shown = sketch(row), ["key", "id", "version", "chunk", "weights"]
        (found,) = self._calls.call(
            "search",
            lambda c: self._search(c, target, asked, vectors, shown),
            target.store,
            refused=_refused,
            harmless=lambda c: self._search(c, target, plain, vectors, shown),
        )
        scores = of_texts([raw["entity"]["weights"] for raw in found]).dot(row)
        hits = [hit_of(raw["entity"], float(score)) for raw, score in zip(found, scores, strict=True) if score > 0]
        return self._with_texts(target, sorted(hits, key=lambda h: (-h.score, h.key, h.chunk))[: query.limit])

    def _with_texts(self, target: StoreTarget, hits: Sequence[Hit]) -> list[Hit]:
        """Of what was not written meanwhile."""
        pks = [f"{hit.key}:{hit.chunk}" for hit in hits]

        def read(client: Any) -> dict[str, Any]:
            cut = parts(pks, _HEADS_PER_CALL)
            rows = [row for part in cut for row in self._read(client, target.store, part, ["version", "text"], 0)]
            return {row["pk"]: row for row in rows}

        rows = self._calls.call("fetch", read, target.store)
        return [
            replace(hit, text=rows[pk]["text"])
            for pk, hit in zip(pks, hits, strict=True)
            if pk in rows and rows[pk]["version"] == hit.version
        ]

    def _is_native(self, target: StoreTarget) -> bool:
        """Whether the store holds sparse vectors of Milvus' own. A store keeps what it was made with."""
        if target.kind != "sparse":
            return False
        with self._lock:
            known = self._natives.get(target.store)
        if known is None:
            known = self._calls.call(
                "describe", lambda c: is_native(c.describe_collection(target.store, **self._limit)), target.store
            )
            with self._lock:
                self._natives[target.store] = known
        return known

    def _search(self, client: Any, target: StoreTarget, query: VectorQuery, vectors: Vectors, shown: list[str]) -> Any:
        data: list[Any]
        if isinstance(vectors, Sparse):
            data, params = [to_terms(row) for row in vectors], {}
        else:
            data = list(np.ascontiguousarray(as_dense(vectors)))
            params = {"ef": max(self._settings.hnsw_ef, query.limit)}
        return client.search(
            target.store,
            data=data,
            anns_field="vector",
            filter=search_filter(query),
            limit=query.limit,
            output_fields=shown,
            search_params={"params": params},
            consistency_level="Strong" if query.strong else "Bounded",
            **self._limit,
        )

    def _counted(self, target: StoreTarget, found: list[list[Hit]], with_fields: bool) -> list[list[Hit]]:
        """The hits whose rows count, see `counts`, with the fields of their documents, which the head row holds.

        Milvus has lost deletes in several ways (docs/decisions/0017-lost-deletes.md).
        """
        keys = sorted({hit.key for hits in found for hit in hits})
        if not keys:
            return found
        wanted = ["key", "version", "chunks"] + (["fields"] if with_fields else [])

        def read(client: Any) -> tuple[dict[str, Any], dict[str, int]]:
            buried = self._beside.submit(self._dead, client, target, keys, 0)
            try:
                pks = parts([f"{key}:0" for key in keys], _HEADS_PER_CALL)
                heads = {row["key"]: row for part in pks for row in self._read(client, target.store, part, wanted, 0)}
            finally:
                # Of a read that has not begun, all threads are busy: then it is quicker done here.
                waits = buried.cancel()
            return heads, self._dead(client, target, keys, 0) if waits else buried.result()

        heads, dead = self._calls.call("fetch", read, target.store)
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
        for part in parts(keys, KEYS_PER_CALL):
            pks = [f"{target.collection_uid}:{key}" for key in part]
            rows = self._read(client, self._calls.tombstones, pks, ["version"], visible_from)
            dead |= {row["pk"].rpartition(":")[2]: row["version"] for row in rows}
        return dead

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        wanted = ["key", "tenant", "id", "version", "chunk", "chunks", "text", "fields", "attributes"]
        if with_vectors:
            wanted.append("weights" if target.kind == "sparse" and not self._is_native(target) else "vector")

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

        return self._calls.call("fetch", read, target.store)

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

        return self._calls.call("rows_up_to", read, target.store)

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        fields = ["key", "id", "version", "chunk"]
        # An iterator of Milvus 2.3 reads whatever is there: a strong read first makes that everything.
        self._calls.call("scan", lambda c: self._read(c, target.store, ["-"], ["version"], None), target.store)
        iterator = self._calls.call(
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
            while rows := self._calls.call("scan", lambda _: iterator.next(), target.store):
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

        return self._calls.call("count", read, target.store)

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
