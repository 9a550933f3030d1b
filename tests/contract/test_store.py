"""One suite for both vector stores: memory and Milvus."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driftline.adapters.memory import MemoryStore
from driftline.adapters.milvus import MilvusStore
from driftline.core.errors import Fenced, SpaceMismatch
from driftline.core.ports import VectorStore
from driftline.core.records import document_key, now_us
from driftline.core.settings import MilvusSettings
from driftline.core.store import Removal, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from tests.build import a_stored, a_target

free = lambda: 10.0  # noqa: E731
A, B = document_key("", "a"), document_key("", "b")


def write(store: VectorStore, target: StoreTarget, plan: WritePlan) -> int:
    timestamp = store.apply(target, plan, free)
    store.wait_visible(target, timestamp)
    return timestamp


def test_versions_tell_live_deleted_and_unknown(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", version=3, chunks=2), a_stored("b", version=4))))
    write(store, target, WritePlan(removals=(Removal(B, 5, 1),)))
    found = store.versions(target, [A, B, document_key("", "c")], None)
    assert found == {A: StoredVersion(3, 2, False), B: StoredVersion(5, 0, True)}
    assert store.count(target) == 1


def test_an_upsert_with_fewer_chunks_leaves_no_orphan(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", version=1, chunks=5),)))
    write(store, target, WritePlan((a_stored("a", version=2, chunks=2),), trims=((A, 2, 5),)))
    assert sorted((v, c) for _, _, v, c in store.scan(target)) == [(2, 0), (2, 1)]
    hits = store.search(target, VectorQuery(np.ones((1, 8), np.float32), 10, None))[0]
    assert len(hits) == 2


def test_rows_are_taken_out_without_a_tombstone(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", version=1, chunks=3), a_stored("b", version=1))))
    write(store, target, WritePlan(trims=((A, 0, 3),)))
    assert store.versions(target, [A, B], None) == {B: StoredVersion(1, 1, False)}
    hits = store.search(target, VectorQuery(np.ones((1, 8), np.float32), 10, None))[0]
    assert {hit.key for hit in hits} == {B}


@pytest.mark.parametrize("step", ["create_index", "load_collection"])
def test_a_milvus_collection_that_was_left_half_made_is_completed(milvus_settings: MilvusSettings, step: str) -> None:
    complete_half_made(milvus_settings, step, "dense", a_stored("a"))


def complete_half_made(settings: MilvusSettings, step: str, kind: str, document: StoredDocument) -> None:
    """What a kill between the three steps of a creation leaves could not be searched, and stayed so for ever."""
    name = f"contract_{uuid.uuid4().hex[:10]}"
    made = StoreTarget(name, "s1", 8 if kind == "dense" else 1, "cosine", name, kind)
    broken = MilvusStore(settings)
    broken.ensure(replace(made, store=f"{name}_first"))

    class Killed(BaseException):
        pass

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    setattr(broken._calls._connected, step, killed)
    with pytest.raises(Killed):
        broken.ensure(made)
    mended = MilvusStore(settings)
    mended.ensure(made)
    write(mended, made, WritePlan((document,)))
    assert len(mended.search(made, VectorQuery(document.vectors, 5, None))[0]) == 1
    mended.drop(made)
    mended.drop(replace(made, store=f"{name}_first"))


# Remnants: rows that a delete should have taken, and that Milvus lost. A plan that does not take them out leaves them.


def shown(store: VectorStore, target: StoreTarget, near: StoredDocument, limit: int = 10) -> set[tuple[str, int, int]]:
    """What is found near the last chunk of a document: id, version, chunk."""
    hits = store.search(target, VectorQuery(near.vectors[-1:], limit, None, strong=True))[0]
    return {(hit.id, hit.version, hit.chunk) for hit in hits}


def test_chunks_that_the_new_version_has_no_more_are_not_shown(store: VectorStore, target: StoreTarget) -> None:
    old = a_stored("a", version=1, chunks=4)
    write(store, target, WritePlan((old,)))
    write(store, target, WritePlan((a_stored("a", version=2, chunks=2),)))
    assert {c for _, _, _, c in store.scan(target)} == {0, 1, 2, 3}
    assert shown(store, target, old) == {("a", 2, 0), ("a", 2, 1)}
    (found,) = store.fetch(target, [A], True)
    assert (found.version, len(found.chunks), len(found.vectors)) == (2, 2, 2)


@pytest.mark.parametrize("with_fields", [True, False])
def test_no_remnant_takes_the_place_of_a_hit(store: VectorStore, target: StoreTarget, with_fields: bool) -> None:
    """The nearest 30 rows are remnants, and two documents are asked for."""
    old = replace(a_stored("a", version=1, chunks=31), vectors=np.ones((31, 8), np.float32))
    far = replace(a_stored("b"), vectors=-np.ones((1, 8), np.float32))
    write(store, target, WritePlan((old, far)))
    write(store, target, WritePlan((a_stored("a", version=2),)))
    query = VectorQuery(np.ones((1, 8), np.float32), 2, None, strong=True, with_fields=with_fields)
    assert [(hit.id, hit.version) for hit in store.search(target, query)[0]] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("taken_out", [0, 1])
def test_what_is_left_of_a_deleted_document_is_not_shown(
    store: VectorStore, target: StoreTarget, taken_out: int
) -> None:
    """All of its rows, or all but the head."""
    document = a_stored("a", version=1, chunks=3)
    write(store, target, WritePlan((document, a_stored("b"))))
    write(store, target, WritePlan(removals=(Removal(A, 2, taken_out),)))
    assert len(list(store.scan(target))) == 4 - taken_out
    assert shown(store, target, document) == {("b", 1, 0)}
    assert [found.id for found in store.fetch(target, [A, B], False)] == ["b"]
    assert store.versions(target, [A], None)[A].deleted


def test_rows_are_counted_whether_they_are_shown_or_not(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", version=1, chunks=4), a_stored("b"))))
    write(store, target, WritePlan((a_stored("a", version=2),)))
    assert store.rows_up_to(target, [A, B, document_key("", "c")]) == {A: 4, B: 1}


def test_replaying_a_plan_changes_nothing(store: VectorStore, target: StoreTarget) -> None:
    plan = WritePlan((a_stored("a", version=1, chunks=2),), (Removal(B, 1, 3),))
    write(store, target, plan)
    before = sorted(store.scan(target))
    write(store, target, plan)
    assert sorted(store.scan(target)) == before


def test_fresh_documents_are_all_found_however_many_there_are(store: VectorStore, target: StoreTarget) -> None:
    """With Milvus' own defaults a growing segment of 4,992 rows or more loses a fifth of the nearest neighbours."""
    vectors = np.random.default_rng(0).normal(size=(6_000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for start in range(0, len(vectors), 1_000):
        part = vectors[start : start + 1_000]
        documents = [replace(a_stored(f"n{start + i}"), vectors=row[None]) for i, row in enumerate(part)]
        write(store, target, WritePlan(tuple(documents)))
    queries = vectors[:20] + 0.05
    found = store.search(target, VectorQuery(queries, 50, None, with_fields=False))
    for query, hits in zip(queries, found, strict=True):
        nearest = {f"n{i}" for i in np.argsort(-(vectors @ query))[:50]}
        assert len(nearest & {hit.id for hit in hits}) >= 49


def test_a_delete_is_gone_from_searches_once_it_is_visible(store: VectorStore, target: StoreTarget) -> None:
    for version in range(1, 12, 2):
        write(store, target, WritePlan((a_stored("a", version=version),)))
        assert len(store.search(target, VectorQuery(np.ones((1, 8), np.float32), 10, None))[0]) == 1
        write(store, target, WritePlan(removals=(Removal(A, version + 1, 1),)))
        assert store.search(target, VectorQuery(np.ones((1, 8), np.float32), 10, None))[0] == []


def test_a_version_written_after_a_delete_is_live_again(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan(removals=(Removal(A, 2, 0),)))
    write(store, target, WritePlan((a_stored("a", version=3),)))
    assert store.versions(target, [A], None) == {A: StoredVersion(3, 1, False)}


def test_a_search_finds_the_nearest_and_returns_what_was_stored(store: VectorStore, target: StoreTarget) -> None:
    documents = tuple(a_stored(f"d{i}", seed=i) for i in range(20))
    write(store, target, WritePlan(documents))
    hits = store.search(target, VectorQuery(documents[7].vectors, 3, None))[0]
    assert (hits[0].id, hits[0].text, hits[0].fields_json) == ("d7", "d7 1 0", documents[7].fields_json)
    assert hits[0].score == pytest.approx(1.0, abs=1e-4)
    assert hits[0].score >= hits[1].score >= hits[2].score


def test_a_hit_on_a_later_chunk_carries_the_documents_fields(store: VectorStore, target: StoreTarget) -> None:
    document = a_stored("a", chunks=4)
    write(store, target, WritePlan((document,)))
    (hit,) = store.search(target, VectorQuery(document.vectors[3:], 1, None))[0]
    assert (hit.chunk, hit.fields_json) == (3, document.fields_json)


def test_l2_scores_are_higher_for_nearer(store: VectorStore) -> None:
    name = f"contract_{uuid.uuid4().hex[:10]}"
    target = StoreTarget(name, "s1", 8, "l2", name)
    store.ensure(target)
    document = a_stored("a")
    write(store, target, WritePlan((document, a_stored("b", seed=5))))
    hits = store.search(target, VectorQuery(document.vectors, 2, None))[0]
    assert [h.id for h in hits] == ["a", "b"]
    assert hits[0].score == pytest.approx(0, abs=1e-4)
    store.drop(target)


def test_tenants_do_not_see_each_other(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", tenant="t1"), a_stored("a", tenant='t2"; drop'))))
    for tenant in ("t1", 't2"; drop'):
        hits = store.search(target, VectorQuery(np.ones((1, 8), np.float32), 10, tenant))[0]
        assert [h.key for h in hits] == [document_key(tenant, "a")]


def test_fetch_returns_whole_documents_with_their_vectors(store: VectorStore, target: StoreTarget) -> None:
    document = a_stored("a", chunks=3, kind="shoe")
    write(store, target, WritePlan((document,)))
    (found,) = store.fetch(target, [A, B], True)
    assert (found.id, found.version, found.chunks, dict(found.attributes)) == (
        "a",
        1,
        document.chunks,
        {"kind": "shoe"},
    )
    np.testing.assert_allclose(found.vectors, document.vectors, atol=1e-6)


def test_another_space_is_refused(store: VectorStore, target: StoreTarget) -> None:
    other = StoreTarget(target.store, "s2", 8, "cosine", target.collection_uid)
    fresh = store if isinstance(store, MemoryStore) else MilvusStore(store._settings)  # type: ignore[attr-defined]
    with pytest.raises(SpaceMismatch, match="never mixed"):
        fresh.ensure(other)
    with pytest.raises(SpaceMismatch):
        store.search(target, VectorQuery(np.ones((1, 9), np.float32), 1, None))


def test_a_fenced_write_writes_nothing(store: VectorStore, target: StoreTarget) -> None:
    def fenced() -> float:
        raise Fenced("lost")

    with pytest.raises(Fenced):
        store.apply(target, WritePlan((a_stored("a"),)), fenced)
    with pytest.raises(Fenced):
        store.apply(target, WritePlan(removals=(Removal(A, 9, 1),)), fenced)
    assert store.versions(target, [A], None) == {}


def test_every_write_of_a_plan_asks_the_guard(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan((a_stored("a", chunks=3),)))
    calls = itertools.count()
    budget = 2

    def guard() -> float:
        if next(calls) >= budget:
            raise Fenced("lost half-way")
        return 10.0

    plan = WritePlan((a_stored("b", version=2),), (Removal(A, 5, 3),))
    with pytest.raises(Fenced):
        store.apply(target, plan, guard)
    assert store.versions(target, [B], None) == {}


def test_tombstones_are_purged_by_age(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, WritePlan(removals=(Removal(A, 2, 0),)))
    store.purge_tombstones(now_us() - 60_000_000)
    assert store.versions(target, [A], None) != {}
    assert store.purge_tombstones(now_us() + 60_000_000) >= 1
    assert store.versions(target, [A], None) == {}


# Random histories: nothing lost, doubled or resurrected, whatever the order of writes.

steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["upsert", "upsert", "remove"]), st.integers(1, 4)),
    min_size=1,
    max_size=25,
)


