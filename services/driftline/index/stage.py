"""The index stage: vector records in, accepted documents and receipts out."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from driftline.core import codec, keys, metrics
from driftline.core.collections import Collection, attributes_of, fields_of
from driftline.core.control import ControlView
from driftline.core.deferral import deferred
from driftline.core.errors import Fenced, InvalidRecord, InvalidRequest, PartlyUnavailable, Unavailable
from driftline.core.ports import Cache, VectorStore
from driftline.core.records import (
    REPAIR,
    ChangeEvent,
    Clock,
    Incoming,
    Operation,
    Outcome,
    Outgoing,
    Receipt,
    VectorRecord,
    document_key,
    now_us,
    record_key,
)
from driftline.core.stage import Processed, Refused, Result
from driftline.core.store import StoredDocument, StoredVersion, StoreTarget
from driftline.core.topics import DOCUMENTS, RECEIPTS
from driftline.core.troubles import Troubles
from driftline.core.vectors import Sparse, shape_of
from driftline.index.again import TakenOut
from driftline.index.fold import NOTHING, Folded, Verdict, fold
from driftline.index.settings import IndexSection


def decode(record: Incoming) -> VectorRecord:
    return codec.decode_vector(record.value)


class RecentVersions:
    """Versions this process wrote itself, so that a read need not wait for them to become visible.

    Entries of writes that are not yet visible are never dropped; the rest are bounded, oldest first.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._versions: OrderedDict[str, tuple[StoredVersion, int]] = OrderedDict()
        self.visible = 0
        self.taken_out = TakenOut()

    def get(self, key: str) -> StoredVersion | None:
        with self._lock:
            found = self._versions.get(key)
        return None if found is None else found[0]

    def put(self, versions: Mapping[str, StoredVersion], timestamp: int) -> None:
        with self._lock:
            for key, version in versions.items():
                self._versions[key] = (version, timestamp)
                self._versions.move_to_end(key)

    def mark_visible(self, timestamp: int) -> None:
        """Writes up to `timestamp` are visible now."""
        with self._lock:
            self.visible = max(self.visible, timestamp)
            while len(self._versions) > self._bound:
                key, (_, written) = next(iter(self._versions.items()))
                if written > self.visible:
                    break
                del self._versions[key]


