"""Several indexes of one collection: written by one event, deleted at once, searched side by side and fused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.adapters.memory import MemoryCache, MemoryEmbedder, MemoryLogReader
from driftline.cli.verify import differences
from driftline.core import codec
from driftline.core.control import ControlWriter, statistics_record
from driftline.core.errors import InvalidRequest, NotFound, PartlyUnavailable, Unavailable
from driftline.core.receipts import ReceiptTail
from driftline.core.records import Generation, Outcome, document_key
from driftline.core.store import StoreTarget, WritePlan
from driftline.core.vectors import Sparse
from driftline.query.request import SearchBody, parse
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from driftline.retrieval.term_statistics import Statistics
from driftline.upgrade.statistics import StatisticsKeeper
from tests.build import a_change, a_collection, a_follower, publish_change
from tests.unit.test_pipeline import Pipeline
from tests.unit.upgrading import World

INDEXES = {
    "dense": {"encoder": "hashing", "fields": ["title", "body"]},
    "words": {"analyzer": "english", "fields": ["body"]},
    "kinds": {"analyzer": {"language": "none"}, "fields": ["kind"]},
}
ALL = [{"index": name} for name in INDEXES]
PROFILES = {
    "default": [{"search": {"of": [{"index": "dense"}, {"index": "words"}], "fuse": "rrf"}}],
    "everything": [{"search": {"of": ALL}}],
}


class Hybrid(Pipeline):
    """A collection of a dense and two lexical indexes."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(a_collection(indexes=INDEXES, profiles=PROFILES, **changes))
        self.tail = ReceiptTail(MemoryLogReader(self.log))
        section = QuerySection(adhoc_plans=True)
        self.searcher = Searcher(self.view, self.embedder, self.store, MemoryCache(), self.tail, section)

    def target(self, name: str) -> StoreTarget:
        generation = self.view.collection("things").index(name).complete
        return self.collection.target(generation, self.view.space(generation.space))

    def write(self, document: str, delete: bool = False, **fields: Any) -> None:
        publish_change(self.log, a_change(document, delete=delete, collection=self.collection, **fields))

    def search(self, **body: Any) -> list[str]:
        return [hit.id for hit in self.answer(**body).page.hits]

    def answer(self, **body: Any) -> Any:
        return self.searcher.search("things", body_of(**body))

    def held(self) -> dict[str, set[str]]:
        """The ids that each index has rows of."""
        return {name: self._held(self.target(name)) for name in INDEXES}

    def _held(self, target: StoreTarget) -> set[str]:
        return set() if self.store.count(target) is None else {i for _, i, _, _ in self.store.scan(target)}

    def close(self) -> None:
        self.searcher.close()


def body_of(**body: Any) -> SearchBody:
    return parse({"text": "shoes", **body})


@pytest.fixture
def p() -> Iterator[Hybrid]:
    made = Hybrid()
    made.write("a", title="red shoes", body="running in the rain", kind="shoe")
    made.write("b", title="blue hat", body="shoes are not hats")
    made.write("c", title="a green coat", kind="coat")
    made.drain()
    yield made
    made.close()


def test_a_document_is_in_the_indexes_that_it_has_something_for(p: Hybrid) -> None:
    assert p.held() == {"dense": {"a", "b", "c"}, "words": {"a", "b"}, "kinds": {"a", "c"}}
    assert {receipt.outcome for receipt in p.receipts()} == {Outcome.SEARCHABLE}


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


def test_a_delete_takes_a_document_out_of_every_index(p: Hybrid) -> None:
    p.write("a", delete=True)
    p.drain()
    assert all("a" not in ids for ids in p.held().values())
    with pytest.raises(NotFound):
        p.searcher.document("things", "a", None)


def test_an_index_loses_a_document_whose_new_version_has_nothing_for_it(p: Hybrid) -> None:
    p.write("a", title="red shoes")
    p.drain()
    assert p.held() == {"dense": {"a", "b", "c"}, "words": {"b"}, "kinds": {"c"}}
    assert p.search(index="kinds", text="shoe") == []


def test_an_older_event_never_brings_back_what_an_index_has_nothing_of_any_more(p: Hybrid) -> None:
    """The version is kept by the other indexes: what comes late is older than it, whatever this index holds."""
    late = [replace(r, offset=r.offset) for r in p.log.all("vectors") if codec.decode_vector(r.value).id == "a"]
    p.write("a", title="red shoes")
    p.drain()
    p.index.process([codec.decode_vector(r.value) for r in late])
    assert p.held()["words"] == {"b"}
    p.write("a", delete=True)
    p.drain()
    p.index.process([codec.decode_vector(r.value) for r in late])
    assert all("a" not in ids for ids in p.held().values())


def test_a_document_with_nothing_for_any_index_is_refused(p: Hybrid) -> None:
    p.write("d", year=1)
    p.drain()
    assert (p.receipts()[-1].outcome, p.receipts()[-1].reason) == (Outcome.REJECTED, "empty_text")


def test_an_event_that_was_encoded_before_an_index_is_embedded_again(p: Hybrid) -> None:
    """Without vectors for every index that is searched, it is put off, and comes again with all of them."""
    record = next(codec.decode_vector(r.value) for r in p.log.all("vectors"))
    short = replace(record, version=record.version + 1_000, vectors=record.vectors[:1])
    processed = p.index.process([short])
    (outgoing,) = (o for result in processed.results for o in result)
    assert outgoing.topic == "deferred"


