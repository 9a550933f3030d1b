"""The order rules, against an oracle that applies events one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.core.records import Operation, Outcome, VectorRecord, document_key
from driftline.core.store import StoredDocument, StoredVersion
from driftline.index.fold import Folded, fold
from tests.build import a_stored, a_vector_record


def folded(records: list[VectorRecord], stored: dict[str, StoredVersion] | None = None) -> Folded:
    keys = [document_key(r.tenant, r.id) for r in records]
    return fold(records, keys, {1: stored or {}}, documents_of(records, 1))


def documents_of(records: list[VectorRecord], *generations: int) -> dict[int, dict[int, StoredDocument]]:
    """What each record writes: to its backfill's generation, or to all of `generations`."""
    return {
        i: {
            g: a_stored(r.id, version=r.version, chunks=len(r.chunks))
            for g in ([r.backfill_generation] if r.backfill_generation else generations)
        }
        if r.operation is Operation.UPSERT
        else {}
        for i, r in enumerate(records)
    }


A = document_key("", "a")


def test_of_two_upserts_in_a_batch_only_the_newer_is_written() -> None:
    result = folded([a_vector_record(version=1), a_vector_record(version=2)])
    assert [d.version for d in result.plans[1].upserts] == [2]
    assert [v.outcome for v in result.verdicts] == [Outcome.SUPERSEDED, Outcome.SEARCHABLE]
    assert result.verdicts[0].superseded_by == 2


def test_a_late_upsert_does_not_resurrect() -> None:
    result = folded([a_vector_record(version=1)], {A: StoredVersion(2, 0, True)})
    assert result.plans[1].is_empty()
    assert result.verdicts[0].outcome is Outcome.SUPERSEDED


def test_fewer_chunks_than_before_trims_the_rest() -> None:
    result = folded([a_vector_record(version=2, chunks=1)], {A: StoredVersion(1, 4, False)})
    assert result.plans[1].trims == ((A, 1, 4),)


def test_a_delete_removes_every_stored_chunk() -> None:
    result = folded([a_vector_record(version=2, delete=True)], {A: StoredVersion(1, 4, False)})
    assert [(r.version, r.chunks) for r in result.plans[1].removals] == [(2, 4)]


def test_an_equal_version_is_applied_again_after_a_crash() -> None:
    result = folded([a_vector_record(version=2)], {A: StoredVersion(2, 3, False)})
    assert [d.version for d in result.plans[1].upserts] == [2]
    assert result.verdicts[0].outcome is Outcome.SEARCHABLE


def test_rows_that_outlived_their_tombstone_are_removed_by_a_newer_upsert() -> None:
    result = folded([a_vector_record(version=3, chunks=1)], {A: StoredVersion(2, 5, True)})
    assert result.plans[1].trims == ((A, 1, 5),)


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
        for removal in result.plans[1].removals:
            rows.get(removal.key, set()).difference_update(range(removal.chunks))
        for key, new, old in result.plans[1].trims:
            rows[key].difference_update(range(new, old))
        for document in result.plans[1].upserts:
            rows.setdefault(document.key, set()).update(range(len(document.chunks)))
        stored |= result.after[1]
    oracle: dict[str, tuple[int, bool]] = {}
    for record in records:
        key = document_key("", record.id)
        oracle[key] = max(oracle.get(key, (0, False)), (record.version, record.operation is Operation.DELETE))
    assert {k: (s.version, s.deleted) for k, s in stored.items()} == oracle
    assert {k: set(range(s.chunks)) for k, s in stored.items()} == {k: rows.get(k, set()) for k in stored}


# Two generations: 1 is complete, 2 is being filled.


def test_a_change_goes_to_every_generation() -> None:
    records = [a_vector_record(version=2)]
    result = fold(records, [A], {1: {A: StoredVersion(1, 1, False)}, 2: {}}, documents_of(records, 1, 2))
    assert [[d.version for d in result.plans[g].upserts] for g in (1, 2)] == [[2], [2]]


def test_a_change_without_vectors_of_the_new_generation_takes_its_old_rows_out() -> None:
    records = [a_vector_record(version=2)]
    held = {1: {A: StoredVersion(1, 1, False)}, 2: {A: StoredVersion(1, 3, False)}}
    result = fold(records, [A], held, documents_of(records, 1))
    assert result.plans[2].trims == ((A, 0, 3),)
    assert result.plans[2].removals == ()


def test_a_redelivered_change_leaves_a_backfill_of_its_own_version_alone() -> None:
    records = [a_vector_record(version=2)]
    held = {1: {A: StoredVersion(2, 1, False)}, 2: {A: StoredVersion(2, 1, False)}}
    assert fold(records, [A], held, documents_of(records, 1)).plans[2].is_empty()


def test_a_delete_reaches_every_generation() -> None:
    held = {1: {A: StoredVersion(1, 2, False)}, 2: {A: StoredVersion(1, 3, False)}}
    result = fold([a_vector_record(version=2, delete=True)], [A], held, {0: {}})
    assert [result.plans[g].removals[0].chunks for g in (1, 2)] == [2, 3]