def test_random_writes_leave_exactly_what_was_written(store: VectorStore) -> None:
    def make() -> StoreTarget:
        """With tombstones of its own: versions of a collection never begin anew."""
        name = f"contract_{uuid.uuid4().hex[:10]}"
        return replace(a_target(store=name), collection_uid=name)

    @given(steps)
    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def check(history: list[tuple[str, str, int]]) -> None:
        target = make()
        store.ensure(target)
        expected: dict[str, tuple[int, int]] = {}
        for version, (document_id, operation, chunks) in enumerate(history, 1):
            key = document_key("", document_id)
            old = expected.get(document_id, (0, 0))[1]
            if operation == "remove":
                store.apply(target, WritePlan(removals=(Removal(key, version, old),)), free)
                expected.pop(document_id, None)
            else:
                document = a_stored(document_id, version=version, chunks=chunks)
                trims = ((key, chunks, old),) if old > chunks else ()
                store.apply(target, WritePlan((document,), (), trims), free)
                expected[document_id] = (version, chunks)
        rows: dict[str, list[int]] = {}
        for _, document_id, version, _ in store.scan(target):
            rows.setdefault(document_id, []).append(version)
        assert {i: (v[0], len(v)) for i, v in rows.items()} == expected
        assert all(len(set(v)) == 1 for v in rows.values())
        hits = store.search(target, VectorQuery(np.ones((1, 8), np.float32), 100, None, strong=True))[0]
        assert sorted((h.id, h.version) for h in hits) == sorted(
            (i, v) for i, (v, n) in expected.items() for _ in range(n)
        )
        store.drop(target)

    check()
