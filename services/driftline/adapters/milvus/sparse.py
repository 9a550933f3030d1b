"""Sparse vectors as Milvus holds them: its own from 2.4 on, before that a sketch for candidates and exact scores here.

Which of the two a server gets is found by trying (`has_sparse_vectors`); which of the two a store has, by its schema.
A sketch is the row hashed into a dense vector, each term with a sign that its hash gives: the inner product of two
sketches is that of the rows, and noise of mean 0 that falls with the width (Weinberger et al., Feature Hashing for
Large Scale Multitask Learning, ICML 2009). The weights themselves are stored beside it, as text.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from driftline.adapters.milvus.client import DataType, MilvusException
from driftline.adapters.milvus.errors import Meaning, meaning_of
from driftline.core.vectors import MAX_TERM, Matrix, Sparse

# Floats of a sketch: docs/decisions/0019-sparse-vectors.md has what other widths find.
WIDTH = 2_048
# Candidates of a search, at least, and for each hit that is wanted.
_CANDIDATES, _CANDIDATES_PER_HIT = 1_000, 10


def sketch(rows: Sparse) -> Matrix:
    """float32 (rows, WIDTH)."""
    found = np.zeros((len(rows), WIDTH), dtype=np.float32)
    mixed = _mixed(rows.terms)
    place = (mixed & np.uint32(WIDTH - 1)).astype(np.int64)
    sign = np.where(mixed >> np.uint32(31), np.float32(1), np.float32(-1))
    row = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    np.add.at(found, (row, place), sign * rows.weights)
    return found


def _mixed(terms: np.ndarray) -> np.ndarray:
    """32 bits of each term in which every bit depends on all of the term's (the finaliser of MurmurHash3)."""
    h = terms.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def candidates(limit: int, most: int) -> int:
    """How many rows are scored exactly for the best `limit`."""
    return min(most, max(_CANDIDATES, _CANDIDATES_PER_HIT * limit))


def to_text(row: Sparse) -> str:
    """The terms of one row, then their weights, little endian, in base64."""
    content = row.terms.astype("<u4").tobytes() + row.weights.astype("<f4").tobytes()
    return base64.b64encode(content).decode()


def of_texts(texts: Sequence[str]) -> Sparse:
    """Rows as `to_text` wrote them."""
    contents = [base64.b64decode(text) for text in texts]
    counts = np.array([len(content) // 8 for content in contents], dtype=np.int64)
    terms = [np.frombuffer(c, "<u4", n) for c, n in zip(contents, counts.tolist(), strict=True)]
    weights = [np.frombuffer(c, "<f4", n, 4 * n) for c, n in zip(contents, counts.tolist(), strict=True)]
    return Sparse(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        np.concatenate([np.empty(0, np.uint32), *terms]),
        np.concatenate([np.empty(0, np.float32), *weights]),
    )


# Milvus takes no sparse vector without a term. A row that has none is given this one, which no query has; 2^32 - 1 is
# not allowed.
_NOTHING = MAX_TERM + 1


def to_terms(row: Sparse) -> dict[int, float]:
    """One row as pymilvus takes it."""
    return dict(zip(row.terms.tolist(), row.weights.tolist(), strict=True)) or {_NOTHING: 1.0}


def of_terms(rows: Sequence[Mapping[int, float]]) -> Sparse:
    """Rows as `to_terms` wrote them."""
    return Sparse.of([{term: weight for term, weight in row.items() if term != _NOTHING} for row in rows])


def add_sparse_index(index: Any) -> None:
    index.add_index("vector", index_type="SPARSE_INVERTED_INDEX", metric_type="IP", params={})


def is_native(description: Mapping[str, Any]) -> bool:
    """Whether a collection, as Milvus describes it, has sparse vectors of Milvus' own."""
    return any(f["name"] == "vector" and f["type"] == DataType.SPARSE_FLOAT_VECTOR for f in description["fields"])


def has_sparse_vectors(client: Any, prefix: str, limit: Mapping[str, float]) -> bool:
    """Whether this Milvus finds by sparse vectors, seen by what it finds: 2.3 takes several requests that it does not
    understand, and answers them as others. Raises what pymilvus does where it could not be seen."""
    name = f"{prefix}probe_{uuid.uuid4().hex[:12]}"
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, max_length=8, is_primary=True)
    schema.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
    index = client.prepare_index_params()
    add_sparse_index(index)
    try:
        client.create_collection(name, schema=schema, **limit)
        client.create_index(name, index, **limit)
        client.load_collection(name, **limit)
        rows = [{"pk": "low", "vector": {7: 1.0, MAX_TERM: 0.5}}, {"pk": "high", "vector": {7: 3.0}}]
        client.upsert(name, rows, **limit)
        (found,) = client.search(
            name, data=[{7: 1.0, MAX_TERM: 2.0}], anns_field="vector", limit=3, consistency_level="Strong", **limit
        )
        return [(hit["pk"], round(hit["distance"], 3)) for hit in found] == [("high", 3.0), ("low", 2.0)]
    except MilvusException as error:
        # 2.3.5 makes the collection and refuses its index.
        if meaning_of(error)[0] in (Meaning.REFUSED, Meaning.UNTOLD):
            return False
        raise
    finally:
        if client.has_collection(name, **limit):
            client.drop_collection(name, **limit)