@dataclass(slots=True)
class _Group:
    """The records of one batch that go to one collection; `targets` and `recent` are by generation."""

    collection: Collection
    targets: dict[int, StoreTarget]
    recent: dict[int, RecentVersions | None]
    indices: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    documents: dict[int, dict[int, StoredDocument]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _PutOff:
    """The verdict on a record that is sent back to be embedded once more, not before that time: its collection cannot
    be written now, or its vectors are all of generations that are gone."""

    not_before_us: int


_Outcome = Verdict | InvalidRecord | _PutOff
_Written = tuple[StoreTarget, RecentVersions, int]


class IndexStage:
    """One owner per partition gives the order; `lease` tells for how many seconds this process surely is the owner.

    A collection whose store cannot be written holds up nobody else: its records are put off, and come again as changes.
    `process` and `reject` are called by one thread; `reset` and `settle` may be called by others.
    """

    def __init__(
        self,
        view: ControlView,
        store: VectorStore,
        cache: Cache,
        lease: Callable[[], float],
        settings: IndexSection,
        clock: Clock = now_us,
    ) -> None:
        self._view = view
        self._store = store
        self._cache = cache
        self._lease = lease
        self._settings = settings
        self._clock = clock
        self._troubles = Troubles(clock)
        self._lock = threading.Lock()
        self._recent: dict[str, RecentVersions] = {}

    def reset(self) -> None:
        """Ownership may have changed: the next read of every store is a strong one."""
        with self._lock:
            self._recent.clear()

    def guard(self) -> float:
        """Seconds a write may take. Raises Fenced when the lease is too short to begin one."""
        remaining = self._lease() - self._settings.lease_margin_seconds
        if remaining <= 0:
            raise Fenced("the lease on the partitions is running out")
        return remaining

    def process(self, batch: Sequence[VectorRecord]) -> Processed:
        verdicts: dict[int, _Outcome] = {}
        groups: dict[str, _Group] = {}
        for i, record in enumerate(batch):
            try:
                if record.rejected_reason:
                    raise InvalidRecord(record.rejected_reason, record.rejected_detail)
                if (put_off := self._sort_in(groups, i, record)) is not None:
                    verdicts[i] = put_off
            except InvalidRecord as error:
                verdicts[i] = error
        written: list[_Written] = []
        for group in groups.values():
            verdicts |= self._write_group(batch, group, written)
        return self._processed(batch, [verdicts[i] for i in range(len(batch))], written)

    def reject(self, item: VectorRecord, error: InvalidRecord) -> Processed:
        return self._processed([item], [error], [])

    def _processed(
        self, batch: Sequence[VectorRecord], verdicts: Sequence[_Outcome], written: Sequence[_Written]
    ) -> Processed:
        written_at = self._clock()
        results = [self._result(record, verdict) for record, verdict in zip(batch, verdicts, strict=True)]
        return Processed(results, lambda: self._settle(batch, verdicts, written, written_at))

    def _sort_in(self, groups: dict[str, _Group], i: int, record: VectorRecord) -> _PutOff | None:
        """Put a record into its collection's group, or tell when it has to be embedded again first."""
        collection = self._view.incarnation(record.collection, record.collection_uid)
        if collection is None:
            raise InvalidRecord("unknown_collection", f"there is no collection {record.collection!r}")
        if until := self._troubles.waits_until(collection.uid):
            return _PutOff(until)
        group = groups.get(collection.uid)
        if group is None:
            try:
                group = groups[collection.uid] = self._group(collection)
            except PartlyUnavailable as error:
                return _PutOff(self._troubles.note(collection.uid, collection.name, error))
        key = document_key(record.tenant, record.id)
        documents: dict[int, StoredDocument] = {}
        if record.operation is Operation.UPSERT:
            documents = _documents(group, key, record)
            held = {named.generation for named in record.vectors}
            if not record.backfill_generation and not {i.complete.number for i in collection.finished} <= held:
                return _PutOff(0)
        group.documents[len(group.indices)] = documents
        group.indices.append(i)
        group.keys.append(key)
        return None

    def _write_group(
        self, batch: Sequence[VectorRecord], group: _Group, written: list[_Written]
    ) -> dict[int, _Outcome]:
        """Write a collection's records; the verdicts by index into the batch. Adds what was written to `written`."""
        collection = group.collection
        try:
            folded = self._write(batch, group, written)
        except PartlyUnavailable as error:
            with self._lock:
                # What it holds now is not known: read it anew when it can be used again.
                for target in group.targets.values():
                    self._recent.pop(target.store, None)
            until = self._troubles.note(collection.uid, collection.name, error)
            return dict.fromkeys(group.indices, _PutOff(until))
        self._troubles.clear(collection.uid, collection.name)
        return dict(zip(group.indices, folded.verdicts, strict=True))

    def _group(self, collection: Collection) -> _Group:
        targets = {g.number: collection.target(g, self._view.space(g.space)) for g in collection.generations}
        with self._lock:
            recent = {number: self._recent.get(target.store) for number, target in targets.items()}
        return _Group(collection, targets, recent)

    def _write(self, batch: Sequence[VectorRecord], group: _Group, written: list[_Written]) -> Folded:
        for target in group.targets.values():
            self._store.ensure(target)
        stored = {number: self._stored(group, number) for number in group.targets}
        self._count_rows(batch, group, stored)
        folded = fold([batch[i] for i in group.indices], group.keys, stored, group.documents)
        # The newest generation last: a crash in between leaves a document in the generation that is complete.
        for number, target in sorted(group.targets.items()):
            recent = group.recent[number] or RecentVersions(self._settings.recent_versions)
            plan = folded.plans[number]
            timestamp = recent.visible
            if not plan.is_empty():
                self.guard()
                again = _again(recent, set(group.keys), self._clock())
                timestamp = self._store.apply(target, replace(plan, trims=plan.trims + again), self.guard)
                recent.taken_out.note(plan, self._clock())
                recent.put(folded.after[number], timestamp)
            with self._lock:
                self._recent[target.store] = recent
            written.append((target, recent, timestamp))
        return folded

    def _count_rows(
        self, batch: Sequence[VectorRecord], group: _Group, stored: Mapping[int, dict[str, StoredVersion]]
    ) -> None:
        """A repair takes out every row that does not belong to its document, also those that no head tells of."""
        repaired = [key for i, key in zip(group.indices, group.keys, strict=True) if batch[i].source == REPAIR]
        if not repaired:
            return
        for number, target in group.targets.items():
            for key, end in self._store.rows_up_to(target, repaired).items():
                known = stored[number].get(key, NOTHING)
                stored[number][key] = replace(known, chunks=max(known.chunks, end))

    def _stored(self, group: _Group, number: int) -> dict[str, StoredVersion]:
        """Versions a generation holds. The first read after a change of ownership is strong; then, what this process
        wrote and may not be visible yet it remembers, and everything older is visible."""
        target, recent = group.targets[number], group.recent[number]
        distinct = list(dict.fromkeys(group.keys))
        if recent is None:
            return dict(self._store.versions(target, distinct, None))
        known = {key: version for key in distinct if (version := recent.get(key)) is not None}
        unknown = [key for key in distinct if key not in known]
        if unknown:
            known |= self._store.versions(target, unknown, recent.visible)
        return known

    def _result(self, record: VectorRecord, verdict: _Outcome) -> Result:
        if isinstance(verdict, _PutOff):
            metrics.PUT_OFF.labels("waits" if verdict.not_before_us else "generation").inc()
            partition = record.position.partition
            return (deferred(_event(record), record.version, record.position, partition, verdict.not_before_us),)
        if isinstance(verdict, InvalidRecord):
            # Refused on the way: encode has dead-lettered it already. Refused here: its dead letter is due.
            origin = f"{record.collection_uid}/{record.tenant}"
            return () if record.rejected_reason else Refused(verdict, origin=origin)
        if record.backfill_generation:
            metrics.BACKFILLED.labels(record.collection, verdict.outcome.name.lower()).inc()
            return ()
        if verdict.outcome is not Outcome.SEARCHABLE:
            return ()
        event = _event(record)
        key = record_key(record.collection_uid, record.tenant, record.id)
        return (Outgoing(DOCUMENTS.name, key, codec.encode_change(event), record.position.partition),)

    def _settle(
        self,
        batch: Sequence[VectorRecord],
        verdicts: Sequence[_Outcome],
        written: Sequence[_Written],
        written_at: int,
    ) -> list[Outgoing]:
        """Wait until the batch is visible to searches, then tell the world."""
        for target, recent, timestamp in written:
            if timestamp > recent.visible:
                self._store.wait_visible(target, timestamp)
                recent.mark_visible(timestamp)
        for uid in {target.collection_uid for target, _, _ in written}:
            self._cache.increment(keys.epoch(uid))
        searchable_at = self._clock()
        receipts = [
            _receipt(record, verdict, written_at, searchable_at)
            for record, verdict in zip(batch, verdicts, strict=True)
            if not record.backfill_generation and not isinstance(verdict, _PutOff)
        ]
        _measure(receipts)
        by_partition: dict[int, list[Receipt]] = {}
        for receipt in receipts:
            by_partition.setdefault(receipt.position.partition, []).append(receipt)
        return [
            Outgoing(RECEIPTS.name, str(partition).encode(), codec.encode_receipts(group), partition)
            for partition, group in by_partition.items()
        ]


def _again(recent: RecentVersions, but: Set[str], now_us: int) -> tuple[tuple[str, int, int], ...]:
    """Trims of what was taken out a while ago, of documents that are not in `but` and that this process still knows."""
    trims = []
    for key, end in recent.taken_out.due(now_us).items():
        known = None if key in but else recent.get(key)
        if known is not None and known.chunks < end:
            trims.append((key, known.chunks, end))
    return tuple(trims)


def _event(record: VectorRecord) -> ChangeEvent:
    """The change that a record was made of, with its version resolved."""
    return ChangeEvent(
        collection=record.collection,
        collection_uid=record.collection_uid,
        tenant=record.tenant,
        id=record.id,
        operation=record.operation,
        version=record.version,
        fields_json=record.fields_json,
        accepted_at_us=record.accepted_at_us,
        source=record.source,
        media=record.media,
        backfill_generation=record.backfill_generation,
    )


def _documents(group: _Group, key: str, record: VectorRecord) -> dict[int, StoredDocument]:
    """What an upsert writes, by generation; none where it has nothing for that index. Raises InvalidRecord when its
    vectors do not belong into a store, and Unavailable when they are of a generation that this process has not heard of
    yet."""
    if not record.vectors or (not record.chunks and any(len(named.values) for named in record.vectors)):
        raise InvalidRecord("missing_vectors", "an upsert needs chunks with vectors")
    try:
        attributes = attributes_of(group.collection.definition, fields_of(record.fields_json))
    except InvalidRequest as error:
        raise InvalidRecord("invalid_json", str(error)) from error
    documents: dict[int, StoredDocument] = {}
    for named in record.vectors:
        target = group.targets.get(named.generation)
        if target is None:
            if named.generation >= group.collection.unused_number:
                raise Unavailable("control", f"generation {named.generation} is not known yet", 0.2)
            continue
        if named.space != target.space:
            metrics.SPACE_REFUSALS.inc()
            raise InvalidRecord("wrong_space", f"vectors of space {named.space}, the store holds {target.space}")
        if not len(named.values):
            continue
        if (found := shape_of(named.values)) != (expected := (target.kind, target.dimension)):
            raise InvalidRecord("wrong_dimension", f"expected {expected}, found {found}")
        vectors = named.values if isinstance(named.values, Sparse) else np.ascontiguousarray(named.values)
        documents[named.generation] = StoredDocument(
            key, record.tenant, record.id, record.version, record.fields_json, attributes,
            named.chunks or record.chunks, vectors,
        )  # fmt: skip
    return documents


def _receipt(record: VectorRecord, verdict: Verdict | InvalidRecord, written_at: int, searchable_at: int) -> Receipt:
    receipt = Receipt(
        position=record.position,
        collection=record.collection,
        tenant=record.tenant,
        id=record.id,
        operation=record.operation,
        version=record.version,
        outcome=Outcome.REJECTED,
        chunks=len(record.chunks),
        accepted_at_us=record.accepted_at_us,
        read_at_us=record.read_at_us,
        encoded_at_us=record.encoded_at_us,
        written_at_us=written_at,
        searchable_at_us=searchable_at,
    )
    if isinstance(verdict, InvalidRecord):
        return replace(receipt, reason=verdict.reason, detail=verdict.detail, written_at_us=0, searchable_at_us=0)
    return replace(receipt, outcome=verdict.outcome, superseded_by=verdict.superseded_by)


def _measure(receipts: Sequence[Receipt]) -> None:
    for outcome, count in Counter(receipt.outcome for receipt in receipts).items():
        metrics.OUTCOMES.labels(outcome.name.lower()).inc(count)
    parts = [metrics.STAGE_FRESHNESS.labels(part) for part in ("queued", "encoded", "indexed", "visible")]
    for receipt in receipts:
        if receipt.outcome is not Outcome.SEARCHABLE:
            continue
        times = (
            receipt.accepted_at_us, receipt.read_at_us, receipt.encoded_at_us, receipt.written_at_us,
            receipt.searchable_at_us,
        )  # fmt: skip
        # Machines' clocks may differ: a part that comes out negative is counted as zero, not left out.
        metrics.FRESHNESS.labels(receipt.collection).observe(max(0, times[-1] - times[0]) / 1e6)
        for part, begun, ended in zip(parts, times, times[1:], strict=False):
            part.observe(max(0, ended - begun) / 1e6)