@pytest.mark.parametrize(
    "held, version, applied",
    [
        ({1: {A: StoredVersion(3, 1, False)}, 2: {}}, 3, True),
        ({1: {A: StoredVersion(4, 1, False)}, 2: {}}, 3, False),
        ({1: {A: StoredVersion(4, 1, True)}, 2: {A: StoredVersion(4, 0, True)}}, 3, False),
        ({1: {}, 2: {}}, 3, False),
        ({1: {A: StoredVersion(3, 1, False)}, 2: {A: StoredVersion(3, 1, False)}}, 3, False),
        ({1: {A: StoredVersion(3, 1, False)}, 2: {A: StoredVersion(2, 5, False)}}, 3, True),
        ({1: {A: StoredVersion(3, 1, False)}, 2: {A: StoredVersion(3, 0, True)}}, 3, False),
        ({1: {A: StoredVersion(3, 1, False)}}, 3, False),
    ],
    ids=[
        "copied", "changed", "deleted", "deleted long ago", "there already", "older there", "deleted there", "given up",
    ],
)  # fmt: skip
def test_a_backfill_only_copies_what_is_live_elsewhere(
    held: dict[int, dict[str, StoredVersion]], version: int, applied: bool
) -> None:
    records = [a_vector_record(version=version, backfill_generation=2)]
    result = fold(records, [A], held, documents_of(records))
    assert [d.version for g in held for d in result.plans[g].upserts] == ([version] if applied else [])
    assert all(not plan.removals for plan in result.plans.values())


def test_a_backfill_loses_against_a_change_in_its_batch() -> None:
    records = [a_vector_record(version=1, backfill_generation=2), a_vector_record(version=2)]
    result = fold(records, [A, A], {1: {A: StoredVersion(1, 1, False)}, 2: {}}, documents_of(records, 1, 2))
    assert [d.version for d in result.plans[2].upserts] == [2]


def test_a_backfill_loses_against_a_change_in_its_batch_that_has_no_vectors_of_its_generation() -> None:
    records = [a_vector_record(version=2), a_vector_record(version=1, backfill_generation=2)]
    documents = {0: {1: a_stored(version=2)}, 1: {2: a_stored(version=1)}}
    result = fold(records, [A, A], {1: {A: StoredVersion(1, 1, False)}, 2: {}}, documents)
    assert result.plans[2].upserts == ()
    assert result.verdicts[1].outcome is Outcome.SUPERSEDED


kinds = st.sampled_from(["both", "both", "old only", "delete", "backfill", "stale backfill"])
mixed_events = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6), kinds), min_size=1, max_size=30)


@given(mixed_events, st.integers(1, 8), st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_is_backfilled_no_generation_holds_what_the_oracle_does_not(
    history: list[tuple[str, int, str]], size: int, forgets: bool
) -> None:
    """Generation 1 equals the oracle; generation 2 holds a part of it, never another version, never a deleted one.

    `forgets`: tombstones are purged between batches, so the only thing that stops an old backfill is generation 1.
    """
    held: dict[int, dict[str, StoredVersion]] = {1: {}, 2: {}}
    oracle: dict[str, tuple[int, bool]] = {}
    for start in range(0, len(history), size):
        records, documents = [], {}
        for id_, version, kind in history[start : start + size]:
            key = document_key("", id_)
            backfill = 2 if "backfill" in kind else 0
            if kind == "backfill":
                version = held[1][key].version if key in held[1] else version
            record = a_vector_record(id_, version=version, delete=kind == "delete", backfill_generation=backfill)
            if not backfill and forgets and version <= oracle.get(key, (0, False))[0]:
                continue  # a change older than its tombstone may resurrect: that is the tombstones' own rule
            records.append(record)
            targets = {"both": (1, 2), "old only": (1,), "delete": ()}.get(kind, (2,))
            documents[len(records) - 1] = {g: a_stored(id_, version=version) for g in targets}
            if not backfill:
                oracle[key] = max(oracle.get(key, (0, False)), (version, kind == "delete"))
        result = fold(records, [document_key("", r.id) for r in records], held, documents)
        for g in held:
            held[g] |= result.after[g]
            # A tombstone is shared by all generations of a collection.
            for key, known in list(held[1].items()):
                if known.deleted and held[g].get(key, StoredVersion(0, 0, True)).version <= known.version:
                    held[g][key] = known
            if forgets:
                held[g] = {k: s for k, s in held[g].items() if not s.deleted}
        # After every batch: what a later one mends was found by the searches in between.
        live = {k: v for k, (v, deleted) in oracle.items() if not deleted}
        first = {k: s.version for k, s in held[1].items() if not s.deleted}
        second = {k: s.version for k, s in held[2].items() if not s.deleted}
        assert first == live
        assert second.items() <= live.items()
