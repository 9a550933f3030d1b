"""What a row of a vector store may hold. Stores check it before they write, so that a refusal names its document."""

from __future__ import annotations

import numpy as np
import orjson

from driftline.core.errors import InvalidRecord, InvalidRequest, SpaceMismatch
from driftline.core.store import Removal, StoredDocument, StoreTarget, VectorQuery, WritePlan
from driftline.core.vectors import Sparse, are_well_formed, shape_of

# Bytes of UTF-8, as Milvus counts them; 65,535 is the most of any string there.
TENANT_BYTES = 128
ID_BYTES = 512
TEXT_BYTES = 65_535
FIELDS_BYTES = 65_535
# Milvus' limit of a JSON value.
ATTRIBUTES_BYTES = 65_536
# Of a row of sparse vectors: 8 bytes each, as base64 in a string.
SPARSE_TERMS = 6_000
# Of one search: results, and vectors.
MAX_LIMIT = 16_384
MAX_QUERIES = 16_384


def check_plan(target: StoreTarget, plan: WritePlan) -> None:
    """Raises InvalidRecord("store_refused") for the first document that no store could take."""
    for document in plan.upserts:
        _check_document(target, document)
    for removal in plan.removals:
        _check_version(f"the removal of {removal.key!r}", removal)


def _check_document(target: StoreTarget, document: StoredDocument) -> None:
    name = f"document {document.id!r}"
    _check_version(name, document)
    _check_bytes(f"{name}: its tenant", document.tenant, TENANT_BYTES)
    _check_bytes(f"{name}: its id", document.id, ID_BYTES)
    for number, text in enumerate(document.chunks):
        _check_bytes(f"{name}: the text of chunk {number}", text, TEXT_BYTES)
    if len(document.fields_json) > FIELDS_BYTES:
        raise _refused(f"{name}: its fields: expected at most {FIELDS_BYTES} bytes, found {len(document.fields_json)}")
    try:
        size = len(orjson.dumps(dict(document.attributes)))
    except TypeError as error:
        raise _refused(f"{name}: its attributes: expected JSON: {error}") from error
    if size > ATTRIBUTES_BYTES:
        raise _refused(f"{name}: its attributes: expected at most {ATTRIBUTES_BYTES} bytes of JSON, found {size}")
    expected = (len(document.chunks), target.kind, target.dimension)
    if (shape := (len(document.vectors), *shape_of(document.vectors))) != expected:
        raise _refused(f"{name}: its vectors: expected count, kind and dimension {expected}, found {shape}")
    if (
        isinstance(document.vectors, Sparse)
        and (most := int(np.diff(document.vectors.starts).max(initial=0))) > SPARSE_TERMS
    ):
        raise _refused(f"{name}: its vectors: expected at most {SPARSE_TERMS} terms in a row, found {most}")
    if not are_well_formed(document.vectors):
        detail = "finite numbers, found NaN or infinity"
        if isinstance(document.vectors, Sparse):
            detail = "terms up to 2^32 - 3 that ascend, and finite weights of at least 0"
        raise _refused(f"{name}: its vectors: expected {detail}")


def _check_version(name: str, versioned: StoredDocument | Removal) -> None:
    if not 0 <= versioned.version < 2**63:
        raise _refused(f"{name}: its version: expected 0 to 2^63 - 1, found {versioned.version}")


def _check_bytes(what: str, text: str, most: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _refused(f"{what}: expected valid Unicode; it holds a lone surrogate") from error
    if size > most:
        raise _refused(f"{what}: expected at most {most} bytes of UTF-8, found {size}")


def _refused(detail: str) -> InvalidRecord:
    return InvalidRecord("store_refused", detail, suspect=True)


def check_query(query: VectorQuery) -> None:
    """Raises InvalidRequest for a search that no store could answer."""
    if not are_well_formed(query.vectors):
        raise InvalidRequest("invalid_vector", "expected finite numbers, found NaN or infinity", "vector")
    _check_count("limit", query.limit, MAX_LIMIT)
    _check_count("vectors", len(query.vectors), MAX_QUERIES)


def check_shape(target: StoreTarget, query: VectorQuery) -> None:
    """Raises SpaceMismatch for vectors of another kind or dimension than the store holds."""
    found, expected = shape_of(query.vectors), (target.kind, target.dimension)
    if found != expected:
        raise SpaceMismatch(
            target.store, f"{expected[0]}, dimension {expected[1]}", f"{found[0]}, dimension {found[1]}"
        )


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidRequest(f"invalid_{field}", f"expected 1 to {most}, found {count}", field)


def counts(version: int, chunk: int, head: tuple[int, int] | None, dead: int | None) -> bool:
    """Whether a row of that version and chunk number is its document's, and no remnant of an older version.

    `head` is the version and number of chunks that the row of chunk 0 tells, `dead` the version of the tombstone, as
    far as there are any. A head that is older than the row was read from a replica that lags: no remnant is newer.
    """
    if head is None or (dead is not None and dead >= version):
        return False
    stored, chunks = head
    return version > stored or (version == stored and chunk < chunks)
