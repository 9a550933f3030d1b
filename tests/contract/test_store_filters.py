"""Filters: every store must mean what `matches` means, for any filter over any attributes."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from driftline.core.filters import Filter, matches
from driftline.core.ports import VectorStore
from driftline.core.records import document_key
from driftline.core.store import Removal, StoreTarget, VectorQuery, WritePlan
from driftline.retrieval.filters import parse
from tests.build import a_definition, a_stored, a_target
from tests.contract.test_store import write

NASTY = ('"', "\\", "'", "\n", "%", "' or 1==1 or '", '" or true or "', "日本", "\x7f", "a", "b", "", "\t\\n")


def rows_and_filters(lite: bool) -> tuple[st.SearchStrategy[dict[str, Any]], st.SearchStrategy[dict[str, Any]]]:
    """Attributes of a document, and filters. Milvus Lite has no way to write most control characters."""
    nasty = st.sampled_from([text for text in NASTY if not (lite and "\x7f" in text)])
    controls = {"exclude_categories": ["Cc"]} if lite else {}
    strings = st.one_of(
        nasty,
        st.text(st.characters(codec="utf-8", exclude_characters="\x00", **controls), max_size=6),  # type: ignore[arg-type]
    )
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
    return attributes, trees


def test_any_filter_means_in_the_store_what_it_means_in_memory(
    request: pytest.FixtureRequest, store: VectorStore, target: StoreTarget
) -> None:
    versions = itertools.count(1)
    attributes, trees = rows_and_filters(request.node.callspec.params["store"] == "milvus_lite_settings")

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
