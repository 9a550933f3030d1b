"""What a store says when it does not do what it is asked: one suite for the twin and for Milvus."""

from __future__ import annotations

import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest

from driftline.adapters.memory import MemoryStore
from driftline.adapters.milvus import MilvusStore
from driftline.adapters.milvus import reader as milvus_reader
from driftline.adapters.milvus import store as milvus_store
from driftline.core.errors import (
    ConfigError,
    Fenced,
    InvalidRecord,
    InvalidRequest,
    PartlyUnavailable,
    Unavailable,
)
from driftline.core.filters import And, Contains, Filter, In, Not, Or, Range, matches
from driftline.core.ports import VectorStore
from driftline.core.records import document_key
from driftline.core.settings import MilvusSettings
from driftline.core.store import Removal, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from driftline.local.stack import Stack
from tests.build import a_stored

free = lambda: 10.0  # noqa: E731
ONE = np.ones((1, 8), np.float32)


@pytest.fixture(scope="module", params=["memory", "milvus"])
def store(request: pytest.FixtureRequest) -> VectorStore:
    return MemoryStore() if request.param == "memory" else MilvusStore(request.getfixturevalue("milvus_settings"))


def a_new_target() -> StoreTarget:
    name = f"contract_{uuid.uuid4().hex[:10]}"
    return StoreTarget(name, "s1", 8, "cosine", name)


@pytest.fixture(scope="module")
def target(store: VectorStore) -> Iterator[StoreTarget]:
    """Shared by tests that ask nothing of what it holds: making one takes Milvus seconds."""
    made = a_new_target()
    store.ensure(made)
    yield made
    store.drop(made)


@pytest.fixture
def empty(store: VectorStore) -> Iterator[StoreTarget]:
    made = a_new_target()
    store.ensure(made)
    yield made
    store.drop(made)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tenant": "t" * 129}, "tenant"),
        ({"tenant": "\ud800"}, "surrogate"),
        ({"id": "é" * 257}, "id"),
        ({"version": 2**63}, "version"),
        ({"version": -1}, "version"),
        ({"fields_json": b"x" * 65_536}, "fields"),
        ({"attributes": {"kind": "x" * 65_536}}, "attributes"),
        ({"attributes": {"year": 2**64}}, "attributes"),
        ({"chunks": ("x" * 65_536,)}, "chunk 0"),
        ({"vectors": np.full((1, 8), np.nan, np.float32)}, "finite"),
        ({"vectors": np.full((1, 8), np.inf, np.float32)}, "finite"),
        ({"vectors": np.ones((1, 9), np.float32)}, "count, kind and dimension"),
        ({"vectors": np.ones((2, 8), np.float32)}, "count, kind and dimension"),
    ],
)
def test_a_row_that_no_store_takes_is_that_records_fault(
    store: VectorStore, target: StoreTarget, change: dict[str, Any], said: str
) -> None:
    plan = WritePlan((a_stored("good"), replace(a_stored("bad"), **change)))
    with pytest.raises(InvalidRecord, match=said) as caught:
        store.apply(target, plan, free)
    assert (caught.value.reason, caught.value.suspect) == ("store_refused", True)
    assert store.versions(target, [document_key("", "good")], None) == {}


@pytest.mark.parametrize(
    "query, field",
    [
        (VectorQuery(np.full((1, 8), np.nan, np.float32), 5, None), "vector"),
        (VectorQuery(ONE, 0, None), "limit"),
        (VectorQuery(ONE, 16_385, None), "limit"),
    ],
)
def test_a_search_that_no_store_answers_is_the_callers_fault(
    store: VectorStore, target: StoreTarget, query: VectorQuery, field: str
) -> None:
    with pytest.raises(InvalidRequest, match="expected") as caught:
        store.search(target, query)
    assert caught.value.field == field


