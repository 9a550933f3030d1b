"""Folding a batch: which event wins per document, and what that writes. Pure; the heart of the order rules.

Order is by version alone. Two events of one document with the same version are the same write twice (a
redelivery), except when they differ in operation: then the delete wins, as it is the safer reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.core.records import Operation, Outcome, VectorRecord
from driftline.core.store import Removal, StoredDocument, StoredVersion, WritePlan


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record of the batch."""

    outcome: Outcome
    superseded_by: int = 0


@dataclass(frozen=True, slots=True)
class Folded:
    """The plan of each generation, a verdict per record, and what each generation holds once its plan is applied."""

    plans: Mapping[int, WritePlan]
    verdicts: tuple[Verdict, ...]
    after: Mapping[int, Mapping[str, StoredVersion]]


# What a generation holds of a document whose rows were taken out without a delete: older than everything.
NOTHING = StoredVersion(0, 0, True)


def _rank(version: int, deleted: bool) -> tuple[int, bool]:
    return version, deleted


def _newest(stored: Mapping[int, Mapping[str, StoredVersion]], key: str) -> StoredVersion | None:
    """The highest version that any generation holds."""
    found = [versions[key] for versions in stored.values() if key in versions]
    return max(found, key=lambda s: _rank(s.version, s.deleted), default=None)


class _Plans:
    """What is written to each generation so far."""

    def __init__(self, stored: Mapping[int, Mapping[str, StoredVersion]]) -> None:
        self._stored = stored
        self._upserts: dict[int, list[StoredDocument]] = {g: [] for g in stored}
        self._removals: dict[int, list[Removal]] = {g: [] for g in stored}
        self._trims: dict[int, list[tuple[str, int, int]]] = {g: [] for g in stored}
        self.after: dict[int, dict[str, StoredVersion]] = {g: {} for g in stored}

    def _chunks(self, generation: int, key: str) -> int:
        known = self._stored[generation].get(key)
        return known.chunks if known else 0

    def upsert(self, generation: int, document: StoredDocument) -> None:
        old = self._chunks(generation, document.key)
        self._upserts[generation].append(document)
        if old > len(document.chunks):
            self._trims[generation].append((document.key, len(document.chunks), old))
        self.after[generation][document.key] = StoredVersion(document.version, len(document.chunks), False)

    def take_out(self, generation: int, key: str, version: int) -> None:
        """Remove rows that are older than `version`, without a tombstone: another generation gets that version."""
        known = self._stored[generation].get(key)
        if known is not None and known.version < version:
            if known.chunks:
                self._trims[generation].append((key, 0, known.chunks))
            self.after[generation][key] = NOTHING

    def delete(self, key: str, version: int) -> None:
        for generation in self._stored:
            self._removals[generation].append(Removal(key, version, self._chunks(generation, key)))
            self.after[generation][key] = StoredVersion(version, 0, True)

    def done(self) -> dict[int, WritePlan]:
        return {
            g: WritePlan(tuple(self._upserts[g]), tuple(self._removals[g]), tuple(self._trims[g])) for g in self._stored
        }


def fold(
    records: Sequence[VectorRecord],
    keys: Sequence[str],
    stored: Mapping[int, Mapping[str, StoredVersion]],
    documents: Mapping[int, Mapping[int, StoredDocument]],
) -> Folded:
    """Fold records of one collection against what its live generations hold.

    `keys` names each record's document. `stored` maps a generation to its documents. `documents` holds, by index into
    `records` and then by generation, what an upsert would write there; where it has nothing for a generation, that
    one loses its older rows. A record whose version equals the stored one is applied again: an earlier try may have
    stopped half-way.

    A backfill only copies: it is applied if another generation holds exactly its version, live, and no change of the
    document is in the batch. So it never outruns a change, and never brings back what was deleted, however old it is.
    """
    winners: dict[str, int] = {}
    for i, (record, key) in enumerate(zip(records, keys, strict=True)):
        if record.backfill_generation:
            continue
        rank = _rank(record.version, record.operation is Operation.DELETE)
        known = _newest(stored, key)
        if known is not None and rank < _rank(known.version, known.deleted):
            continue
        best = winners.get(key)
        if best is None or rank >= _rank(records[best].version, records[best].operation is Operation.DELETE):
            winners[key] = i
    plans = _Plans(stored)
    for key, i in winners.items():
        if records[i].operation is Operation.DELETE:
            plans.delete(key, records[i].version)
            continue
        for generation in stored:
            document = documents[i].get(generation)
            if document is None:
                plans.take_out(generation, key, records[i].version)
            else:
                plans.upsert(generation, document)
    verdicts = tuple(
        _backfill(record, key, winners, records, stored, documents[i], plans)
        if record.backfill_generation
        else _verdict(i, record, key, winners, records, stored)
        for i, (record, key) in enumerate(zip(records, keys, strict=True))
    )
    return Folded(plans.done(), verdicts, plans.after)


def _backfill(
    record: VectorRecord,
    key: str,
    winners: Mapping[str, int],
    records: Sequence[VectorRecord],
    stored: Mapping[int, Mapping[str, StoredVersion]],
    documents: Mapping[int, StoredDocument],
    plans: _Plans,
) -> Verdict:
    """Plan a backfill, if it still has to be done."""
    generation = record.backfill_generation
    if key in winners:
        return Verdict(Outcome.SUPERSEDED, records[winners[key]].version)
    newest = _newest({g: held for g, held in stored.items() if g != generation}, key)
    if generation not in stored or newest is None or newest.deleted or newest.version != record.version:
        return Verdict(Outcome.SUPERSEDED, newest.version if newest else 0)
    here = plans.after[generation].get(key) or stored[generation].get(key)
    if here is not None and _rank(here.version, here.deleted) > _rank(record.version, False):
        return Verdict(Outcome.SUPERSEDED, here.version)
    if (here is None or here.version < record.version) and generation in documents:
        plans.upsert(generation, documents[generation])
    return Verdict(Outcome.SEARCHABLE)


def _verdict(
    i: int,
    record: VectorRecord,
    key: str,
    winners: Mapping[str, int],
    records: Sequence[VectorRecord],
    stored: Mapping[int, Mapping[str, StoredVersion]],
) -> Verdict:
    winner = winners.get(key)
    if winner is None:
        known = _newest(stored, key)
        assert known is not None  # something newer made it lose
        return Verdict(Outcome.SUPERSEDED, known.version)
    best = records[winner]
    if winner == i or (best.version == record.version and best.operation == record.operation):
        return Verdict(Outcome.SEARCHABLE)
    return Verdict(Outcome.SUPERSEDED, best.version)
