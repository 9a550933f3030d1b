"""The encode stage: change events in, vector records out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from tokenizers import Tokenizer

from driftline.core import codec, metrics
from driftline.core.collections import Collection, embedded_text
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, SpaceMismatch
from driftline.core.ports import Cache, Embedder
from driftline.core.records import (
    ChangeEvent,
    Clock,
    Generation,
    Incoming,
    Matrix,
    NamedVectors,
    Operation,
    Outgoing,
    Position,
    Priority,
    Space,
    VectorRecord,
    now_us,
    record_key,
)
from driftline.core.runner import Processed, Refused, Result
from driftline.core.topics import CHANGES, VECTORS
from driftline.encode.settings import EncodeSection
from driftline.retrieval.chunking import Span, TokenSpans, chunk
from driftline.retrieval.embeddings import cache_key, plan_requests


@dataclass(frozen=True, slots=True)
class Change:
    """A change event and where it stood."""

    position: Position
    event: ChangeEvent
    headers: tuple[tuple[str, bytes], ...]


def decode(record: Incoming) -> Change:
    return Change(Position(record.partition, record.offset), codec.decode_change(record.value), record.headers)


@dataclass(slots=True)
class _Job:
    """What one upsert needs of the encoder of one generation."""

    generation: Generation
    space: Space
    chunks: list[str]
    vectors: list[Matrix | None]
    failed: InvalidRecord | None = None


class EncodeStage:
    """Answers every change event with one VectorRecord; a refused one with a dead letter and a rejected record."""

    def __init__(
        self,
        view: ControlView,
        embedder: Embedder,
        cache: Cache,
        settings: EncodeSection,
        priority: Priority = Priority.CHANGE,
        clock: Clock = now_us,
    ) -> None:
        self._view = view
        self._embedder = embedder
        self._cache = cache
        self._settings = settings
        self._priority = priority
        self._clock = clock
        self._tokenizers: dict[str, TokenSpans] = {}
        self._lock = threading.Lock()

    def reset(self) -> None:
        """Nothing is remembered between batches."""

    def process(self, batch: Sequence[Change]) -> Processed:
        read_at = self._clock()
        base = self._view.log_base(CHANGES.name)
        plans: list[list[_Job] | InvalidRecord] = [self._plan(change) for change in batch]
        self._embed([job for plan in plans if isinstance(plan, list) for job in plan])
        results = [self._result(change, plan, base, read_at) for change, plan in zip(batch, plans, strict=True)]
        return Processed(results)

    def _plan(self, change: Change) -> list[_Job] | InvalidRecord:
        """The jobs of an upsert, one per live generation; none for a delete; or why the event is refused."""
        event = change.event
        collection = self._view.incarnation(event.collection, event.collection_uid)
        if collection is None and event.backfill_generation:
            return []
        if collection is None:
            return InvalidRecord(
                "unknown_collection", f"there is no collection {event.collection!r} ({event.collection_uid})"
            )
        if event.operation is Operation.DELETE:
            return []
        wanted = [g for g in collection.generations if event.backfill_generation in (0, g.number)]
        try:
            text = embedded_text(collection.definition, _fields(event))
            if not text.strip():
                raise InvalidRecord("empty_text", "nothing to embed")
            return [self._job(collection, generation, text) for generation in wanted]
        except InvalidRecord as error:
            return error

    def _job(self, collection: Collection, generation: Generation, text: str) -> _Job:
        space = self._view.space(generation.space)
        chunking = collection.definition.embedding.chunking
        spans = self._token_spans(space) if chunking.mode != "whole" else _no_spans
        chunks = chunk(text, chunking, space.max_tokens, spans)
        metrics.CHUNKS.observe(len(chunks))
        return _Job(generation, space, chunks, [None] * len(chunks))

    def _token_spans(self, space: Space) -> TokenSpans:
        """The encoder's own tokenizer, fetched once per space."""
        with self._lock:
            known = self._tokenizers.get(space.fingerprint)
        if known is not None:
            return known
        found = self._embedder.describe(space.encoder)
        if found.fingerprint != space.fingerprint:
            raise SpaceMismatch(f"model {space.encoder!r}", space.fingerprint, found.fingerprint)
        tokenizer = Tokenizer.from_str(self._embedder.tokenizer_json(space.encoder))
        tokenizer.no_truncation()
        tokenizer.no_padding()

        def spans(text: str) -> list[Span]:
            found: list[Span] = tokenizer.encode(text, add_special_tokens=False).offsets
            return found

        with self._lock:
            return self._tokenizers.setdefault(space.fingerprint, spans)

    def _embed(self, jobs: Sequence[_Job]) -> None:
        by_space: dict[str, list[_Job]] = {}
        for job in jobs:
            by_space.setdefault(job.space.fingerprint, []).append(job)
        for group in by_space.values():
            self._embed_space(group[0].space, group)

    def _embed_space(self, space: Space, jobs: Sequence[_Job]) -> None:
        slots: dict[str, list[tuple[_Job, int]]] = {}
        for job in jobs:
            for i, text in enumerate(job.chunks):
                slots.setdefault(space.document_prefix + text, []).append((job, i))
        texts = list(slots)
        keys = [cache_key(space.fingerprint, text) for text in texts]
        missing: list[str] = []
        for text, cached in zip(texts, self._cache.get_many(keys), strict=True):
            vector = _from_cache(cached, space.dimension)
            if vector is None:
                missing.append(text)
            else:
                _fill(slots[text], vector)
        metrics.CACHE_REQUESTS.labels("embedding", "miss").inc(len(missing))
        metrics.CACHE_REQUESTS.labels("embedding", "hit").inc(len(texts) - len(missing))
        fresh, failure = self._embed_texts(space, missing)
        self._cache.set_many(
            {
                cache_key(space.fingerprint, t): v.tobytes()
                for t, v in fresh.items()
                if not isinstance(v, InvalidRecord)
            },
            self._settings.cache_ttl_seconds,
        )
        if failure is not None:
            # What did get through is cached by now: the batch's next try only needs the rest.
            raise failure
        for text, answer in fresh.items():
            if isinstance(answer, InvalidRecord):
                for job, _ in slots[text]:
                    job.failed = answer
            else:
                _fill(slots[text], answer)

    def _embed_texts(
        self, space: Space, texts: Sequence[str]
    ) -> tuple[dict[str, Matrix | InvalidRecord], Exception | None]:
        """Embed distinct texts; also what kept some of them from getting through.

        A refused request is taken apart, so that only the guilty text is refused.
        """
        failure: Exception | None = None
        answers: dict[str, Matrix | InvalidRecord] = {}
        size = min(self._settings.request_texts, space.max_batch)
        requests = [[texts[i] for i in request] for request in plan_requests(texts, size)]
        while requests:
            again: list[list[str]] = []
            results = self._embedder.embed(space.encoder, space.fingerprint, requests, self._priority)
            for request, result in zip(requests, results, strict=True):
                if isinstance(result, InvalidRecord):
                    if len(request) == 1:
                        answers[request[0]] = result
                    else:
                        again += [request[: len(request) // 2], request[len(request) // 2 :]]
                elif isinstance(result, Exception):
                    failure = result
                else:
                    answers.update(zip(request, result, strict=True))
            requests = again
        return answers, failure

    def _result(self, change: Change, plan: list[_Job] | InvalidRecord, base: int, read_at: int) -> Result:
        backfill = change.event.backfill_generation
        error = plan if isinstance(plan, InvalidRecord) else next((j.failed for j in plan if j.failed), None)
        if backfill and not plan:
            # The generation was given up meanwhile.
            return ()
        if backfill and error is not None:
            # No receipt waits for it, and the older generation goes on serving the document.
            return Refused(error)
        jobs = plan if isinstance(plan, list) and error is None else []
        record = self._record(change, jobs, base, read_at, error)
        key = record_key(record.collection_uid, record.tenant, record.id)
        outgoing = Outgoing(VECTORS.name, key, codec.encode_vector(record), change.position.partition, change.headers)
        return (outgoing,) if error is None else Refused(error, (outgoing,))

    def _record(
        self, change: Change, jobs: Sequence[_Job], base: int, read_at: int, error: InvalidRecord | None
    ) -> VectorRecord:
        event = change.event
        chunks = tuple(jobs[0].chunks) if jobs else ()
        return VectorRecord(
            position=event.origin or change.position,
            collection=event.collection,
            collection_uid=event.collection_uid,
            tenant=event.tenant,
            id=event.id,
            operation=event.operation,
            version=event.version or base + change.position.offset,
            fields_json=event.fields_json,
            accepted_at_us=event.accepted_at_us,
            read_at_us=read_at,
            encoded_at_us=self._clock(),
            source=event.source,
            chunks=chunks,
            vectors=tuple(_named(job, chunks) for job in jobs),
            media=event.media,
            rejected_reason=error.reason if error else "",
            rejected_detail=error.detail if error else "",
            backfill_generation=event.backfill_generation,
        )


def _named(job: _Job, common: tuple[str, ...]) -> NamedVectors:
    values = np.stack([v for v in job.vectors if v is not None])
    own = tuple(job.chunks)
    generation = job.generation
    return NamedVectors(
        generation.vector_name, generation.space, generation.number, values, () if own == common else own
    )


def _fields(event: ChangeEvent) -> dict[str, object]:
    try:
        fields = orjson.loads(event.fields_json)
    except orjson.JSONDecodeError as error:
        raise InvalidRecord("invalid_json", f"fields_json: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidRecord("invalid_json", "fields_json: expected an object")
    return fields


def _no_spans(text: str) -> list[Span]:
    raise AssertionError(f"a whole text of {len(text)} characters is not tokenised")


def _from_cache(cached: bytes | None, dimension: int) -> Matrix | None:
    if cached is None or len(cached) != 4 * dimension:
        return None
    return np.frombuffer(cached, dtype=np.float32)


def _fill(slots: Sequence[tuple[_Job, int]], vector: Matrix) -> None:
    for job, i in slots:
        job.vectors[i] = vector
