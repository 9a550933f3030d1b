"""Sparse vectors: what they hold, their products, and what is refused of bytes that only look like some."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.core.vectors import MAX_TERM, Sparse, are_well_formed, as_dense, from_bytes, shape_of, to_bytes

ROW = st.dictionaries(st.integers(0, MAX_TERM), st.floats(0, 100, width=32), max_size=8)
ROWS = st.lists(ROW, max_size=6)
SIGNED = st.dictionaries(st.integers(0, 2**32 - 1), st.floats(-100, 100, width=32), max_size=8)


def as_mapping(row: Sparse) -> dict[int, float]:
    return dict(zip(row.terms.tolist(), row.weights.tolist(), strict=True))


@given(ROWS)
def test_rows_come_back_as_they_were(rows: list[dict[int, float]]) -> None:
    vectors = Sparse.of(rows)
    assert len(vectors) == len(rows)
    assert [as_mapping(row) for row in vectors] == rows
    assert vectors.is_well_formed()
    assert are_well_formed(vectors)


@given(st.lists(SIGNED, max_size=6), st.lists(SIGNED, max_size=6))
def test_parts_are_put_together_in_order(first: list[dict[int, float]], second: list[dict[int, float]]) -> None:
    together = Sparse.concatenated([Sparse.of(first), Sparse.of(second)])
    assert [as_mapping(row) for row in together] == first + second


@given(st.lists(SIGNED, max_size=6), SIGNED)
def test_products_are_those_of_the_terms_in_common(rows: list[dict[int, float]], query: dict[int, float]) -> None:
    expected = [sum(weight * query.get(term, 0.0) for term, weight in row.items()) for row in rows]
    found = Sparse.of(rows).dot(Sparse.of([query]))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize(
    ("starts", "terms", "weights"),
    [
        ([0, 3], [1, 2], [1.0, 1.0]),
        ([1, 2], [1, 2], [1.0, 1.0]),
        ([0, 2, 1, 2], [1, 2], [1.0, 1.0]),
        ([0, 2], [2, 1], [1.0, 1.0]),
        ([0, 2], [1, 1], [1.0, 1.0]),
        ([0, 2], [1, 2], [1.0, np.inf]),
        ([0, 2], [1, 2], [1.0, -1.0]),
        ([0, 2], [1, MAX_TERM + 1], [1.0, 1.0]),
        ([0, 2], [1, 2], [1.0]),
        ([0, 1, 3], [5, 3, 3], [1.0, 1.0, 1.0]),
        ([], [], []),
    ],
)
def test_what_is_no_rows_of_terms_is_told(starts: list[int], terms: list[int], weights: list[float]) -> None:
    vectors = Sparse(np.array(starts, np.int64), np.array(terms, np.uint32), np.array(weights, np.float32))
    assert not vectors.is_well_formed()


def test_terms_may_begin_anew_in_every_row_and_rows_may_be_empty() -> None:
    rows = [{}, {5: 1.0}, {}, {3: 1.0, 9: 2.0}, {}]
    assert Sparse.of(rows).is_well_formed()
    assert Sparse.of([]).is_well_formed()
    assert len(Sparse.of([])) == 0


def test_kinds_are_told_apart() -> None:
    dense = np.ones((2, 3), dtype=np.float32)
    assert shape_of(dense) == ("dense", 3)
    assert shape_of(Sparse.of([{1: 1.0}])) == ("sparse", 1)
    assert as_dense(dense) is dense
    with pytest.raises(TypeError, match="dense"):
        as_dense(Sparse.of([{1: 1.0}]))


@given(st.lists(st.lists(st.sampled_from([0.0, 1.5, -2.0]), min_size=4, max_size=4), max_size=5))
def test_what_is_not_zero_of_a_matrix_is_kept(rows: list[list[float]]) -> None:
    found = Sparse.of_dense(np.array(rows, dtype=np.float32).reshape(len(rows), 4))
    assert [as_mapping(row) for row in found] == [{i: w for i, w in enumerate(row) if w} for row in rows]
    assert found.is_well_formed() is not any(w < 0 for row in rows for w in row)


@given(ROW)
def test_a_row_comes_back_from_bytes(row: dict[int, float]) -> None:
    found = from_bytes(to_bytes(Sparse.of([row])), "sparse", 1)
    assert isinstance(found, Sparse)
    assert as_mapping(found) == row


def test_a_dense_vector_comes_back_from_bytes_of_its_length() -> None:
    vector = np.array([1.0, -2.5], dtype=np.float32)
    assert np.array_equal(from_bytes(to_bytes(vector), "dense", 2), vector)
    assert from_bytes(to_bytes(vector), "dense", 3) is None


@pytest.mark.parametrize(
    "content", [b"123", bytes(4) * 2 + b"\x00\x00\xc0\x7f" * 2, (b"\x02" + bytes(3)) * 2 + bytes(8)]
)
def test_bytes_that_are_no_sparse_row_are_none(content: bytes) -> None:
    assert from_bytes(content, "sparse", 1) is None
