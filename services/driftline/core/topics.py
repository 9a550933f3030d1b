"""Every topic, declared once. `driftline topics create` makes them; docs/topics.md is this table in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. `partitions` 0 means: as many as the setting says; the pipeline's topics must share it."""

    name: str
    key: str
    value: str
    partitions: int
    config: Mapping[str, str]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    why: str


def _retained(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


# Longer than an event may sit in `changes` or `vectors` is how long a tombstone is kept (index.tombstone_days).
LOG_DAYS = 7

# A dead letter holds a record that may be as large as the broker takes, with its headers, the reason and the position.
LETTER_ROOM = 512 * 1024

_COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}

CHANGES = Topic(
    "changes", "collection uid / tenant / document id", "ChangeEvent", 0, _retained(LOG_DAYS),
    ("ingest",), ("encode",), "every accepted change in log order; its offsets are the assigned versions",
)  # fmt: skip
VECTORS = Topic(
    "vectors", "as changes", "VectorRecord", 0, _retained(LOG_DAYS),
    ("encode",), ("index",), "one record per change event, with its chunks and vectors",
)  # fmt: skip
DOCUMENTS = Topic(
    "documents", "as changes", "ChangeEvent", 0, dict(_COMPACTED),
    ("index",), ("verify", "upgrade"),
    "accepted versions only, so that compaction (last by offset) keeps the newest version",
)  # fmt: skip
RECEIPTS = Topic(
    "receipts", "partition of changes", "ReceiptBatch", 0, _retained(LOG_DAYS),
    ("index",), ("ingest", "query"), "the outcome of every change event, partitioned as changes",
)  # fmt: skip
DEAD_LETTERS = Topic(
    "dead-letters", "topic/partition/offset", "DeadLetter", 1, _retained(30),
    ("ingest", "encode", "index"), ("cli",), "records that cannot be processed, whole, with the reason",
)  # fmt: skip
BACKFILL = Topic(
    "backfill", "as changes", "ChangeEvent", 0, _retained(LOG_DAYS),
    ("upgrade", "query"), ("encode",), "documents to embed for a new generation; fresh changes go before",
)  # fmt: skip
DEFERRED = Topic(
    "deferred", "as changes", "ChangeEvent", 0, _retained(LOG_DAYS),
    ("encode", "index"), ("encode",),
    "changes put off: of a producer that sent more than its share, or of a collection that cannot be written now",
)  # fmt: skip
QUERIES = Topic(
    "queries", "collection uid", "SearchedQuery", 1, _retained(LOG_DAYS),
    ("query",), ("upgrade",), "a sample of the texts that are searched for, where query.log_per_second allows it",
)  # fmt: skip
CONTROL = Topic(
    "control", "kind/name", "ControlRecord", 1, dict(_COMPACTED),
    ("ingest", "upgrade"), ("ingest", "encode", "index", "query", "upgrade"),
    "collections, spaces, log incarnations, compensations and the state of upgrades",
)  # fmt: skip

TOPICS = (CONTROL, CHANGES, VECTORS, DOCUMENTS, RECEIPTS, DEFERRED, BACKFILL, QUERIES, DEAD_LETTERS)
BY_NAME = {topic.name: topic for topic in TOPICS}
