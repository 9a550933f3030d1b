"""Plans: several indexes searched side by side and fused, within a budget, page by page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from driftline.adapters.memory import MemoryCache, MemoryLogReader
from driftline.core.errors import InvalidRequest, NotFound, PartlyUnavailable, Unavailable
from driftline.core.receipts import ReceiptTail
from driftline.core.records import document_key
from driftline.core.store import StoreTarget, WritePlan
from driftline.query.request import parse
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from tests.build import a_change, a_collection, publish_change
from tests.unit.hybrid import ALL, Hybrid, body_of, filled
from tests.unit.test_pipeline import Pipeline


@pytest.fixture
def p() -> Iterator[Hybrid]:
    made = filled()
    yield made
    made.close()


def test_each_index_can_be_searched_alone(p: Hybrid) -> None:
    assert p.search(index="words", text="running in rain") == ["a"]
    assert p.search(index="kinds", text="coat") == ["c"]
    assert p.search(index="dense", text="red shoes")[0] == "a"
    with pytest.raises(NotFound, match="no index str 'nope'"):
        p.search(index="nope")


def test_words_of_no_document_find_nothing(p: Hybrid) -> None:
    answer = p.answer(index="words", text="helicopter")
    assert (answer.page.hits, answer.page.score_kind) == ([], "bm25")


def test_the_default_profile_fuses(p: Hybrid) -> None:
    answer = p.answer(text="shoes", explain=True)
    assert answer.page.score_kind == "rrf"
    best = answer.page.hits[0]
    assert best.id == "b"
    assert best.indexes["words"]["rank"] == 1
    assert best.score == pytest.approx(1 / 61 + 1 / (60 + best.indexes["dense"]["rank"]))
    (step,) = answer.explain["steps"]
    assert [of["index"] for of in step["of"]] == ["dense", "words"]
    assert step["fuse"] == {"kind": "rrf", "k": 60}


def test_a_document_that_only_one_index_found_is_there_with_its_place_in_it(p: Hybrid) -> None:
    hits = {hit.id: hit.indexes for hit in p.answer(text="coat", profile="everything").page.hits}
    assert hits["c"].keys() == {"dense", "kinds"}
    assert hits["b"].keys() == {"dense"}


def test_where_a_document_stands_is_told_whether_it_was_found_or_not(p: Hybrid) -> None:
    def of(document: str, **body: Any) -> dict[str, Any]:
        answer = p.answer(text="blue shoes", explain=True, explain_document=document, limit=1, **body)
        told: dict[str, Any] = answer.explain["document"]
        assert told["id"] == document
        return told

    first = of("b")
    assert (first["rank"], first["passes_filter"]) == (1, True)
    assert first["indexes"]["words"]["rank"] == 1
    hit = next(hit for hit in p.answer(text="blue shoes").page.hits if hit.id == "b")
    assert first["indexes"]["words"]["score"] == pytest.approx(hit.indexes["words"]["score"])
    # Held by the index of words, and not found by them.
    assert of("a")["indexes"]["words"] == {
        "ranked": 1, "rank": None, "held": True, "score": 0.0, "chunk": 0,
        "version": hit.version - 1, "generation": 2,
    }  # fmt: skip
    missing = of("c")["indexes"]
    assert missing["words"] == {"ranked": 1, "rank": None, "held": False}
    assert missing["dense"]["held"]
    assert of("nowhere") == {
        "id": "nowhere", "rank": None, "score": None, "passes_filter": None,
        "indexes": {"dense": {"ranked": 3, "rank": None, "held": False}, "words": missing["words"]},
    }  # fmt: skip
    left = of("b", filter={"field": "kind", "eq": "shoe"})
    assert (left["rank"], left["passes_filter"], left["indexes"]["dense"]["held"]) == (None, False, True)


def test_the_id_of_a_document_to_explain_is_checked() -> None:
    for value in ("", "a\nb", "x" * 600):
        with pytest.raises(InvalidRequest) as caught:
            parse({"text": "a", "explain": True, "explain_document": value})
        assert caught.value.field == "explain_document"


def test_an_own_plan_has_weights_texts_and_filters(p: Hybrid) -> None:
    of = [
        {"index": "dense", "weight": 0.1},
        {"index": "words", "text": "rain", "filter": {"field": "kind", "eq": "shoe"}},
    ]
    answer = p.answer(plan=[{"search": {"of": of}}], text="hat")
    assert answer.page.hits[0].id == "a"
    assert answer.page.hits[0].indexes["words"]["rank"] == 1


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ([], "plan"),
        ([{"seek": {}}], "plan[0]"),
        ([{"search": {"of": []}}], "plan[0].search.of"),
        ([{"search": {"of": [{"index": "nope"}]}}], "plan[0].search.of[0].index"),
        ([{"search": {"of": [{"index": "dense"}, {"index": "dense"}]}}], "plan[0].search"),
        ([{"search": {"of": [{"index": "dense", "filter": {"field": "no"}}]}}], "plan[0].search.of[0].filter"),
        ([{"search": {"of": ALL, "fuse": "magic"}}], "plan[0].search.fuse"),
        ([{"search": {"of": ALL}}, {"search": {"of": ALL}}], "plan[1]"),
        ([{"search": {"of": ALL, "depth": 3}}], "plan[0].search.depth"),
    ],
)
def test_a_plan_that_is_none_is_refused_with_its_place(p: Hybrid, plan: list[Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        p.search(plan=plan)
    assert caught.value.field.startswith(field)


def test_plans_in_searches_are_taken_only_where_that_is_switched_on(p: Hybrid) -> None:
    strict = Searcher(p.view, p.embedder, p.store, MemoryCache(), p.tail, QuerySection())
    with pytest.raises(InvalidRequest, match="ADHOC_PLANS"):
        strict.search("things", body_of(plan=[{"search": {"of": ALL}}]))
    strict.close()


def test_at_most_one_of_index_profile_and_plan(p: Hybrid) -> None:
    with pytest.raises(InvalidRequest, match="at most one"):
        p.search(index="dense", profile="default")
    with pytest.raises(InvalidRequest, match="no profile str 'nope'; there are default, everything"):
        p.search(profile="nope")


def test_more_like_a_document_in_every_index(p: Hybrid) -> None:
    answer = p.searcher.search("things", parse({"document": "a", "profile": "everything"}))
    assert "a" not in [hit.id for hit in answer.page.hits]
    told = p.searcher.search("things", parse({"document": "c"})).page.left_out
    assert "words" in told, "the document has nothing for that index"


def test_a_vector_searches_the_indexes_of_its_space(p: Hybrid) -> None:
    values = p.embedder._one("red shoes").tolist()
    answer = p.searcher.search("things", parse({"vector": {"values": values}}))
    assert answer.page.hits[0].id == "a"
    assert "sparse vectors" in answer.page.left_out["words"]
    with pytest.raises(InvalidRequest, match="sparse vectors"):
        p.searcher.search("things", parse({"vector": {"values": values}, "index": "words"}))


def test_of_two_versions_in_two_indexes_only_the_newer_one_counts(p: Hybrid) -> None:
    """As between the two writes of an update: the one index has it already."""
    target = p.target("dense")
    (known,) = p.store.fetch(target, [document_key("", "b")], True)
    newer = replace(known, version=known.version + 1, fields_json=b'{"title":"new"}')
    p.store.apply(target, WritePlan((newer,)), lambda: 10.0)
    hits = {hit.id: hit for hit in p.answer(text="shoes hats").page.hits}
    assert (hits["b"].version, hits["b"].fields) == (newer.version, {"title": "new"})
    assert hits["b"].indexes.keys() == {"dense"}


def test_pages_of_a_fused_answer_are_of_one_ranking() -> None:
    p = Hybrid()
    for i in range(40):
        p.write(f"d{i}", title=f"shoe number {i}", body="red " * (i % 7) + "shoes")
    p.drain()
    whole = p.search(text="red shoes", limit=40)
    paged, cursor = [], None
    for _ in range(20):
        answer = p.answer(text="red shoes", limit=7, **({"cursor": cursor} if cursor else {}))
        paged += [hit.id for hit in answer.page.hits]
        if not (cursor := answer.page.next_cursor):
            break
    assert paged == whole
    assert len(set(whole)) == 40
    p.close()


def test_a_window_that_is_small_bounds_what_can_be_paged_through(p: Hybrid) -> None:
    for i in range(40):
        p.write(f"d{i}", title=f"shoe number {i}", body="red " * (i % 7) + "shoes")
    p.drain()
    section = QuerySection(fusion_window=10)
    searcher = Searcher(p.view, p.embedder, p.store, MemoryCache(), p.tail, section)
    pages, cursor = [], None
    while cursor != "":
        page = searcher.search(
            "things", body_of(text="red shoes", limit=4, **({"cursor": cursor} if cursor else {}))
        ).page
        pages.append([(hit.id, hit.score) for hit in page.hits])
        cursor = page.next_cursor
    told = [hit for page in pages for hit in page]
    assert 10 <= len(told) <= 20
    assert len({i for i, _ in told}) == len(told), "no document twice"
    assert [score for _, score in told] == sorted((score for _, score in told), reverse=True)
    searcher.close()


class _Slow:
    """A store whose searches of one index take long, or fail."""

    def __init__(self, p: Hybrid, index: str, seconds: float = 0.0, error: Exception | None = None) -> None:
        self._search, self._store = p.store.search, p.target(index).store
        self._seconds, self._error = seconds, error

    def __call__(self, target: StoreTarget, query: Any) -> Any:
        if target.store == self._store:
            time.sleep(self._seconds)
            if self._error is not None:
                raise self._error
        return self._search(target, query)


def test_what_is_not_there_within_the_budget_is_left_out_and_told(p: Hybrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p.store, "search", _Slow(p, "words", 1.0))
    answer = p.answer(text="shoes", budget_ms=100)
    assert answer.page.left_out == {"words": "not within the budget"}
    assert len(answer.page.hits) == 3
    assert answer.took_ms < 900


def test_a_budget_never_leaves_nothing(p: Hybrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p.store, "search", _Slow(p, "dense", 0.3))
    assert p.answer(text="shoes", index="dense", budget_ms=1).page.hits
    monkeypatch.setattr(p.store, "search", _Slow(p, "dense", 0.3, PartlyUnavailable("milvus", "not loaded")))
    assert p.answer(text="shoes", budget_ms=100).page.left_out.keys() == {"dense"}


def test_without_a_budget_an_index_that_cannot_be_searched_fails_the_search(
    p: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p.store, "search", _Slow(p, "words", 0, PartlyUnavailable("milvus", "not loaded")))
    with pytest.raises(Unavailable, match="not loaded"):
        p.search(text="shoes")


def test_an_index_that_is_being_filled_is_left_out(p: Hybrid) -> None:
    unfinished = replace(p.collection, unfinished=("words",))
    from driftline.core.control import collection_record

    p.view.apply(collection_record(unfinished).value)
    assert "every document yet" in p.answer(text="shoes").page.left_out["words"]
    with pytest.raises(InvalidRequest, match="every document yet") as caught:
        p.search(index="words")
    assert caught.value.status == 409


def test_passages_are_the_chunks_that_were_found() -> None:
    chunked = {"mode": "sentences", "max_tokens": 16, "overlap_tokens": 0}
    indexes = {
        "dense": {"encoder": "hashing", "fields": ["title"]},
        "words": {"analyzer": "english", "fields": ["body"], "chunking": chunked},
    }
    p = Pipeline(a_collection(indexes=indexes))
    about = ["shoes" if i % 2 else "hats" for i in range(6)]
    body = " ".join(f"Sentence {i} tells of {word} and of a few other things." for i, word in enumerate(about))
    publish_change(p.log, a_change("a", collection=p.collection, title="x", body=body))
    p.drain()
    searcher = Searcher(p.view, p.embedder, p.store, MemoryCache(), ReceiptTail(MemoryLogReader(p.log)), QuerySection())
    (hit,) = searcher.search("things", body_of(text="shoes", index="words", passages=2)).page.hits
    assert [passage["text"].count("shoes") for passage in hit.passages] == [1, 1]
    assert {passage["index"] for passage in hit.passages} == {"words"}
    searcher.close()
