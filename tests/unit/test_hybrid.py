"""Several indexes of one collection: written by one event, deleted at once, whatever is redelivered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.adapters.memory import MemoryEmbedder
from driftline.cli.verify import differences
from driftline.core import codec
from driftline.core.control import ControlWriter, statistics_record
from driftline.core.errors import NotFound
from driftline.core.records import Generation, Outcome, document_key
from driftline.core.vectors import Sparse
from driftline.retrieval.term_statistics import Statistics
from driftline.upgrade.statistics import StatisticsKeeper
from tests.build import a_change, a_collection, a_follower, publish_change
from tests.unit.hybrid import Hybrid, body_of, filled
from tests.unit.test_pipeline import Pipeline
from tests.unit.upgrading import World


@pytest.fixture
def p() -> Iterator[Hybrid]:
    made = filled()
    yield made
    made.close()


def test_a_document_is_in_the_indexes_that_it_has_something_for(p: Hybrid) -> None:
    assert p.held() == {"dense": {"a", "b", "c"}, "words": {"a", "b"}, "kinds": {"a", "c"}}
    assert {receipt.outcome for receipt in p.receipts()} == {Outcome.SEARCHABLE}


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


def test_an_index_of_many_chunks_is_not_counted_again_and_again() -> None:
    """As it would be if the chunks that were counted were compared with the documents that there are."""
    chunked = {"mode": "sentences", "max_tokens": 16, "overlap_tokens": 0}
    p = Pipeline(a_collection(indexes={"words": {"analyzer": "english", "fields": ["body"], "chunking": chunked}}))
    follower = a_follower(p.log, p.view)
    keeper = StatisticsKeeper(p.view, ControlWriter(p.publisher, follower), p.store, lambda: True, 1_000, 0.0)
    body = " ".join(f"Sentence {i} tells of shoes and hats and of a few other things." for i in range(6))
    for i in range(5):
        publish_change(p.log, a_change(f"d{i}", collection=p.collection, body=body))
    p.drain()
    keeper.turn()
    written = len(p.log.all("control"))
    keeper.turn()
    assert len(p.log.all("control")) == written
    known = Statistics.from_bytes(p.view.statistics(p.collection.uid, 1))
    assert (known.documents, known.rows) == (5, 30)
    follower.close()


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
