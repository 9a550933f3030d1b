"""Every metric, declared once. docs/metrics.md is generated from this file and checked against it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FRESH = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800)


def _counter(name: str, help_: str, *labels: str) -> Counter:
    return Counter(f"driftline_{name}", help_, labels, registry=REGISTRY)


def _histogram(name: str, help_: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Histogram:
    return Histogram(f"driftline_{name}", help_, labels, registry=REGISTRY, buckets=buckets)


def _gauge(name: str, help_: str, *labels: str) -> Gauge:
    return Gauge(f"driftline_{name}", help_, labels, registry=REGISTRY)


BUILD_INFO = _gauge("build_info", "1, labelled with the version and the service.", "version", "service")
READY = _gauge("ready", "1 while the check passes, by check.", "check")

RECORDS = _counter("records_total", "Records taken from Kafka, by topic.", "topic")
BATCHES = _counter("batches_total", "Batches processed, by result (ok, retried, fenced).", "result")
BATCH_RECORDS = _histogram(
    "batch_records", "Records per batch.", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000)
)
STAGE_SECONDS = _histogram("stage_seconds", "Time of a part of a batch: process, settle, publish, commit.", "part")
IN_FLIGHT = _gauge("in_flight_batches", "Batches between poll and commit.")
LAG = _gauge("lag_records", "Records not committed yet, as of the last fetch.", "topic", "partition")
DEAD_LETTERS = _counter("dead_letters_total", "Records dead-lettered, by reason.", "reason")
SOURCE_PAUSED = _gauge("source_paused", "1 while a source rests because most of its records were refused.", "topic")
COLLECTION_WAITS = _gauge(
    "collection_waits",
    "1 while a collection's changes wait because its store or encoder cannot be used, others' go on.",
    "collection",
)
PUT_OFF = _counter(
    "put_off_total", "Changes put off to `deferred`, by reason (share: others' go first; waits).", "reason"
)
RETRIES = _counter(
    "unavailable_total", "Batches or requests put off because a dependency was unavailable.", "dependency"
)
SPACE_REFUSALS = _counter(
    "space_refusals_total", "Batches and requests refused because vectors of two embedding spaces would have met."
)
REBALANCES = _counter("rebalances_total", "Partition assignments received.")

EVENTS = _counter("events_total", "Change events accepted, by operation and way in.", "operation", "source")
EVENTS_REFUSED = _counter("events_refused_total", "Change events refused at the API, by code.", "code")
OUTCOMES = _counter("outcomes_total", "Final outcomes of change events.", "outcome")
BACKFILLED = _counter(
    "backfilled_total",
    "Backfilled documents that index saw, by outcome (searchable; superseded: changed meanwhile, or there already).",
    "collection", "outcome",
)  # fmt: skip
FRESHNESS = _histogram(
    "freshness_seconds", "From an event's acceptance to its being searchable.", "collection", buckets=_FRESH
)
STAGE_FRESHNESS = _histogram(
    "freshness_part_seconds", "Parts of freshness: queued, encoded, indexed, visible.", "part", buckets=_FRESH
)

CACHE_REQUESTS = _counter("cache_requests_total", "Cache look-ups, by cache and result (hit, miss).", "cache", "result")
CACHE_ERRORS = _counter("cache_errors_total", "Cache calls that failed; the work goes on without.")
TRITON_SECONDS = _histogram("triton_request_seconds", "Time of one Triton request.", "encoder")
TRITON_TEXTS = _counter("triton_texts_total", "Texts embedded by Triton.", "encoder")
STORE_SECONDS = _histogram("store_seconds", "Time of one Milvus call, by operation.", "operation")
STORE_ROWS = _counter("store_rows_total", "Chunk rows written to Milvus.")
CHUNKS = _histogram("document_chunks", "Chunks per document.", buckets=(1, 2, 3, 5, 10, 20, 50, 100, 500))

SEARCHES = _counter("searches_total", "Searches answered, by collection and kind of query.", "collection", "kind")
SEARCH_SECONDS = _histogram("search_seconds", "Time of a search, by part: encode, store, rerank, total.", "part")
HTTP_REQUESTS = _counter("http_requests_total", "HTTP requests, by route and status.", "route", "status")

UPGRADE_PHASE = _gauge("upgrade_phase", "1 for the phase that a collection's upgrade is in.", "collection", "phase")
UPGRADE_FRACTION = _gauge("upgrade_fraction", "Share of the documents that the new generation holds.", "collection")
UPGRADE_FALLBACK = _gauge(
    "upgrade_fallback", "1 while the status quo is served although an upgrade goes on.", "collection"
)
UPGRADE_QUALITY = _gauge(
    "upgrade_quality", "nDCG@10 of the shadow queries, by what answers (served, status_quo).", "collection", "route"
)
UPGRADE_DIFFERENCE = _gauge(
    "upgrade_difference", "Served minus status quo on the shadow queries: mean, low and high of the 95 % interval.",
    "collection", "bound",
)  # fmt: skip
DRIFT_RESIDUAL = _gauge(
    "drift_residual", "Mean of 1 - cosine between carried-over and old vectors: now, and of held-out pairs of the fit.",
    "collection", "of",
)  # fmt: skip
DRIFT_SHIFT = _gauge(
    "drift_shift", "How far the mean of what is written now lies from the fit sample's, in its spreads.", "collection"
)
DRIFT_OVERLAP = _gauge(
    "drift_overlap", "Share of the old encoder's ten best hits of shadow queries that carried-over ones find too.",
    "collection",
)  # fmt: skip