def test_verify_tells_what_an_index_should_not_hold(p: Hybrid) -> None:
    log = {document_key("", e.id): e for r in p.log.all("documents") for e in [codec.decode_change(r.value)]}
    for name, index in p.collection.definition.named_indexes.items():
        assert differences(p.store, p.target(name), log, index) == []
    assert {i for _, i, _ in differences(p.store, p.target("words"), log)} == {"c"}


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


def test_statistics_make_rare_words_count_more_and_are_taken_again_when_the_index_grows() -> None:
    p = Hybrid()
    follower = a_follower(p.log, p.view)
    keeper = StatisticsKeeper(
        p.view, ControlWriter(p.publisher, follower), p.store, lambda: True, 1_000, 0.0, lambda: time.monotonic()
    )
    for i in range(30):
        p.write(f"d{i}", title="x", body="shoes " + ("helicopter" if i == 7 else "boots"))
    p.drain()
    keeper.turn()
    words = p.view.collection("things").index("words").complete
    first = p.view.statistics(p.collection.uid, words.number)
    assert Statistics.from_bytes(first).documents == 30
    assert p.search(index="words", text="boots helicopter")[0] == "d7"
    p.write("d30", title="x", body="one more")
    p.drain()
    keeper.turn()
    assert p.view.statistics(p.collection.uid, words.number) == first, "a thirtieth more is not worth a record"
    for i in range(31, 40):
        p.write(f"d{i}", title="x", body="some more")
    p.drain()
    keeper.turn()
    assert Statistics.from_bytes(p.view.statistics(p.collection.uid, words.number)).documents == 40
    follower.close()
    p.close()


def test_statistics_of_what_is_gone_are_forgotten() -> None:
    p = Hybrid()
    follower = a_follower(p.log, p.view)
    writer = ControlWriter(p.publisher, follower)
    writer.write([statistics_record("gone", 2, Statistics.of([Sparse.of([{1: 1.0}])], 1).to_bytes())])
    keeper = StatisticsKeeper(p.view, writer, p.store, lambda: True, 1_000, 0.0)
    keeper.turn()
    assert ("gone", 2) not in p.view.known_statistics()
    follower.close()
    p.close()


# Learned sparse vectors


def sparse_world() -> World:
    """A dense index and one of a sparse encoder; the view knows the spaces of both."""
    dense, sparse, better = (
        MemoryEmbedder(48),
        MemoryEmbedder(4_096, "terms", kind="sparse"),
        MemoryEmbedder(8_192, "more-terms", kind="sparse"),
    )
    indexes = {
        "dense": {"encoder": "hashing", "fields": ["title"]},
        "terms": {"encoder": "terms", "fields": ["title", "body"]},
    }
    return World([], {"indexes": indexes}, encoders=(dense, sparse, better))


def test_a_sparse_encoder_makes_an_index_like_any_other() -> None:
    world = sparse_world()
    publish_change(world.log, a_change("a", title="red shoes", body="for the rain"))
    publish_change(world.log, a_change("b", title="hats"))
    world.drain()
    searcher = world.a_searcher()
    answer = searcher.search("things", body_of(text="rain", index="terms"))
    assert ([hit.id for hit in answer.page.hits], answer.page.score_kind) == (["a"], "ip")
    again = searcher.search("things", body_of(text="rain", index="terms", limit=5))
    assert [hit.id for hit in again.page.hits] == ["a"], "also by what the cache holds"
    both = [{"search": {"of": [{"index": "dense"}, {"index": "terms"}]}}]
    assert searcher.search("things", body_of(text="red hats", plan=both)).page.hits[0].indexes.keys() == {
        "dense",
        "terms",
    }
    searcher.close()
    world.close()


def test_a_sparse_model_is_changed_without_a_map() -> None:
    world = sparse_world()
    for i in range(30):
        publish_change(world.log, a_change(f"d{i}", title=f"shoes number {i}"))
    world.drain()
    world.controller.start("things", "more-terms", {"index": "terms"})
    world.run_until("complete")
    assert world.state.decision == "wait"
    assert world.now.index("terms").routes[-1].generation == world.state.new
    searcher = world.a_searcher()
    found = searcher.search("things", body_of(text="number 7", index="terms")).page.hits
    assert found[0].id == "d7"
    searcher.close()
    world.close()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@given(EVENTS, st.randoms())
@settings(max_examples=60, deadline=None)
def test_after_any_history_every_index_holds_what_the_log_says(events: list[Any], random: Any) -> None:
    """Whatever is redelivered in between: each index has the newest version of what has something for it, no more."""
    p = Hybrid()
    expected: dict[str, dict[str, Any] | None] = {}
    for document, delete, title, body, kind in events:
        fields = {"title": "t"} if title or not (body or kind) else {}
        fields |= {"body": "some words"} if body else {}
        fields |= {"kind": "k"} if kind else {}
        p.write(document, delete=delete, **({} if delete else fields))
        expected[document] = None if delete else fields
        if random.random() < 0.4:
            p.drain()
            again = [codec.decode_vector(r.value) for r in p.log.all("vectors")]
            p.index.process(random.sample(again, min(3, len(again))))
    p.drain()
    for name, index in p.collection.definition.named_indexes.items():
        wanted = {i for i, fields in expected.items() if fields is not None and index.text_of(fields)}
        assert p.held()[name] == wanted, name
    p.close()


def test_a_generation_of_an_unknown_index_is_no_collection(p: Hybrid) -> None:
    from driftline.core.control import collection_record

    odd = replace(p.collection, generations=(*p.collection.generations, Generation(9, "nope", "s" * 32, "x")))
    before = p.view.collection("things")
    p.view.apply(collection_record(odd).value)
    assert p.view.collection("things") is before
