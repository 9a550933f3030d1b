"""The index stage: vector records in, accepted documents and receipts out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from driftline.core import codec, metrics
from driftline.core.collections import Collection, attributes_of
from driftline.core.control import ControlView
from driftline.core.errors import Fenced, InvalidRecord, InvalidRequest
from driftline.core.ports import Cache, VectorStore
from driftline.core.records import (
    ChangeEvent,
    Clock,
    Incoming,
    Operation,
    Outcome,
    Outgoing,
    Receipt,
    StoredDocument,
    StoredVersion,
    StoreTarget,
    VectorRecord,
    document_key,
    now_us,
    record_key,
)
from driftline.core.runner import Processed, Refused, Result
from driftline.core.topics import DOCUMENTS, RECEIPTS
from driftline.index.fold import Folded, Verdict, fold
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

    def get(self, key: str) -> StoredVersion | None:
        with self._lock:
            found = self._versions.get(key)
        return None if found is None else found[0]

    def put(self, versions: Mapping[str, StoredVersion], timestamp: int) -> None:
        with self._lock:
            for key, version in versions.items():
                self._versions[key] = (version, timestamp)
                self._versions.move_to_end(key)

    def settle(self, timestamp: int) -> None:
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
    """The records of one batch that go to one store."""

    collection: Collection
    target: StoreTarget
    recent: RecentVersions | None
    indices: list[int]
    keys: list[str]
    documents: dict[int, StoredDocument]


class IndexStage:
    """One owner per partition gives the order; `lease` tells for how many seconds this process surely is the owner."""

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
        verdicts: list[Verdict | InvalidRecord] = [InvalidRecord("unknown_collection", "the collection is gone")] * len(
            batch
        )
        groups: dict[str, _Group] = {}
        for i, record in enumerate(batch):
            try:
                if record.rejected_reason:
                    raise InvalidRecord(record.rejected_reason, record.rejected_detail)
                self._sort_in(groups, i, record)
            except InvalidRecord as error:
                verdicts[i] = error
        written: list[tuple[StoreTarget, RecentVersions, int]] = []
        for group in groups.values():
            folded, recent, timestamp = self._write(batch, group)
            written.append((group.target, recent, timestamp))
            for i, verdict in zip(group.indices, folded.verdicts, strict=True):
                verdicts[i] = verdict
        written_at = self._clock()
        results = [self._result(record, verdict) for record, verdict in zip(batch, verdicts, strict=True)]
        return Processed(results, lambda: self._settle(batch, verdicts, written, written_at))

    def _sort_in(self, groups: dict[str, _Group], i: int, record: VectorRecord) -> None:
        collection = self._view.incarnation(record.collection, record.collection_uid)
        if collection is None:
            raise InvalidRecord("unknown_collection", f"there is no collection {record.collection!r}")
        generation = collection.active
        space = self._view.space(generation.space)
        target = collection.target(generation, space.dimension)
        key = document_key(record.tenant, record.id)
        document = None
        if record.operation is Operation.UPSERT:
            document = _document(collection, target, key, record)
        group = groups.get(target.store)
        if group is None:
            with self._lock:
                recent = self._recent.get(target.store)
            group = groups[target.store] = _Group(collection, target, recent, [], [], {})
        if document is not None:
            group.documents[len(group.indices)] = document
        group.indices.append(i)
        group.keys.append(key)

    def _write(self, batch: Sequence[VectorRecord], group: _Group) -> tuple[Folded, RecentVersions, int]:
        self._store.ensure(group.target)
        stored = self._stored(group)
        folded = fold([batch[i] for i in group.indices], group.keys, stored, group.documents)
        recent = group.recent or RecentVersions(self._settings.recent_versions)
        timestamp = recent.visible
        if not folded.plan.is_empty():
            self.guard()
            timestamp = self._store.apply(group.target, folded.plan, self.guard)
            recent.put(folded.after, timestamp)
        with self._lock:
            self._recent[group.target.store] = recent
        return folded, recent, timestamp

    def _stored(self, group: _Group) -> dict[str, StoredVersion]:
        """Stored versions. The first read after a change of ownership is strong; then, what this process wrote
        and may not be visible yet it remembers, and everything older is visible."""
        distinct = list(dict.fromkeys(group.keys))
        if group.recent is None:
            return dict(self._store.versions(group.target, distinct, None))
        known = {key: version for key in distinct if (version := group.recent.get(key)) is not None}
        unknown = [key for key in distinct if key not in known]
        if unknown:
            known |= self._store.versions(group.target, unknown, group.recent.visible)
        return known

    def _result(self, record: VectorRecord, verdict: Verdict | InvalidRecord) -> Result:
        if isinstance(verdict, InvalidRecord):
            # Refused on the way: encode has dead-lettered it already. Refused here: its dead letter is due.
            return () if record.rejected_reason else Refused(verdict)
        if verdict.outcome is not Outcome.SEARCHABLE:
            return ()
        event = ChangeEvent(
            record.collection, record.collection_uid, record.tenant, record.id, record.operation, record.version,
            record.fields_json, record.accepted_at_us, record.source, record.media,
        )  # fmt: skip
        key = record_key(record.collection_uid, record.tenant, record.id)
        return (Outgoing(DOCUMENTS.name, key, codec.encode_change(event), record.position.partition),)

    def _settle(
        self,
        batch: Sequence[VectorRecord],
        verdicts: Sequence[Verdict | InvalidRecord],
        written: Sequence[tuple[StoreTarget, RecentVersions, int]],
        written_at: int,
    ) -> list[Outgoing]:
        """Wait until the batch is visible to searches, then tell the world."""
        for target, recent, timestamp in written:
            if timestamp > recent.visible:
                self._store.wait_visible(target, timestamp)
                recent.settle(timestamp)
        for collection in {record.collection for record in batch}:
            self._cache.increment(f"epoch:{collection}")
        searchable_at = self._clock()
        receipts = [
            _receipt(record, verdict, written_at, searchable_at)
            for record, verdict in zip(batch, verdicts, strict=True)
        ]
        for receipt in receipts:
            _measure(receipt)
        by_partition: dict[int, list[Receipt]] = {}
        for receipt in receipts:
            by_partition.setdefault(receipt.position.partition, []).append(receipt)
        return [
            Outgoing(RECEIPTS.name, str(partition).encode(), codec.encode_receipts(group), partition)
            for partition, group in by_partition.items()
        ]


def _document(collection: Collection, target: StoreTarget, key: str, record: VectorRecord) -> StoredDocument:
    """What an upsert writes. Raises InvalidRecord when its vectors do not belong into the store."""
    named = next((v for v in record.vectors if v.name == collection.active.vector_name), None)
    if named is None or not record.chunks:
        raise InvalidRecord("missing_vectors", f"no vectors named {collection.active.vector_name!r}")
    if named.space != target.space:
        raise InvalidRecord("wrong_space", f"vectors of space {named.space}, the store holds {target.space}")
    if named.values.shape[1] != target.dimension:
        raise InvalidRecord("wrong_dimension", f"expected {target.dimension}, found {named.values.shape[1]}")
    try:
        fields = orjson.loads(record.fields_json)
        attributes = attributes_of(collection.definition, fields)
    except (orjson.JSONDecodeError, InvalidRequest, AttributeError, TypeError) as error:
        raise InvalidRecord("invalid_json", f"fields_json: {error}") from error
    return StoredDocument(
        key, record.tenant, record.id, record.version, record.fields_json, attributes, record.chunks,
        np.ascontiguousarray(named.values),
    )  # fmt: skip


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


def _measure(receipt: Receipt) -> None:
    metrics.OUTCOMES.labels(receipt.outcome.name.lower()).inc()
    if receipt.outcome is not Outcome.SEARCHABLE:
        return
    times = (
        receipt.accepted_at_us, receipt.read_at_us, receipt.encoded_at_us, receipt.written_at_us,
        receipt.searchable_at_us,
    )  # fmt: skip
    # Machines' clocks may differ: a part that comes out negative is counted as zero, not left out.
    metrics.FRESHNESS.labels(receipt.collection).observe(max(0, times[-1] - times[0]) / 1e6)
    for part, begun, ended in zip(("queued", "encoded", "indexed", "visible"), times, times[1:], strict=False):
        metrics.STAGE_FRESHNESS.labels(part).observe(max(0, ended - begun) / 1e6)
