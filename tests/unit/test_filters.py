from __future__ import annotations

from typing import Any

import pytest

from driftline.adapters.milvus.filter import expression
from driftline.core.errors import InvalidRequest
from driftline.core.filters import matches
from driftline.retrieval.filters import parse
from tests.build import a_definition

SOLD = {"field": "sold", "eq": True}
ATTRIBUTES = {"kind": "shoe", "year": 2020, "price": 9.5, "sold": True, "tags": ["a", "b"], "codes": [1, 2]}


@pytest.mark.parametrize(
    "raw, expected",
    [
        ({"field": "kind", "eq": "shoe"}, True),
        ({"field": "kind", "in": ["hat", "shoe"]}, True),
        ({"not": {"field": "kind", "eq": "shoe"}}, False),
        ({"field": "year", "gte": 2020, "lt": 2021}, True),
        ({"field": "year", "gt": 2020}, False),
        ({"field": "price", "lte": 10}, True),
        ({"field": "sold", "eq": True}, True),
        ({"field": "tags", "contains": "b"}, True),
        ({"field": "codes", "contains": 3}, False),
        ({"field": "seen", "exists": False}, True),
        ({"field": "seen", "gte": "2020-01-01"}, False),
        ({"not": {"field": "seen", "gte": "2020-01-01"}}, True),
        ({"and": [{"field": "year", "exists": True}, {"or": [{"field": "kind", "eq": "x"}, SOLD]}]}, True),
    ],
)  # fmt: skip
def test_what_a_filter_means(raw: Any, expected: bool) -> None:
    filter_ = parse(a_definition(), raw)
    assert filter_ is not None
    assert matches(filter_, ATTRIBUTES) is expected


@pytest.mark.parametrize(
    "raw, field",
    [
        ([], "filter"),
        ({}, "filter"),
        ({"xor": []}, "filter"),
        ({"and": []}, "filter.and"),
        ({"and": [{"field": "nope", "eq": 1}]}, "filter.and[0].field"),
        ({"field": "title", "eq": "x"}, "filter.field"),
        ({"field": "year", "eq": "2020"}, "filter.eq"),
        ({"field": "year", "eq": True}, "filter.eq"),
        ({"field": "year", "between": [1, 2]}, "filter"),
        ({"field": "kind", "gt": "a"}, "filter"),
        ({"field": "tags", "eq": "a"}, "filter.eq"),
        ({"field": "kind", "contains": "a"}, "filter.contains"),
        ({"field": "seen", "gt": "yesterday"}, "filter.gt"),
        ({"field": "year", "in": []}, "filter.in"),
        ({"field": "price", "eq": float("nan")}, "filter.eq"),
        ({"field": ["kind"], "eq": "x"}, "filter.field"),
        ({"field": "kind", "eq": "\ud800"}, "filter.eq"),
    ],
)
def test_a_wrong_filter_is_refused_with_its_place(raw: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(a_definition(), raw)
    assert (caught.value.code, caught.value.field) == ("invalid_filter", field)


def test_a_filter_nested_too_deep_is_refused() -> None:
    raw: dict[str, Any] = {"field": "year", "eq": 1}
    for _ in range(20):
        raw = {"not": raw}
    with pytest.raises(InvalidRequest, match="levels"):
        parse(a_definition(), raw)


def test_a_value_never_becomes_syntax() -> None:
    filter_ = parse(a_definition(), {"field": "kind", "eq": '" or 1 == 1 or "\\'})
    assert filter_ is not None
    assert expression(filter_) == '(attributes["kind"] == "\\" or 1 == 1 or \\"\\\\")'


def nesting(text: str) -> int:
    level = deepest = 0
    for character in text:
        level += (character == "(") - (character == ")")
        deepest = max(deepest, level)
    return deepest


@pytest.mark.parametrize("part", [{"field": "year", "in": list(range(1_024))}, {"or": [SOLD] * 480}])
def test_a_filter_at_its_limits_is_no_deeper_than_a_database_reads(part: dict[str, Any]) -> None:
    """Milvus holds an operator in two messages of protobuf, which reads 100 of them into one another."""
    raw = part
    for _ in range(13):
        raw = {"and": [SOLD, raw]}
    filter_ = parse(a_definition(), raw)
    assert filter_ is not None
    text = expression(filter_)
    # Ten levels join 1,024 terms; each has parentheses of its own.
    assert nesting(text) <= 13 + 11
    assert text.count("==") == 13 + (1_024 if "in" in part else 480)
