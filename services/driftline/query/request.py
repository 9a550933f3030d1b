"""What a search asks for, checked. Pure."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field

from driftline.core.errors import InvalidRequest
from driftline.core.limits import (
    MAX_DIMENSION,
    MAX_FIELDS,
    MAX_PASSAGES,
    MAX_QUERY_CHARACTERS,
    MAX_QUERY_TERMS,
    MAX_STEPS,
    MAX_TERM_WEIGHT,
    MAX_VECTOR_VALUE,
)
from driftline.core.schema import validated
from driftline.core.values import check_id

# A digest of 24 hexadecimal digits, an offset and a window, as base64.
_CURSOR = re.compile(r"([0-9a-f]{24}):([0-9]{1,9}):([0-9]{1,9})")
_LONGEST_CURSOR = 72
_LONGEST_TOKEN = 64
# Ids, tenants and fingerprints are checked where they are used; this only bounds what is kept of a request.
_LONGEST_NAME = 1_024


class VectorInput(BaseModel):
    """A query vector. `space`, a fingerprint, is compared with the collection's when given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    values: Annotated[list[float | int], FailFast()] = Field(min_length=1, max_length=MAX_DIMENSION)
    space: str = Field("", max_length=_LONGEST_NAME)


class QueryTerm(BaseModel):
    """A part of a composed query: exactly one of `text`, `vector` and `document`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str | None = Field(None, description="in words")
    vector: VectorInput | None = Field(None, description="a vector of the space of an index")
    document: str | None = Field(None, max_length=_LONGEST_NAME, description="id of a stored document")
    weight: float | int = Field(
        1.0, ge=-MAX_TERM_WEIGHT, le=MAX_TERM_WEIGHT, description="less than 0: far from it; not 0"
    )


class SearchBody(BaseModel):
    """One search: exactly one of `text`, `vector`, `document` and `query`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "text": "comfortable running shoes",
                    "limit": 5,
                    "filter": {"and": [{"field": "kind", "eq": "shoe"}, {"field": "price", "lt": 100}]},
                    "output_fields": ["title"],
                }
            ]
        },
    )

    text: str | None = Field(None, description="what is searched for, in words")
    vector: VectorInput | None = Field(None, description="a vector of the space of an index")
    document: str | None = Field(
        None, max_length=_LONGEST_NAME, description="id of a stored document: find more like it"
    )
    query: list[QueryTerm] | None = Field(
        None,
        min_length=1,
        max_length=MAX_QUERY_TERMS,
        description="a weighted sum of texts, vectors and stored documents; the documents are not found themselves",
    )
    index: str | None = Field(None, max_length=_LONGEST_NAME, description="the only index to search")
    profile: str | None = Field(None, max_length=_LONGEST_NAME, description="a plan of the collection's definition")
    plan: list[Any] | None = Field(
        None, max_length=MAX_STEPS, description="how to find and rank, as a list of steps (docs/indexes.md)"
    )
    limit: int = Field(10, ge=1, description="hits to return")
    offset: int = Field(0, ge=0, description="hits to leave out before the first")
    cursor: str | None = Field(
        None,
        max_length=_LONGEST_CURSOR,
        description="`next_cursor` of the page before, with an otherwise equal search",
    )
    filter: dict[str, Any] | None = Field(None, description="the filter language of docs/search.md")
    output_fields: list[str] | None = Field(
        None, max_length=MAX_FIELDS, description="fields to return; left out: all; empty: none"
    )
    min_score: float | int | None = Field(None, description="leave out hits under this score")
    tenant: str | None = Field(None, max_length=_LONGEST_NAME, description="required by collections with tenancy")
    rerank: int = Field(
        0, ge=0, le=1_000,
        description="while the model is being changed: embed so many of the best hits, where they are of an older "
        "generation, by the new model, and rank them by it; what was embedded is carried over",
    )  # fmt: skip
    after: str | None = Field(
        None, max_length=_LONGEST_TOKEN, description="token of a change: wait until it is visible"
    )
    timeout_seconds: float | int = Field(10.0, gt=0, le=600, description="longest wait for `after`")
    passages: int = Field(1, ge=1, le=MAX_PASSAGES, description="chunks of each document to tell, best first")
    budget_ms: int | None = Field(
        None, ge=1, le=600_000, description="answer with what has been found by then; what is left out is told"
    )
    explain: bool = Field(False, description="tell how the answer came about")
    explain_document: str | None = Field(
        None, max_length=_LONGEST_NAME, description="id of a document whose place is to be explained"
    )


class BatchBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    searches: list[SearchBody] = Field(min_length=1)


def parse(raw: Any, where: str = "") -> SearchBody:
    """Raises InvalidRequest naming the first wrong field."""
    body = validated(SearchBody, raw, "invalid_search", where)
    _one_of(body, ("text", "vector", "document", "query"), where or "text")
    _check_input(body, "")
    for i, term in enumerate(body.query or ()):
        _one_of(term, ("text", "vector", "document"), f"query[{i}]")
        _check_input(term, f"query[{i}].")
        if not term.weight:
            raise InvalidRequest("invalid_search", "expected a number other than 0", f"query[{i}].weight")
    if body.min_score is not None and not math.isfinite(body.min_score):
        raise InvalidRequest("invalid_search", "expected a finite number", "min_score")
    if body.explain_document is not None and not body.explain:
        raise InvalidRequest("invalid_search", "expected `explain` with it", "explain_document")
    if body.explain_document is not None:
        check_id(body.explain_document, "explain_document")
    if body.cursor is not None and body.offset:
        raise InvalidRequest("invalid_search", "give an offset or a cursor, not both", "cursor")
    return body


def _one_of(given: SearchBody | QueryTerm, names: tuple[str, ...], where: str) -> None:
    found = [name for name in names if getattr(given, name) is not None]
    if len(found) != 1:
        detail = (
            f"expected exactly one of {', '.join(names[:-1])} and {names[-1]}, found {' and '.join(found) or 'none'}"
        )
        raise InvalidRequest("invalid_search", detail, where)


def _check_input(given: SearchBody | QueryTerm, where: str) -> None:
    if given.text is not None and not given.text.strip():
        raise InvalidRequest("empty_text", "expected a text that is not empty", f"{where}text")
    if given.text is not None and len(given.text) > MAX_QUERY_CHARACTERS:
        raise InvalidRequest("invalid_search", f"expected at most {MAX_QUERY_CHARACTERS} characters", f"{where}text")
    if given.vector is not None:
        _check_vector(given.vector.values, f"{where}vector.values")


def _check_vector(values: list[float | int], where: str) -> None:
    if not all(map(math.isfinite, values)):
        raise InvalidRequest("non_finite_vector", "expected finite numbers", where)
    if max(map(abs, values)) > MAX_VECTOR_VALUE:
        # Scores of larger numbers are infinite in 32-bit floats, and infinity has no order.
        detail = f"expected numbers from -{MAX_VECTOR_VALUE:g} to {MAX_VECTOR_VALUE:g}"
        raise InvalidRequest("invalid_search", detail, where)


_NOT_WHAT_IS_FOUND = {"offset", "cursor", "after", "timeout_seconds", "budget_ms", "explain", "explain_document"}


def digest(body: SearchBody) -> str:
    """What makes two searches the same, their page and their waiting left out."""
    same = body.model_dump(exclude=_NOT_WHAT_IS_FOUND)
    return hashlib.blake2b(orjson.dumps(same, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()


def make_cursor(body: SearchBody, offset: int, window: int) -> str:
    """`window` is what each index ranked: a page further on is of the same ranking only if that is the same."""
    return base64.urlsafe_b64encode(f"{digest(body)}:{offset}:{window}".encode()).decode().rstrip("=")


def place_of(body: SearchBody) -> tuple[int, int]:
    """Where the page begins, and the window of the pages before it (0: of none). Raises InvalidRequest for a cursor of
    another search."""
    if body.cursor is None:
        return body.offset, 0
    try:
        padded = body.cursor + "=" * (-len(body.cursor) % 4)
        found = _CURSOR.fullmatch(base64.urlsafe_b64decode(padded).decode())
    except ValueError:
        found = None
    if found is None:
        raise InvalidRequest("invalid_cursor", "expected a next_cursor of an earlier answer", "cursor")
    if found[1] != digest(body):
        raise InvalidRequest("invalid_cursor", "the cursor belongs to another search", "cursor")
    return int(found[2]), int(found[3])
