"""The order rules, against an oracle that applies events one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.core.records import Operation, Outcome, StoredVersion, VectorRecord, document_key
from driftline.index.fold import Folded, fold
from tests.build import a_stored, a_vector_record


def folded(records: list[VectorRecord], stored: dict[str, StoredVersion] | None = None) -> Folded:
    keys = [document_key(r.tenant, r.id) for r in records]
    documents = {
        i: a_stored(r.id, version=r.version, chunks=len(r.chunks))
        for i, r in enumerate(records)
        if r.operation is Operation.UPSERT
    }
    return fold(records, keys, stored or {}, documents)


A = document_key("", "a")


def test_of_two_upserts_in_a_batch_only_the_newer_is_written() -> None:
    result = folded([a_vector_record(version=1), a_vector_record(version=2)])
    assert [d.version for d in result.plan.upserts] == [2]
    assert [v.outcome for v in result.verdicts] == [Outcome.SUPERSEDED, Outcome.SEARCHABLE]
    assert result.verdicts[0].superseded_by == 2


def test_a_late_upsert_does_not_resurrect() -> None:
    result = folded([a_vector_record(version=1)], {A: StoredVersion(2, 0, True)})
    assert result.plan.is_empty()
    assert result.verdicts[0].outcome is Outcome.SUPERSEDED


def test_fewer_chunks_than_before_trims_the_rest() -> None:
    result = folded([a_vector_record(version=2, chunks=1)], {A: StoredVersion(1, 4, False)})
    assert result.plan.trims == ((A, 1, 4),)


def test_a_delete_removes_every_stored_chunk() -> None:
    result = folded([a_vector_record(version=2, delete=True)], {A: StoredVersion(1, 4, False)})
    assert [(r.version, r.chunks) for r in result.plan.removals] == [(2, 4)]


def test_an_equal_version_is_applied_again_after_a_crash() -> None:
    result = folded([a_vector_record(version=2)], {A: StoredVersion(2, 3, False)})
    assert [d.version for d in result.plan.upserts] == [2]
    assert result.verdicts[0].outcome is Outcome.SEARCHABLE


def test_rows_that_outlived_their_tombstone_are_removed_by_a_newer_upsert() -> None:
    result = folded([a_vector_record(version=3, chunks=1)], {A: StoredVersion(2, 5, True)})
    assert result.plan.trims == ((A, 1, 5),)


events = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.booleans(), st.integers(1, 3)), min_size=1, max_size=30
)


@given(events, st.integers(1, 10))
@settings(max_examples=300, deadline=None)
def test_any_batching_of_any_history_ends_as_the_oracle(history: list[tuple[str, int, bool, int]], size: int) -> None:
    records = [a_vector_record(i, version=v, delete=d, chunks=c) for i, v, d, c in history]
    stored: dict[str, StoredVersion] = {}
    rows: dict[str, set[int]] = {}
    for start in range(0, len(records), size):
        result = folded(records[start : start + size], stored)
        for removal in result.plan.removals:
            rows.get(removal.key, set()).difference_update(range(removal.chunks))
        for key, new, old in result.plan.trims:
            rows[key].difference_update(range(new, old))
        for document in result.plan.upserts:
            rows.setdefault(document.key, set()).update(range(len(document.chunks)))
        stored |= result.after
    oracle: dict[str, tuple[int, bool]] = {}
    for record in records:
        key = document_key("", record.id)
        oracle[key] = max(oracle.get(key, (0, False)), (record.version, record.operation is Operation.DELETE))
    assert {k: (s.version, s.deleted) for k, s in stored.items()} == oracle
    assert {k: set(range(s.chunks)) for k, s in stored.items()} == {k: rows.get(k, set()) for k in stored}
