"""Bytes written by v1 must be read for ever: golden records, never regenerated, only added to."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.core import codec, control_codec
from driftline.core.errors import InvalidRecord
from driftline.core.records import (
    Carry,
    ChangeEvent,
    CompensationPart,
    DeadLetter,
    Generation,
    Leg,
    LogIncarnation,
    MediaReference,
    NamedVectors,
    Operation,
    Outcome,
    Position,
    Receipt,
    SearchedQuery,
    Space,
    UpgradeRecord,
    VectorRecord,
)
from driftline.core.vectors import Sparse, Vectors

GOLDEN = Path(__file__).parent / "golden"
CHANGE = ChangeEvent(
    "things", "u1", "tenant", "id/1", Operation.UPSERT, 7, b'{"title":"x"}', 1_700_000_000_000_000, "http",
    (MediaReference("image", "s3://bucket/x.png", "image/png", "ab"),),
)  # fmt: skip
VECTOR = VectorRecord(
    Position(3, 9), "things", "u1", "", "a", Operation.UPSERT, 5, b"{}", 10, 20, 30, "grpc", ("one", "two"),
    (NamedVectors("default", "s" * 32, 1, np.array([[0.5, -1], [2, 3]], dtype=np.float32)),),
)  # fmt: skip
RECEIPT = Receipt(
    Position(1, 2), "things", "", "a", Operation.DELETE, 9, Outcome.SUPERSEDED, "", "", 11, 0, 1, 2, 3, 4, 5
)
LETTER = DeadLetter("changes", 1, 2, b"k", b"\xff", (("h", b"v"),), "undecodable", "why", "encode", 99)
SPACE = Space("f" * 32, "minilm", "1", 384, True, "mean", "query: ", "", 256, 32)
LOG = LogIncarnation("changes", "topic-id", 1_700_000_000_000_000)

BACKFILL_CHANGE = replace(CHANGE, origin=Position(4, 5), backfill_generation=2)
BACKFILL_VECTOR = replace(
    VECTOR, vectors=(*VECTOR.vectors, NamedVectors("default", "t" * 32, 2, np.ones((1, 3), np.float32), ("one two",))),
    backfill_generation=2,
)  # fmt: skip
PART = CompensationPart("c" * 32, 1, 2, b"\x00\x01")
UPGRADE = UpgradeRecord("things", "u1", "{}")
QUERY = SearchedQuery("things", "u1", "", "red shoes", 5, ("a", "b"))
GENERATIONS = (Generation(1, "default", "s" * 32, "x_1"), Generation(2, "default", "t" * 32, "x_2"))
UPGRADING = control_codec.CollectionParts(
    "things", "u1", "{}", GENERATIONS, 5, False, (Leg(2), Leg(1, Carry.ENSEMBLE, "c" * 32)), 4,
    (Generation(3, "default", "u" * 32, "x_3"),),
)  # fmt: skip

SPARSE_SPACE = Space("e" * 32, "lexical", "1", 1, False, "", "", "", 1, 1, "sparse", '{"language":"english"}')
SPARSE_VECTOR = replace(
    VECTOR, vectors=(NamedVectors("words", "e" * 32, 3, Sparse.of([{7: 0.5, 4_000_000_000: 2.0}, {}])),
                     NamedVectors("titles", "t" * 32, 4, np.empty((0, 0), np.float32))),
)  # fmt: skip

RECORDS = {
    "change": codec.encode_change(CHANGE),
    "vector": codec.encode_vector(VECTOR),
    "receipts": codec.encode_receipts([RECEIPT]),
    "dead_letter": codec.encode_dead_letter(LETTER),
    "space": control_codec.encode_space(SPACE),
    "log": control_codec.encode_log(LOG),
    "collection": control_codec.encode_collection(control_codec.CollectionParts("things", "u1", "{}", (), 5, True)),
    "change_backfill": codec.encode_change(BACKFILL_CHANGE),
    "vector_backfill": codec.encode_vector(BACKFILL_VECTOR),
    "compensation": control_codec.encode_compensation(PART),
    "upgrade": control_codec.encode_upgrade(UPGRADE),
    "query": codec.encode_query(QUERY),
    "collection_upgrading": control_codec.encode_collection(UPGRADING),
    "space_sparse": control_codec.encode_space(SPARSE_SPACE),
    "vector_sparse": codec.encode_vector(SPARSE_VECTOR),
}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_todays_bytes_are_the_golden_ones(name: str) -> None:
    assert RECORDS[name].hex() == (GOLDEN / f"{name}.hex").read_text().strip()


def test_golden_bytes_are_read_as_what_was_written() -> None:
    def golden(name: str) -> bytes:
        return bytes.fromhex((GOLDEN / f"{name}.hex").read_text().strip())

    assert codec.decode_change(golden("change")) == CHANGE
    assert codec.decode_receipts(golden("receipts")) == [RECEIPT]
    assert codec.decode_dead_letter(golden("dead_letter")) == LETTER
    assert control_codec.decode_control(golden("space")) == SPACE
    assert control_codec.decode_control(golden("log")) == LOG
    assert codec.decode_change(golden("change_backfill")) == BACKFILL_CHANGE
    assert control_codec.decode_control(golden("compensation")) == PART
    assert control_codec.decode_control(golden("upgrade")) == UPGRADE
    assert control_codec.decode_control(golden("collection_upgrading")) == UPGRADING
    assert codec.decode_query(golden("query")) == QUERY
    assert control_codec.decode_control(golden("space_sparse")) == SPARSE_SPACE
    words, titles = codec.decode_vector(golden("vector_sparse")).vectors
    assert isinstance(words.values, Sparse)
    assert words.values.terms.tolist() == [7, 4_000_000_000]
    assert words.values.weights.tolist() == [0.5, 2.0]
    assert (words.values.starts.tolist(), words.generation) == ([0, 2, 2], 3)
    assert (titles.name, titles.generation, len(titles.values)) == ("titles", 4, 0)
    backfill = codec.decode_vector(golden("vector_backfill"))
    assert (backfill.backfill_generation, backfill.vectors[1].chunks) == (2, ("one two",))
    vector = codec.decode_vector(golden("vector"))
    np.testing.assert_array_equal(vector.vectors[0].values, VECTOR.vectors[0].values)
    assert (vector.position, vector.chunks, vector.encoded_at_us) == (VECTOR.position, VECTOR.chunks, 30)


def test_fields_of_a_later_minor_version_are_left_alone() -> None:
    unknown = bytes([0xFA, 0x3F, 0x03]) + b"new"  # field 1023, three bytes
    assert codec.decode_change(RECORDS["change"] + unknown) == CHANGE


@pytest.mark.parametrize(
    "decode",
    [
        codec.decode_change,
        codec.decode_vector,
        codec.decode_receipts,
        codec.decode_dead_letter,
        control_codec.decode_control,
        codec.decode_query,
    ],
)
@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_record_or_an_invalid_record(decode: object, value: bytes) -> None:
    with contextlib.suppress(InvalidRecord):
        decode(value)  # type: ignore[operator]


@pytest.mark.parametrize(
    "values, reason",
    [
        (np.array([[np.nan, 1], [2, 3]], dtype=np.float32), "non_finite_vector"),
        (np.array([[np.inf, 1], [2, 3]], dtype=np.float32), "non_finite_vector"),
        (np.array([[1, 2]], dtype=np.float32), "wrong_dimension"),
        (Sparse.of([{1: np.nan}, {2: 1.0}]), "non_finite_vector"),
        (Sparse(np.array([0, 2, 2]), np.array([2, 1], np.uint32), np.ones(2, np.float32)), "non_finite_vector"),
        (Sparse.of([{1: 1.0}]), "wrong_dimension"),
        (Sparse(np.array([0, 2, 2]), np.array([1], np.uint32), np.ones(2, np.float32)), "wrong_dimension"),
    ],
)
def test_vectors_that_are_none_are_refused(values: Vectors, reason: str) -> None:
    broken = replace(VECTOR, vectors=(replace(VECTOR.vectors[0], values=values),))
    with pytest.raises(InvalidRecord) as caught:
        codec.decode_vector(codec.encode_vector(broken))
    assert caught.value.reason == reason
