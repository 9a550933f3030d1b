"""Sparse vectors in both stores: what is found, in the order of exact scores."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

from driftline.adapters.store_rows import SPARSE_TERMS
from driftline.core.errors import InvalidRecord, SpaceMismatch
from driftline.core.filters import In
from driftline.core.ports import VectorStore
from driftline.core.records import document_key
from driftline.core.settings import MilvusSettings
from driftline.core.store import Hit, Removal, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from driftline.core.vectors import MAX_TERM, Sparse
from tests.contract.test_store import complete_half_made

Row = Mapping[int, float]


@pytest.fixture(scope="module")
def target(store: VectorStore) -> Iterator[StoreTarget]:
    name = f"contract_{uuid.uuid4().hex[:10]}"
    made = StoreTarget(name, "s1", 1, "cosine", name, "sparse")
    store.ensure(made)
    yield made
    store.drop(made)


def a_document(
    id: str, *rows: Row, version: int = 1, tenant: str = "", kind: str = "x", fields: bytes = b'{"a":1}'
) -> StoredDocument:
    texts = tuple(f"{id} chunk {i}" for i in range(len(rows)))
    return StoredDocument(
        document_key(tenant, id), tenant, id, version, fields, {"kind": kind}, texts, Sparse.of(rows)
    )  # fmt: skip


def write(store: VectorStore, target: StoreTarget, *documents: StoredDocument, **more: object) -> None:
    plan = WritePlan(documents, **more)  # type: ignore[arg-type]
    store.wait_visible(target, store.apply(target, plan, lambda: 10.0))


def search(store: VectorStore, target: StoreTarget, row: Row, limit: int = 10, **more: object) -> list[Hit]:
    query = VectorQuery(Sparse.of([row]), limit, None, strong=True, **more)  # type: ignore[arg-type]
    return store.search(target, query)[0]


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def test_the_best_come_first_with_exact_scores(store: VectorStore, target: StoreTarget) -> None:
    rng = np.random.default_rng(7)
    rows = [
        {int(t): float(w) for t, w in zip(rng.integers(0, MAX_TERM, 20), rng.random(20) + 0.1, strict=True)}
        for _ in range(300)
    ]
    shared = [4_000_000_000, 5, 77]
    for i, row in enumerate(rows):
        row |= {term: float(rng.random() + 0.1) for term in shared[: i % 4]}
    write(store, target, *(a_document(f"many{i}", row) for i, row in enumerate(rows)))
    query = {4_000_000_000: 2.0, 5: 1.0, 77: 3.0, 99: 1.0}
    exact = {f"many{i}": sum(row.get(t, 0) * w for t, w in query.items()) for i, row in enumerate(rows)}
    expected = sorted((i for i in exact if exact[i] > 0), key=lambda i: -exact[i])[:50]
    hits = search(store, target, query, 50)
    assert ids(hits) == expected
    assert [hit.score for hit in hits] == pytest.approx([exact[i] for i in expected], rel=1e-5)
    assert hits[0].text == f"{hits[0].id} chunk 0"
    assert hits[0].fields_json == b'{"a":1}'


def test_what_shares_no_term_is_not_found(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, a_document("lonely", {1_000: 1.0}))
    assert search(store, target, {1_001: 1.0}) == []
    assert ids(search(store, target, {1_000: 1.0, 1_001: 1.0})) == ["lonely"]
    assert search(store, target, {}) == []


def test_rows_without_terms_are_kept_and_never_found(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, a_document("blank", {}, {2_000: 1.0}))
    assert [(hit.id, hit.chunk) for hit in search(store, target, {2_000: 1.0})] == [("blank", 1)]
    (found,) = store.fetch(target, [document_key("", "blank")], True)
    assert isinstance(found.vectors, Sparse)
    assert np.diff(found.vectors.starts).tolist() == [0, 1]


def test_what_is_fetched_is_what_was_written(store: VectorStore, target: StoreTarget) -> None:
    rows = ({3_000: 0.25, MAX_TERM: 1.5}, {0: 2.0})
    write(store, target, a_document("kept", *rows))
    (found,) = store.fetch(target, [document_key("", "kept")], True)
    assert isinstance(found.vectors, Sparse)
    assert [dict(zip(r.terms.tolist(), r.weights.tolist(), strict=True)) for r in found.vectors] == list(rows)
    assert found.chunks == ("kept chunk 0", "kept chunk 1")


def test_updates_and_deletes_are_those_of_any_store(store: VectorStore, target: StoreTarget) -> None:
    key = document_key("", "moving")
    write(store, target, a_document("moving", {4_000: 1.0}, {4_001: 1.0}))
    write(store, target, a_document("moving", {4_002: 1.0}, version=2), trims=((key, 1, 2),))
    assert search(store, target, {4_000: 1.0, 4_001: 1.0}) == []
    assert [(h.id, h.version) for h in search(store, target, {4_002: 1.0})] == [("moving", 2)]
    write(store, target, removals=(Removal(key, 3, 1),))
    assert search(store, target, {4_002: 1.0}) == []
    assert store.versions(target, [key], None) == {key: StoredVersion(3, 0, True)}


def test_tenants_filters_and_the_document_that_is_left_out(store: VectorStore, target: StoreTarget) -> None:
    write(
        store,
        target,
        a_document("one", {5_000: 1.0}, tenant="t1", kind="red"),
        a_document("two", {5_000: 2.0}, tenant="t2", kind="red"),
        a_document("three", {5_000: 3.0}, tenant="t1", kind="blue"),
    )
    row = {5_000: 1.0}
    assert ids(search(store, target, row)) == ["three", "two", "one"]
    assert ids(search(store, target, row, filter=In("kind", ("red",)))) == ["two", "one"]
    only = VectorQuery(Sparse.of([row]), 10, "t1", strong=True)
    assert ids(store.search(target, only)[0]) == ["three", "one"]
    assert ids(search(store, target, row, exclude_keys=(document_key("t1", "three"),))) == ["two", "one"]


def test_several_queries_are_answered_each(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, a_document("left", {6_000: 1.0}), a_document("right", {6_001: 1.0}))
    rows = Sparse.of([{6_000: 1.0}, {}, {6_001: 1.0}])
    found = store.search(target, VectorQuery(rows, 5, None, strong=True))
    assert [ids(hits) for hits in found] == [["left"], [], ["right"]]


def test_vectors_of_another_kind_are_refused(store: VectorStore, target: StoreTarget) -> None:
    with pytest.raises(SpaceMismatch):
        store.search(target, VectorQuery(np.ones((1, 8), dtype=np.float32), 5, None))
    name = f"contract_{uuid.uuid4().hex[:10]}"
    dense = StoreTarget(name, "s1", 8, "cosine", name)
    store.ensure(dense)
    with pytest.raises(SpaceMismatch):
        store.search(dense, VectorQuery(Sparse.of([{1: 1.0}]), 5, None))
    with pytest.raises(InvalidRecord, match="kind"):
        store.apply(dense, WritePlan((a_document("x", {1: 1.0}),)), lambda: 10.0)
    store.drop(dense)


@pytest.mark.parametrize("row", [dict.fromkeys(range(SPARSE_TERMS + 1), 1.0), {1: float("nan")}, {1: float("inf")}])
def test_rows_that_no_store_can_take_are_refused(store: VectorStore, target: StoreTarget, row: Row) -> None:
    with pytest.raises(InvalidRecord) as caught:
        store.apply(target, WritePlan((a_document("x", row),)), lambda: 10.0)
    assert caught.value.reason == "store_refused"


def test_the_longest_row_is_taken(store: VectorStore, target: StoreTarget) -> None:
    write(store, target, a_document("long", {7_000 + i: 1.0 for i in range(SPARSE_TERMS)}))
    assert ids(search(store, target, {7_000 + SPARSE_TERMS - 1: 1.0})) == ["long"]


def test_a_collection_of_sparse_vectors_that_was_left_half_made_is_completed(
    milvus_lite_settings: MilvusSettings,
) -> None:
    """Milvus Lite has every collection loaded: nothing is left between the last two steps."""
    complete_half_made(milvus_lite_settings, "create_index", "sparse", a_document("half", {7: 1.0}))
