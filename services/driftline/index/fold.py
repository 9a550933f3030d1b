"""Folding a batch: which event wins per document, and what that writes. Pure; the heart of the order rules.

Order is by version alone. Two events of one document with the same version are the same write twice (a
redelivery), except when they differ in operation: then the delete wins, as it is the safer reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.core.records import (
    Operation,
    Outcome,
    Removal,
    StoredDocument,
    StoredVersion,
    VectorRecord,
    WritePlan,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record of the batch."""

    outcome: Outcome
    superseded_by: int = 0


@dataclass(frozen=True, slots=True)
class Folded:
    """The plan of a batch, a verdict per record, and the versions stored once the plan is applied."""

    plan: WritePlan
    verdicts: tuple[Verdict, ...]
    after: Mapping[str, StoredVersion]


def _rank(version: int, deleted: bool) -> tuple[int, bool]:
    return version, deleted


def fold(
    records: Sequence[VectorRecord],
    keys: Sequence[str],
    stored: Mapping[str, StoredVersion],
    documents: Mapping[int, StoredDocument],
) -> Folded:
    """Fold records (all of one store) against what is stored.

    `keys` names each record's document; `documents` holds, by index into `records`, what an upsert would write.
    A record whose version equals the stored one is applied again: an earlier try may have stopped half-way.
    """
    winners: dict[str, int] = {}
    for i, (record, key) in enumerate(zip(records, keys, strict=True)):
        rank = _rank(record.version, record.operation is Operation.DELETE)
        known = stored.get(key)
        if known is not None and rank < _rank(known.version, known.deleted):
            continue
        best = winners.get(key)
        if best is None or rank >= _rank(records[best].version, records[best].operation is Operation.DELETE):
            winners[key] = i
    upserts: list[StoredDocument] = []
    removals: list[Removal] = []
    trims: list[tuple[str, int, int]] = []
    after: dict[str, StoredVersion] = {}
    for key, i in winners.items():
        record = records[i]
        known = stored.get(key)
        old_chunks = known.chunks if known else 0
        if record.operation is Operation.DELETE:
            removals.append(Removal(key, record.version, old_chunks))
            after[key] = StoredVersion(record.version, 0, True)
        else:
            document = documents[i]
            upserts.append(document)
            if old_chunks > len(document.chunks):
                trims.append((key, len(document.chunks), old_chunks))
            after[key] = StoredVersion(record.version, len(document.chunks), False)
    verdicts = tuple(
        _verdict(i, record, key, winners, records, stored)
        for i, (record, key) in enumerate(zip(records, keys, strict=True))
    )
    return Folded(WritePlan(tuple(upserts), tuple(removals), tuple(trims)), verdicts, after)


def _verdict(
    i: int,
    record: VectorRecord,
    key: str,
    winners: Mapping[str, int],
    records: Sequence[VectorRecord],
    stored: Mapping[str, StoredVersion],
) -> Verdict:
    winner = winners.get(key)
    if winner is None:
        return Verdict(Outcome.SUPERSEDED, stored[key].version)
    best = records[winner]
    if winner == i or (best.version == record.version and best.operation == record.operation):
        return Verdict(Outcome.SEARCHABLE)
    return Verdict(Outcome.SUPERSEDED, best.version)
