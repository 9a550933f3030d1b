"""Queries that are weighted sums: of texts, vectors and stored documents, in every kind of index and leg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from driftline.core.errors import InvalidRequest, NotFound
from driftline.core.records import Carry, document_key
from driftline.core.vectors import Sparse, as_dense
from driftline.drift.stored import read
from driftline.query.request import parse
from driftline.query.rpc import _body
from driftline.retrieval.engine import Engine
from driftline.retrieval.index_search import IndexSearcher
from driftline.retrieval.inputs import Composed, InputMismatch, Part, StoredInput, Term, Text, Vector
from driftline.retrieval.legs import Sum, weighted_sum
from driftline.wire.v1 import search_pb2
from tests.unit.hybrid import Hybrid
from tests.unit.test_engine import NEW, OLD, SCALE, TITLES, World


@pytest.fixture(scope="module")
def p() -> Iterator[Hybrid]:
    made = Hybrid()
    for colour in ("red", "blue", "green"):
        for thing in ("shoe", "hat", "coat"):
            made.write(f"{colour}-{thing}", body=f"{colour} {thing}")
    made.drain()
    yield made
    made.close()


def find(p: Hybrid, *terms: dict[str, Any], **body: Any) -> list[str]:
    return p.search(**{"text": None, "query": list(terms), "index": "dense"} | body)


def test_a_sum_finds_what_is_near_all_of_its_terms(p: Hybrid) -> None:
    assert find(p, {"text": "red"}, {"text": "hat"})[0] == "red-hat"
    assert find(p, {"text": "red"}, {"text": "hat"}, {"text": "coat", "weight": 2})[0] == "red-coat"


def test_what_weighs_less_than_nothing_is_far_from_what_is_found(p: Hybrid) -> None:
    first = find(p, {"text": "red shoe"}, {"text": "red", "weight": -1}, limit=9)
    assert first[0].endswith("-shoe")
    assert "red-shoe" not in first[:2]


def test_one_term_is_the_search_of_it(p: Hybrid) -> None:
    for term in ({"text": "green coat"}, {"document": "red-hat"}):
        alone = p.answer(**{"text": None, "index": "dense"} | term).page.hits
        summed = p.answer(text=None, index="dense", query=[term | {"weight": 3}]).page.hits
        assert [hit.id for hit in summed] == [hit.id for hit in alone]
        assert [hit.score for hit in summed] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_the_documents_of_a_query_are_not_found_themselves(p: Hybrid) -> None:
    found = find(p, {"document": "red-shoe"}, {"document": "blue-hat", "weight": -1}, limit=9)
    assert found[0] in ("red-hat", "red-coat", "green-shoe")
    assert not {"red-shoe", "blue-hat"} & set(found)
    assert len(found) == 7
    with pytest.raises(NotFound):
        find(p, {"text": "red"}, {"document": "nowhere"})


def test_in_an_index_of_words_the_weights_of_terms_are_added(p: Hybrid) -> None:
    assert find(p, {"text": "red"}, {"text": "coat", "weight": 3}, index="words", limit=9)[:3] == [
        "red-coat", "blue-coat", "green-coat",
    ]  # fmt: skip
    # No score is below 0, so that there is no order among what a term should be far from.
    assert set(find(p, {"text": "red shoe"}, {"text": "red", "weight": -5}, index="words")) == {
        "red-shoe", "blue-shoe", "green-shoe",
    }  # fmt: skip
    assert find(p, {"text": "red", "weight": -1}, index="words") == []


def test_several_indexes_are_fused_and_those_that_cannot_take_a_term_are_left_out(p: Hybrid) -> None:
    answer = p.answer(text=None, query=[{"text": "red"}, {"text": "hat"}])
    assert answer.page.hits[0].id == "red-hat"
    assert answer.page.hits[0].indexes.keys() == {"dense", "words"}
    vector = {"values": p.embedder._one("hat").tolist()}
    answer = p.answer(text=None, query=[{"text": "red"}, {"vector": vector}])
    assert answer.page.hits[0].id == "red-hat"
    assert answer.page.left_out.keys() == {"words"}


def test_terms_that_cancel_each_other_out_are_refused(p: Hybrid) -> None:
    with pytest.raises(InvalidRequest) as caught:
        find(p, {"text": "red"}, {"text": "red", "weight": -1})
    assert (caught.value.code, caught.value.field) == ("empty_query", "query")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([], "query"),
        ([{"text": "a"}] * 17, "query"),
        ([{}], "query[0]"),
        ([{"text": "a"}, {"text": "a", "document": "b"}], "query[1]"),
        ([{"text": " "}], "query[0].text"),
        ([{"text": "a" * 20_001}], "query[0].text"),
        ([{"vector": {"values": [float("nan")]}}], "query[0].vector.values"),
        ([{"text": "a", "weight": 0}], "query[0].weight"),
        ([{"text": "a", "weight": 101}], "query[0].weight"),
        ([{"text": "a", "weight": float("nan")}], "query[0].weight"),
        ([{"text": "a", "sign": -1}], "query[0].sign"),
    ],
)
def test_a_query_that_is_none_is_refused_with_its_place(query: list[Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({"query": query})
    assert caught.value.field == field


def test_grpc_says_the_same() -> None:
    terms = [
        search_pb2.QueryTerm(text="red", weight=-0.5),
        search_pb2.QueryTerm(document=search_pb2.DocumentInput(id="a")),
        search_pb2.QueryTerm(vector=search_pb2.VectorInput(values=[1, 2], space="s"), weight=2),
    ]
    request = search_pb2.SearchRequest(collection="c", composed=search_pb2.ComposedInput(terms=terms))
    assert _body(request) == parse(
        {
            "query": [
                {"text": "red", "weight": -0.5},
                {"document": "a"},
                {"vector": {"values": [1.0, 2.0], "space": "s"}, "weight": 2.0},
            ]
        }
    )
    empty = search_pb2.ComposedInput(terms=[search_pb2.QueryTerm(weight=1)])
    with pytest.raises(InvalidRequest) as caught:
        _body(search_pb2.SearchRequest(composed=empty), "searches[3]")
    assert caught.value.field == "query[0]"


# The sum, and the legs of a model change


def test_a_sum_of_rows_of_terms_leaves_out_what_weighs_nothing() -> None:
    parts = [Sparse.of([{1: 1.0, 2: 2.0}]), Sparse.of([{2: 4.0, 3: 1.0, 9: 1.0}])]
    assert weighted_sum(parts, [2.0, -0.5], True).terms.tolist() == [1, 2]
    (row,) = weighted_sum(parts, [2.0, -0.5], True)
    assert row.weights.tolist() == [2.0, 2.0]


def test_lengths_count_where_they_mean_something() -> None:
    parts = [np.array([[3.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)]
    assert weighted_sum(parts, [1.0, 1.0], False).tolist() == [[3.0, 1.0]]
    assert weighted_sum(parts, [1.0, 1.0], True) == pytest.approx(np.full((1, 2), np.sqrt(0.5)))


@pytest.mark.parametrize("carry", [Carry.OWN, Carry.MAPPED, Carry.ENSEMBLE])
def test_every_leg_adds_the_terms_in_its_own_space(carry: Carry) -> None:
    w = World(Carry.OWN, carry, old_weight=0.4)
    kept = read(w.view.compensation(w.id))
    texts, weights = (TITLES[3], TITLES[40]), (1.0, -0.5)

    def in_old_space(text: str) -> np.ndarray:
        own, mapped = OLD._one(text)[None], as_dense(kept.compensator.apply(NEW._one(text)[None]))
        share = {Carry.OWN: 1.0, Carry.MAPPED: 0.0, Carry.ENSEMBLE: 0.4}[carry]
        mixed = share * own / np.linalg.norm(own) + (1 - share) * mapped / np.linalg.norm(mapped)
        return mixed / np.linalg.norm(mixed)

    query = sum(weight * in_old_space(text) for text, weight in zip(texts, weights, strict=True))
    query = query / np.linalg.norm(query)
    expected = {title: float(SCALE.apply(float(query[0] @ OLD._one(title)))) for title in TITLES}
    asked = Sum(tuple((Text(text), weight) for text, weight in zip(texts, weights, strict=True)))
    found = w.find(asked, needed=20)
    assert [score for _, score in found] == pytest.approx([expected[title] for title, _ in found], abs=1e-4)
    assert found[0][0] == max(expected, key=expected.__getitem__)


def test_half_migrated_a_sum_finds_every_document_once() -> None:
    w = World(Carry.OWN, Carry.MAPPED, backfilled=len(TITLES) // 2)
    found = w.find(Sum(((Text("red hats"), 1.0), (Vector(NEW._one("wool")[None], NEW.space.fingerprint), 1.0))), 500)
    assert sorted(title for title, _ in found) == sorted(TITLES)


def test_a_vector_of_the_new_model_and_a_stored_document_are_not_added_while_it_changes() -> None:
    w = World(Carry.OWN, Carry.MAPPED)
    indexes = IndexSearcher(w.view, w.store, Engine(w.view, w.store, w.queries))
    stored = Term(StoredInput(document_key("", TITLES[0]), TITLES[0]), 1.0)
    new = Term(Vector(NEW._one("red")[None], NEW.space.fingerprint), 1.0)
    with pytest.raises(InputMismatch, match="model is being changed"):
        indexes.search(w.collection.primary, Composed((stored, new)), Part(10))
    old = Term(Vector(OLD._one("red")[None], OLD.space.fingerprint), 1.0)
    for other in (old, Term(Text("red"), 1.0)):
        hits = indexes.search(w.collection.primary, Composed((stored, other)), Part(len(TITLES))).hits
        assert len(hits) == len(TITLES) - 1
