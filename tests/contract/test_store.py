"""One suite for both vector stores: memory and Milvus."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driftline.adapters.memory import MemoryStore
from driftline.adapters.milvus import MilvusStore
from driftline.core.errors import Fenced, SpaceMismatch
from driftline.core.filters import Filter, In, matches
from driftline.core.ports import VectorStore
from driftline.core.records import document_key, now_us
from driftline.core.settings import MilvusSettings
from driftline.core.store import Removal, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from driftline.core.vectors import Sparse
from driftline.retrieval.filters import parse
from tests.build import a_definition, a_stored, a_target

free = lambda: 10.0  # noqa: E731
A, B = document_key("", "a"), document_key("", "b")


@pytest.fixture(scope="module", params=["memory", "milvus_settings", "milvus_lite_settings"])
def store(request: pytest.FixtureRequest) -> VectorStore:
    if request.param == "memory":
        return MemoryStore()
    settings_: MilvusSettings = request.getfixturevalue(request.param)
    return MilvusStore(settings_)


@pytest.fixture
def target(store: VectorStore) -> Iterator[StoreTarget]:
    name = f"contract_{uuid.uuid4().hex[:10]}"
    made = StoreTarget(name, "s1", 8, "cosine", name)
    store.ensure(made)
    yield made
    store.drop(made)


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


@pytest.mark.parametrize(
    ("server", "kind", "step"),
    [
        ("milvus_settings", "dense", "create_index"),
        ("milvus_settings", "dense", "load_collection"),
        # Milvus Lite has every collection loaded.
        ("milvus_lite_settings", "sparse", "create_index"),
    ],
)
def test_a_milvus_collection_that_was_left_half_made_is_completed(
    request: pytest.FixtureRequest, server: str, kind: str, step: str
) -> None:
    """What a kill between the three steps of a creation leaves could not be searched, and stayed so for ever."""
    name = f"contract_{uuid.uuid4().hex[:10]}"
    made = StoreTarget(name, "s1", 8 if kind == "dense" else 1, "cosine", name, kind)
    document, settings = a_stored("a"), request.getfixturevalue(server)
    if kind == "sparse":
        document = replace(document, vectors=Sparse.of([{7: 1.0}]))
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


# Filters: Milvus must mean what `matches` means, for any filter over any attributes.

nasty = st.sampled_from(['"', "\\", "'", "\n", "%", "' or 1==1 or '", '" or true or "', "日本", "a", "b", "", "\t\\n"])
strings = st.one_of(nasty, st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=6))
attributes = st.fixed_dictionaries(
    {},
    optional={
        "kind": strings,
        "year": st.integers(-5, 5),
        "price": st.floats(-2, 2, width=32).map(lambda f: round(f, 3)),
        "sold": st.booleans(),
        "tags": st.lists(strings, max_size=3),
        "codes": st.lists(st.integers(-3, 3), max_size=3),
    },
)
leaves = st.one_of(
    st.builds(lambda v: {"field": "kind", "eq": v}, strings),
    st.builds(lambda v: {"field": "kind", "in": v}, st.lists(strings, min_size=1, max_size=3)),
    st.builds(lambda v: {"field": "year", "eq": v}, st.integers(-5, 5)),
    st.builds(lambda a, b: {"field": "year", "gte": a, "lt": b}, st.integers(-5, 5), st.integers(-5, 5)),
    st.builds(lambda v: {"field": "price", "lte": v}, st.sampled_from([-1.5, 0, 0.5, 1])),
    st.builds(lambda v: {"field": "sold", "eq": v}, st.booleans()),
    st.builds(lambda v: {"field": "tags", "contains": v}, strings),
    st.builds(lambda v: {"field": "codes", "contains": v}, st.integers(-3, 3)),
    st.builds(lambda f, v: {"field": f, "exists": v}, st.sampled_from(["kind", "year", "tags"]), st.booleans()),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda v: {"and": v}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda v: {"or": v}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda v: {"not": v}, inner),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("value", ["\x01", "a\x7fb", "\x1f\x0b", "\x85"])
def test_control_characters_are_found_by_filters(milvus_settings: MilvusSettings, value: str) -> None:
    """Which Milvus Lite has no way to write."""
    store, name = MilvusStore(milvus_settings), f"contract_{uuid.uuid4().hex[:10]}"
    target = StoreTarget(name, "s1", 8, "cosine", name)
    store.ensure(target)
    write(store, target, WritePlan((a_stored("a", kind=value), a_stored("b", kind="b"))))
    query = VectorQuery(np.ones((1, 8), np.float32), 5, None, In("kind", (value,)))
    assert [hit.id for hit in store.search(target, query)[0]] == ["a"]
    store.drop(target)


def test_any_filter_means_in_the_store_what_it_means_in_memory(store: VectorStore, target: StoreTarget) -> None:
    versions = itertools.count(1)

    @given(st.lists(attributes, min_size=4, max_size=8), st.lists(trees, min_size=6, max_size=12))
    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    def check(rows: list[dict[str, Any]], raws: list[dict[str, Any]]) -> None:
        version = next(versions)
        documents = tuple(a_stored(f"d{i}", version=version, **row) for i, row in enumerate(rows))
        write(store, target, WritePlan(documents))
        extra = tuple(Removal(document_key("", f"d{i}"), version, 1) for i in range(len(rows), 8))
        write(store, target, WritePlan(removals=extra))
        for raw in raws:
            filter_ = parse(a_definition(), raw)
            assert filter_ is not None
            assert found(filter_) == {f"d{i}" for i, row in enumerate(rows) if matches(filter_, row)}, raw

    def found(filter_: Filter) -> set[str]:
        query = VectorQuery(np.ones((1, 8), np.float32), 100, None, filter_)
        return {h.id for h in store.search(target, query)[0]}

    check()


# Filters at the ends of what they may be: what the parser takes, the store must answer.

LARGEST = 2**63 - 1
ENDS: tuple[dict[str, Any], ...] = (
    {"year": LARGEST, "price": 18446744073709551615.0, "codes": [LARGEST, 1]},
    {"year": -LARGEST, "price": 1.7976931348623157e308, "codes": [-LARGEST]},
    {"year": 2**53 + 1, "price": 5e-324, "kind": "x" * 4_096},
    {"year": 0, "price": -0.0, "kind": "k7", "seen": 253402387139999999},
)


def deep(levels: int, inner: dict[str, Any]) -> dict[str, Any]:
    for level in range(levels - 1):
        inner = {"not": inner} if level % 2 else {"and": [inner, {"field": "kind", "exists": level % 3 == 0}]}
    return inner


@pytest.mark.parametrize(
    "raw",
    [
        {"field": "year", "eq": LARGEST},
        {"field": "year", "eq": -LARGEST},
        {"field": "year", "eq": 2**53 + 1},
        {"field": "year", "gte": -LARGEST, "lt": LARGEST},
        {"field": "price", "eq": 18446744073709551615},
        {"field": "price", "gt": 1e22},
        {"field": "price", "lte": 5e-324},
        {"field": "price", "eq": 0},
        {"field": "price", "gte": -1.7976931348623157e308},
        {"field": "codes", "contains": LARGEST},
        {"field": "codes", "contains": -LARGEST},
        {"field": "seen", "gte": "9999-12-31T23:59:59.999999-23:59"},
        {"field": "kind", "eq": "x" * 4_096},
        {"field": "kind", "in": [f"k{i}" for i in range(1_024)]},
        {"or": [{"field": "year", "in": list(range(i, i + 1_024))} for i in range(4)]},
        {"or": [{"field": "kind", "in": ["x" * 4_095 + c for c in "abcdefghijklmnopqrstuvwxyz"]}] * 2},
        {"or": [{"field": "year", "gt": i} for i in range(511)]},
        {"and": [{"field": "year", "gte": -i} for i in range(511)]},
        deep(16, {"field": "year", "gte": 0}),
        deep(15, {"or": [{"field": "year", "eq": i} for i in range(480)]}),
    ],
    ids=lambda raw: str(raw)[:50],
)
def test_a_filter_at_its_limits_is_answered(store: VectorStore, at_the_ends: StoreTarget, raw: dict[str, Any]) -> None:
    filter_ = parse(a_definition(), raw)
    assert filter_ is not None
    hits = store.search(at_the_ends, VectorQuery(np.ones((1, 8), np.float32), 100, None, filter_))[0]
    assert {h.id for h in hits} == {f"d{i}" for i, row in enumerate(ENDS) if matches(filter_, row)}


@pytest.fixture(scope="module")
def at_the_ends(store: VectorStore) -> Iterator[StoreTarget]:
    made = a_target(store=f"contract_{uuid.uuid4().hex[:10]}")
    store.ensure(made)
    write(store, made, WritePlan(tuple(a_stored(f"d{i}", **row) for i, row in enumerate(ENDS))))
    yield made
    store.drop(made)


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
