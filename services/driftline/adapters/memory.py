"""The in-memory twins of the ports: what unit tests run on, held to the same contract suites as the real ones."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from driftline.core.errors import Fenced, NotLoaded, SpaceMismatch, Unavailable
from driftline.core.ports import EmbedAnswer, Guard
from driftline.core.records import (
    ChunkHit,
    Incoming,
    Matrix,
    Outgoing,
    Priority,
    Space,
    StoredDocument,
    StoredVersion,
    StoreTarget,
    VectorQuery,
    WritePlan,
    now_us,
)
from driftline.retrieval.filters import matches


class MemoryLog:
    """Topics as lists. Share one between publishers, subscribers and readers."""

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        self.records: dict[tuple[str, int], list[Incoming]] = defaultdict(list)
        self.committed: dict[tuple[str, str, int], int] = {}
        self.lock = threading.Lock()

    def append(self, record: Outgoing) -> tuple[int, int]:
        with self.lock:
            partition = record.partition
            if partition is None:
                partition = int.from_bytes(hashlib.blake2b(record.key, digest_size=4).digest()) % self.partitions
            entries = self.records[(record.topic, partition)]
            offset = len(entries)
            entries.append(
                Incoming(
                    record.topic,
                    partition,
                    offset,
                    record.key,
                    record.value,
                    record.headers,
                    now_us() // 1000,
                )
            )
            return partition, offset

    def all(self, topic: str) -> list[Incoming]:
        """Every record of a topic, in order per partition."""
        with self.lock:
            return [r for (name, _), entries in sorted(self.records.items()) if name == topic for r in entries]


class MemoryPublisher:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.failing: Unavailable | None = None

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        del timeout_seconds
        if self.failing is not None:
            raise self.failing
        return [self._log.append(record) for record in records]

    def close(self) -> None:
        return


class MemorySubscriber:
    """The only member of its group: owns every partition from its first poll."""

    def __init__(self, log: MemoryLog, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._group = group
        self._topics = set(topics)
        self._positions: dict[tuple[str, int], int] = {}
        self._paused = False
        self.lease = 10.0
        self.fenced = False

    def _owned(self) -> list[tuple[str, int]]:
        return sorted(tp for tp in list(self._log.records) if tp[0] in self._topics)

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        polled: list[Incoming] = []
        if not self._paused:
            with self._log.lock:
                for tp in self._owned():
                    position = self._positions.setdefault(tp, self._log.committed.get((self._group, *tp), 0))
                    taken = self._log.records[tp][position : position + max_records - len(polled)]
                    self._positions[tp] = position + len(taken)
                    polled += taken
        if not polled:
            time.sleep(min(timeout_seconds, 0.002))
        return polled

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        if self.fenced:
            raise Fenced("the group has moved on")
        for tp, offset in offsets.items():
            self._log.committed[(self._group, *tp)] = offset

    def rewind(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._positions.update(offsets)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def lease_seconds(self) -> float:
        return self.lease

    def lag(self) -> Mapping[tuple[str, int], int]:
        return {tp: len(self._log.records[tp]) - self._positions.get(tp, 0) for tp in self._owned()}

    def close(self) -> None:
        return


class MemoryLogReader:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[tuple[str, int], int] = {}

    def ends(self, topic: str) -> Mapping[int, int]:
        with self._log.lock:
            return {p: len(self._log.records[(topic, p)]) for p in range(self._log.partitions)}

    def seek(self, positions: Mapping[tuple[str, int], int]) -> None:
        self._positions = dict(positions)

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        polled: list[Incoming] = []
        with self._log.lock:
            for tp, position in self._positions.items():
                taken = self._log.records[tp][position : position + max_records - len(polled)]
                self._positions[tp] = position + len(taken)
                polled += taken
        if not polled:
            time.sleep(min(timeout_seconds, 0.002))
        return polled

    def close(self) -> None:
        return


class MemoryTopicAdmin:
    def __init__(self) -> None:
        self.topics: dict[str, tuple[str, int, dict[str, str]]] = {}

    def describe(self, topic: str) -> tuple[str, int] | None:
        found = self.topics.get(topic)
        return None if found is None else found[:2]

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, str]) -> None:
        del replicas
        self.topics.setdefault(topic, (f"id-{topic}-{now_us()}", partitions, dict(config)))

    def config(self, topic: str) -> Mapping[str, str]:
        return self.topics[topic][2]

    def close(self) -> None:
        return


class MemoryEmbedder:
    """Signed feature hashing of lower-case words: a lexical encoder without weights (Weinberger et al. 2009)."""

    def __init__(self, dimension: int = 32, encoder: str = "hashing", max_batch: int = 16) -> None:
        self.space = Space(
            fingerprint=hashlib.sha256(f"{encoder}/{dimension}".encode()).hexdigest()[:32],
            encoder=encoder,
            encoder_version="1",
            dimension=dimension,
            normalized=True,
            pooling="sum",
            query_prefix="",
            document_prefix="",
            max_tokens=256,
            max_batch=max_batch,
        )
        self.refused_texts: set[str] = set()
        self.failing: Unavailable | None = None
        self.loaded = True
        self.requests: list[int] = []
        self.priorities: set[Priority] = set()
        self.tokenizer = ""

    def describe(self, encoder: str) -> Space:
        if self.failing is not None:
            raise self.failing
        if encoder != self.space.encoder or not self.loaded:
            raise NotLoaded("triton", f"encoder {encoder!r}: not loaded")
        return self.space

    def load(self, encoder: str) -> None:
        if encoder != self.space.encoder:
            raise NotLoaded("triton", f"encoder {encoder!r} was not loaded: there is none")
        self.loaded = True

    def unload(self, encoder: str) -> None:
        self.loaded = self.loaded and encoder != self.space.encoder

    def tokenizer_json(self, encoder: str) -> str:
        self.describe(encoder)
        return self.tokenizer

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[EmbedAnswer]:  # fmt: skip
        from driftline.core.errors import InvalidRecord

        found = self.describe(encoder)
        if found.fingerprint != space:
            raise SpaceMismatch(f"model {encoder!r}", space, found.fingerprint)
        self.requests += [len(texts) for texts in requests]
        self.priorities.add(priority)
        return [
            InvalidRecord("encode_failed", "refused")
            if any(t in self.refused_texts for t in texts)
            else np.stack([self._one(t) for t in texts])
            for texts in requests
        ]

    def _one(self, text: str) -> Matrix:
        vector = np.zeros(self.space.dimension, dtype=np.float32)
        for word in text.lower().split():
            digest = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
            vector[digest % self.space.dimension] += 1.0 if digest >> 63 else -1.0
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            vector[0] = norm = 1.0
        unit: Matrix = (vector / norm).astype(np.float32)
        return unit

    def ping(self) -> None:
        if self.failing is not None:
            raise self.failing


class MemoryCache:
    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.down = False

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [None if self.down else self.items.get(key) for key in keys]

    def set_many(self, items: Mapping[str, bytes], ttl_seconds: int) -> None:
        del ttl_seconds
        if not self.down:
            self.items.update(items)

    def increment(self, key: str) -> None:
        if not self.down:
            self.items[key] = str(int(self.items.get(key, b"0")) + 1).encode()

    def healthy(self) -> bool:
        return not self.down


class MemoryStore:
    """Exact search. `crash_after` makes `apply` fail after that many of its three steps, as a crash would."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._identities: dict[str, StoreTarget] = {}
        self._rows: dict[str, dict[tuple[str, int], tuple[StoredDocument, int]]] = defaultdict(dict)
        self._tombstones: dict[tuple[str, str], tuple[int, int]] = {}
        self._timestamp = 0
        self.failing: Unavailable | None = None
        self.crash_after: int | None = None

    def _check(self) -> None:
        if self.failing is not None:
            raise self.failing

    def ensure(self, target: StoreTarget) -> None:
        self._check()
        found = self._identities.setdefault(target.store, target)
        if (found.space, found.dimension) != (target.space, target.dimension):
            raise SpaceMismatch(f"store {target.store!r}", target.space, found.space)

    def drop(self, target: StoreTarget) -> None:
        self._identities.pop(target.store, None)
        self._rows.pop(target.store, None)

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        del visible_from
        self._check()
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
        self._check()
        steps = [self._write_tombstones, self._delete_rows, self._upsert_rows]
        for number, step in enumerate(steps):
            if self.crash_after == number:
                self.crash_after = None
                raise Unavailable("memory store", "crashed")
            guard()
            with self._lock:
                step(target, plan)
        self._timestamp += 1
        return self._timestamp

    def _write_tombstones(self, target: StoreTarget, plan: WritePlan) -> None:
        for r in plan.removals:
            self._tombstones[(target.collection_uid, r.key)] = (r.version, now_us())

    def _delete_rows(self, target: StoreTarget, plan: WritePlan) -> None:
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
        del target, timestamp
        self._check()

    def purge_tombstones(self, before_us: int) -> int:
        old = [k for k, (_, at) in self._tombstones.items() if at < before_us]
        for key in old:
            del self._tombstones[key]
        return len(old)

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[ChunkHit]]:
        self._check()
        if query.vectors.shape[1] != target.dimension:
            raise SpaceMismatch(target.store, f"dimension {target.dimension}", f"dimension {query.vectors.shape[1]}")
        with self._lock:
            rows = [
                (document, i)
                for (_, i), (document, _) in self._rows[target.store].items()
                if (query.tenant is None or document.tenant == query.tenant)
                and document.key != query.exclude_key
                and (query.filter is None or matches(query.filter, document.attributes))
            ]
        return [self._nearest(target, vector, rows, query.limit) for vector in query.vectors]

    @staticmethod
    def _nearest(
        target: StoreTarget, vector: Matrix, rows: list[tuple[StoredDocument, int]], limit: int
    ) -> list[ChunkHit]:
        scored = []
        for document, i in rows:
            other = document.vectors[i]
            if target.metric == "l2":
                score = -float(np.sum((vector - other) ** 2))
            else:
                score = float(vector @ other)
                if target.metric == "cosine":
                    score /= float(np.linalg.norm(vector) * np.linalg.norm(other)) or 1.0
            scored.append((score, document, i))
        scored.sort(key=lambda s: (-s[0], s[1].key, s[2]))
        return [
            ChunkHit(d.key, d.id, d.version, i, score, d.chunks[i], d.fields_json) for score, d, i in scored[:limit]
        ]

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        del with_vectors
        self._check()
        with self._lock:
            heads = [self._rows[target.store].get((key, 0)) for key in keys]
        return [head[0] for head in heads if head is not None]

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        with self._lock:
            rows = list(self._rows[target.store].items())
        yield from ((key, document.id, document.version, i) for (key, i), (document, _) in rows)

    def count(self, target: StoreTarget) -> int | None:
        if target.store not in self._identities:
            return None
        return sum(1 for _, chunk in self._rows[target.store] if chunk == 0)

    def ping(self) -> None:
        self._check()
