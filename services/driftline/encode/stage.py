"""The encode stage: change events in, vector records out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from driftline.core import codec, metrics
from driftline.core.collections import CollectionIndex, fields_of
from driftline.core.control import ControlView
from driftline.core.deferral import deferred
from driftline.core.errors import InvalidRecord, PartlyUnavailable, SpaceMismatch
from driftline.core.ports import Cache, Embedder
from driftline.core.records import (
    ChangeEvent,
    Clock,
    Generation,
    Incoming,
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
from driftline.core.stage import Processed, Refused, Result
from driftline.core.topics import CHANGES, VECTORS
from driftline.core.troubles import Troubles
from driftline.core.vectors import Sparse, Vectors
from driftline.encode.embed import Job, JobEmbedder
from driftline.encode.pace import Pace, Unpaced
from driftline.encode.settings import EncodeSection
from driftline.encode.share import Shares
from driftline.retrieval.chunking import Span, TokenSpans, chunk, word_spans


@dataclass(frozen=True, slots=True)
class Change:
    """A change event and where it stood."""

    position: Position
    event: ChangeEvent
    headers: tuple[tuple[str, bytes], ...]


def decode(record: Incoming) -> Change:
    return Change(Position(record.partition, record.offset), codec.decode_change(record.value), record.headers)


@dataclass(frozen=True, slots=True)
class _PutOff:
    """A change that takes its turn later, and why."""

    reason: str
    not_before_us: int


# So many documents are never too many to be embedded at once.
_FEW = 8

# What is to be done for a change: embed these (none for a delete), put it off, or refuse it.
_Plan = list[Job] | _PutOff | InvalidRecord


class EncodeStage:
    """Answers every change event with one VectorRecord; a refused one with a dead letter and a rejected record.

    A change whose encoder cannot be used now is put off, and so is one beyond its producer's share while `is_behind`
    says that more is waiting; without it there are no shares: what was put off is not put off for that again. Thread-
    safe: batches are processed side by side.
    """

    def __init__(
        self,
        view: ControlView,
        embedder: Embedder,
        cache: Cache,
        settings: EncodeSection,
        priority: Priority = Priority.CHANGE,
        is_behind: Callable[[], bool] | None = None,
        pace: Pace | None = None,
        troubles: Troubles | None = None,
        clock: Clock = now_us,
    ) -> None:
        self._view = view
        self._embedder = embedder
        self._jobs = JobEmbedder(embedder, cache, settings, priority, pace or Unpaced())
        self._shares = Shares(settings.share_per_second)
        self._share_seconds = settings.share_seconds
        self._is_behind = is_behind
        self._clock = clock
        self._troubles = troubles or Troubles(clock)
        self._tokenizers: dict[str, TokenSpans] = {}
        self._lock = threading.Lock()
        self._embedding = 0
        self._embedded_at = 0.0

    @property
    def is_embedding(self) -> bool:
        """Whether the encoder is at work for this stage right now. May be asked from any thread."""
        return self._embedding > 0

    def is_fresh(self, seconds: float) -> bool:
        """Whether the encoder worked here, within the last seconds, for a producer that does not flood. May be asked
        from any thread."""
        return time.monotonic() - self._embedded_at < seconds

    def reset(self) -> None:
        """Nothing is remembered between batches."""

    def process(self, batch: Sequence[Change]) -> Processed:
        read_at = self._clock()
        base = self._view.log_base(CHANGES.name)
        over = self._shares.over([c.event for c in batch]) if self._shares_matter(batch) else set()
        plans = [_PutOff("share", 0) if i in over else self._plan(change) for i, change in enumerate(batch)]
        self._note_fresh(batch, plans)
        self._embed([job for plan in plans if isinstance(plan, list) for job in plan])
        return Processed([self._result(c, plan, base, read_at) for c, plan in zip(batch, plans, strict=True)])

    def reject(self, item: Change, error: InvalidRecord) -> Processed:
        read_at = self._clock()
        return Processed([self._refused(item, error, self._view.log_base(CHANGES.name), read_at)])

    def _shares_matter(self, batch: Sequence[Change]) -> bool:
        """Whether more is here, or waits behind it, than is embedded in a moment, and may be of several producers."""
        if self._is_behind is None:
            return False
        upserts = sum(change.event.operation is Operation.UPSERT for change in batch)
        soon = max(_FEW, self._jobs.texts_per_second * self._share_seconds)
        if not self._is_behind() and not (self._jobs.texts_per_second and upserts > soon):
            return False
        known = self._view.collections()
        return len(known) > 1 or any(collection.definition.tenancy for collection in known)

    def _note_fresh(self, batch: Sequence[Change], plans: Sequence[_Plan]) -> None:
        for change, plan in zip(batch, plans, strict=True):
            if isinstance(plan, list) and plan and not self._shares.is_flooding(change.event):
                self._embedded_at = time.monotonic()
                return

    # Planning

    def _plan(self, change: Change) -> _Plan:
        event = change.event
        collection = self._view.incarnation(event.collection, event.collection_uid)
        if collection is None and event.backfill_generation:
            return []
        if collection is None:
            return InvalidRecord(
                "unknown_collection", f"there is no collection {event.collection!r} ({event.collection_uid})"
            )
        if not event.version and collection.definition.versions == "external":
            return InvalidRecord("version_required", "the collection's versions are external, and this has none")
        if event.operation is Operation.DELETE:
            return []
        if until := self._troubles.waits_until(collection.uid):
            return _PutOff("waits", until)
        try:
            fields = fields_of(event.fields_json)
            texts = {index.name: index.definition.text_of(fields) for index in collection.indexes}
            if not any(text.strip() for text in texts.values()):
                raise InvalidRecord("empty_text", "nothing to embed")
            return [
                self._job(index, generation, texts[index.name])
                for index in collection.indexes
                for generation in index.generations
                if event.backfill_generation in (0, generation.number)
            ]
        except InvalidRecord as error:
            return error
        except PartlyUnavailable as error:
            return _PutOff("waits", self._troubles.note(collection.uid, collection.name, error))

    def _job(self, index: CollectionIndex, generation: Generation, text: str) -> Job:
        space = self._view.space(generation.space)
        if not text.strip():
            return Job(generation, space, [], [])
        chunking = index.definition.chunking
        spans = self._token_spans(space) if chunking.mode != "whole" else _no_spans
        chunks = chunk(text, chunking, space.max_tokens, spans)
        metrics.CHUNKS.observe(len(chunks))
        return Job(generation, space, chunks, [None] * len(chunks))

    def _token_spans(self, space: Space) -> TokenSpans:
        """The encoder's own tokenizer, fetched once per space; words where an analyzer takes its place."""
        if space.analyzer:
            return word_spans
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

    def _embed(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        with self._lock:
            self._embedding += 1
        try:
            self._jobs.embed(jobs)
        finally:
            with self._lock:
                self._embedding -= 1

    # Results

    def _result(self, change: Change, plan: _Plan, base: int, read_at: int) -> Result:
        event = change.event
        if isinstance(plan, list):
            plan = self._outcome(event, plan)
        if isinstance(plan, InvalidRecord):
            return self._refused(change, plan, base, read_at)
        if isinstance(plan, _PutOff):
            metrics.PUT_OFF.labels(plan.reason).inc()
            version, position = self._identity(change, base)
            partition = change.position.partition
            return (deferred(event, version, position, partition, plan.not_before_us, change.headers),)
        if event.backfill_generation and not plan:
            # The generation was given up meanwhile.
            return ()
        return (self._vectors(change, self._record(change, plan, base, read_at)),)

    def _outcome(self, event: ChangeEvent, jobs: list[Job]) -> _Plan:
        """The jobs as they were, or what became of them where one failed."""
        failed = next((job.failed for job in jobs if job.failed is not None), None)
        if isinstance(failed, PartlyUnavailable):
            return _PutOff("waits", self._troubles.note(event.collection_uid, event.collection, failed))
        if jobs:
            self._troubles.clear(event.collection_uid, event.collection)
        return jobs if failed is None else failed

    def _refused(self, change: Change, error: InvalidRecord, base: int, read_at: int) -> Refused:
        event = change.event
        origin = f"{event.collection_uid}/{event.tenant}"
        if event.backfill_generation:
            # No receipt waits for it, and the older generation goes on serving the document.
            return Refused(error, origin=origin)
        record = self._record(change, [], base, read_at, error)
        return Refused(error, (self._vectors(change, record),), origin)

    @staticmethod
    def _vectors(change: Change, record: VectorRecord) -> Outgoing:
        key = record_key(record.collection_uid, record.tenant, record.id)
        return Outgoing(VECTORS.name, key, codec.encode_vector(record), change.position.partition, change.headers)

    @staticmethod
    def _identity(change: Change, base: int) -> tuple[int, Position]:
        """The version of a change, and the position that its receipt is waited for at."""
        event = change.event
        return event.version or base + change.position.offset, event.origin or change.position

    def _record(
        self, change: Change, jobs: Sequence[Job], base: int, read_at: int, error: InvalidRecord | None = None
    ) -> VectorRecord:
        event = change.event
        version, position = self._identity(change, base)
        chunks = next((tuple(job.chunks) for job in jobs if job.chunks), ())
        return VectorRecord(
            position=position,
            collection=event.collection,
            collection_uid=event.collection_uid,
            tenant=event.tenant,
            id=event.id,
            operation=event.operation,
            version=version,
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


def _named(job: Job, common: tuple[str, ...]) -> NamedVectors:
    found = [v for v in job.vectors if v is not None]
    own = tuple(job.chunks)
    values: Vectors
    if not found:
        values = np.empty((0, 0), dtype=np.float32)
    elif job.space.kind == "sparse":
        values = Sparse.concatenated([v for v in found if isinstance(v, Sparse)])
    else:
        values = np.stack([v for v in found if not isinstance(v, Sparse)])
    generation = job.generation
    return NamedVectors(
        generation.vector_name, generation.space, generation.number, values, () if own == common else own
    )


def _no_spans(text: str) -> list[Span]:
    raise AssertionError(f"a whole text of {len(text)} characters is not tokenised")