CALLS: dict[str, Callable[[VectorStore, StoreTarget], object]] = {
    "versions": lambda s, t: s.versions(t, ["a"], None),
    "apply": lambda s, t: s.apply(t, WritePlan((a_stored("a"),)), free),
    "apply a removal": lambda s, t: s.apply(t, WritePlan(removals=(Removal("a", 1, 1),)), free),
    "wait_visible": lambda s, t: s.wait_visible(t, 1),
    "search": lambda s, t: s.search(t, VectorQuery(ONE, 5, None)),
    "fetch": lambda s, t: s.fetch(t, ["a"], True),
    "scan": lambda s, t: list(s.scan(t)),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_a_store_that_is_missing_holds_up_only_what_needs_it(
    store: VectorStore, target: StoreTarget, call: str
) -> None:
    missing = replace(target, store=f"{target.store}_missing")
    with pytest.raises(PartlyUnavailable):
        CALLS[call](store, missing)
    CALLS[call](store, target)


def test_a_store_that_is_missing_has_no_count_and_is_dropped_without_an_error(store: VectorStore) -> None:
    missing = a_new_target()
    assert store.count(missing) is None
    store.drop(missing)
    store.ensure(missing)
    assert store.count(missing) == 0
    store.drop(missing)
    assert store.count(missing) is None


# To the ends of what the parser of filters lets through: integers within +-(2^63 - 1), floats as floats.
VALUES = (-(2**63) + 1, -1, 0, 5, 2**63 - 1)
EDGES: tuple[Filter, ...] = (
    *(In("year", (v,)) for v in VALUES),
    *(Range("year", ((op, v),)) for op in (">", ">=", "<", "<=") for v in VALUES),
    *(Contains("codes", v) for v in VALUES),
    Range("price", ((">", 2.0**64),)),
    Range("price", (("<", 2.0**64), (">=", -(2.0**64)))),
    In("year", tuple(range(1_024))),
    In("kind", tuple(f"k{i}" for i in range(1_024))),
    Or(tuple(In("year", (i,)) for i in range(500))),
    And(tuple(Not(In("year", (i,))) for i in range(300))),
)


def test_filters_at_the_edges_of_numbers_and_of_size_mean_what_they_mean(
    store: VectorStore, empty: StoreTarget
) -> None:
    """From some 60 conditions in a row on, Milvus' query nodes failed."""
    rows: dict[str, dict[str, Any]] = {
        f"d{i}": {"year": v, "codes": [v], "price": float(v) * 3, "kind": f"k{i}"} for i, v in enumerate(VALUES)
    }
    rows["bare"] = {}
    store.wait_visible(
        empty, store.apply(empty, WritePlan(tuple(a_stored(name, **row) for name, row in rows.items())), free)
    )
    for filter_ in EDGES:
        found = store.search(empty, VectorQuery(ONE, 50, None, filter_, strong=True))[0]
        assert {hit.id for hit in found} == {n for n, row in rows.items() if matches(filter_, row)}, str(filter_)[:200]


# Of Milvus alone: what no twin can show.


@pytest.fixture
def real(milvus_settings: MilvusSettings) -> Iterator[tuple[MilvusStore, StoreTarget]]:
    store, target = MilvusStore(milvus_settings), a_new_target()
    store.ensure(target)
    yield store, target
    store.drop(target)


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "t" * 129},
        {"version": 2**63},
        {"attributes": {"kind": "x" * 65_536}},
        {"vectors": np.full((1, 8), np.nan, np.float32)},
        {"vectors": np.ones((1, 9), np.float32)},
    ],
)
def test_what_milvus_itself_refuses_is_that_records_fault(
    real: tuple[MilvusStore, StoreTarget], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """By its codes 1100 and 65535 and pymilvus' types, should a limit of another Milvus be below those checked here."""
    store, target = real
    monkeypatch.setattr(milvus_store, "check_plan", lambda *_: None)
    with pytest.raises(InvalidRecord) as caught:
        store.apply(target, WritePlan((replace(a_stored("bad"), **change),)), free)
    assert (caught.value.reason, caught.value.suspect) == ("store_refused", True)
    store.apply(target, WritePlan((a_stored("good"),)), free)


def test_an_expression_that_milvus_refuses_is_the_callers_fault(
    real: tuple[MilvusStore, StoreTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, target = real
    monkeypatch.setattr(milvus_reader, "search_filter", lambda query: "syntax ==" if query.filter else "")
    with pytest.raises(InvalidRequest) as caught:
        store.search(target, VectorQuery(ONE, 5, None, In("year", (1,))))
    assert (caught.value.code, caught.value.field) == ("refused_by_store", "filter")


def test_a_collection_that_somebody_released_or_dropped_is_made_usable_again(
    real: tuple[MilvusStore, StoreTarget],
) -> None:
    store, target = real
    store.apply(target, WritePlan((a_stored("a"),)), free)
    store._calls.client().release_collection(target.store, timeout=10)
    with pytest.raises(PartlyUnavailable):
        store.versions(target, ["a"], None)
    store.ensure(target)
    assert store.versions(target, [document_key("", "a")], None) == {document_key("", "a"): StoredVersion(1, 1, False)}
    store._calls.client().drop_collection(target.store, timeout=10)
    with pytest.raises(PartlyUnavailable):
        store.versions(target, ["a"], None)
    store.ensure(target)
    assert store.versions(target, ["a"], None) == {}


def test_a_plan_of_many_large_rows_is_written_in_several_requests(real: tuple[MilvusStore, StoreTarget]) -> None:
    """Milvus takes requests of at most 64 MiB: a thousand rows of the longest texts were refused for ever."""
    store, target = real
    large: list[StoredDocument] = [
        replace(a_stored(f"d{i}"), chunks=("x" * 65_000,), attributes={"kind": "y" * 60_000}) for i in range(700)
    ]
    store.apply(target, WritePlan(tuple(large)), free)
    assert store.count(target) == 700


def test_a_bug_under_a_call_flies_as_itself(real: tuple[MilvusStore, StoreTarget]) -> None:
    """pymilvus wraps whatever is raised under it in an exception of its own, which was taken for an outage."""
    store, target = real

    def buggy() -> float:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        store.apply(target, WritePlan((a_stored("a"),)), buggy)


def test_a_lease_is_asked_also_when_pymilvus_tries_again_on_a_new_connection(
    real: tuple[MilvusStore, StoreTarget],
) -> None:
    store, target = real
    store._calls.client()._get_connection().reconnect(timeout=10)

    def fenced() -> float:
        raise Fenced("lost")

    with pytest.raises(Fenced):
        store.apply(target, WritePlan((a_stored("a"),)), fenced)


def test_a_frozen_milvus_is_unavailable_after_the_time_limit(
    stack: Stack, milvus_settings: MilvusSettings, real: tuple[MilvusStore, StoreTarget]
) -> None:
    _, target = real
    store = MilvusStore(milvus_settings.model_copy(update={"timeout_seconds": 2.0}))
    store.ensure(target)
    server = psutil.Process(next(p.pid for p in stack.processes if p.name == "milvus"))
    server.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(CALLS)) as pool:
            raised = {name: pool.submit(call, store, target).exception for name, call in CALLS.items()}
            errors = {name: exception() for name, exception in raised.items()}
    finally:
        server.send_signal(signal.SIGCONT)
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(CALLS, Unavailable)


def test_a_milvus_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings = MilvusSettings(uri=f"http://127.0.0.1:{probe.getsockname()[1]}", timeout_seconds=1)
    with pytest.raises(Unavailable) as caught:
        MilvusStore(settings).ping()
    assert not isinstance(caught.value, PartlyUnavailable)


def test_an_address_that_is_none_is_the_operators_fault() -> None:
    with pytest.raises(ConfigError, match=r"milvus\.uri"):
        MilvusStore(MilvusSettings(uri="nonsense")).ping()
