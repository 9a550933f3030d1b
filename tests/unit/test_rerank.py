"""Re-ranking old hits by the new model while an upgrade goes on."""

from __future__ import annotations

import pytest

from driftline.adapters.memory import MemoryLogReader
from driftline.core.errors import InvalidRequest
from driftline.core.receipts import ReceiptTail
from driftline.core.records import Priority, document_key
from driftline.query.request import parse
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from driftline.query.write_through import WriteThrough
from driftline.retrieval.leg_search import Wanted
from tests.unit.upgrading import TITLES, World, start


@pytest.fixture
def world() -> object:
    made = World()
    yield made
    made.close()


@pytest.fixture
def through(world: World) -> object:
    made = WriteThrough(world.store, world.publisher, world.view.space)
    yield made
    made.close()


@pytest.fixture
def searcher(world: World, through: WriteThrough) -> Searcher:
    start(world)
    world.run_until("backfilling")
    world.controller.pause("things", True)
    tail = ReceiptTail(MemoryLogReader(world.log))
    tail.start()
    return Searcher(world.view, world.encoders, world.store, world.cache, tail, QuerySection(), None, through)


TEXT = "green shoes wool cold"


def search(searcher: Searcher, **options: object) -> tuple[dict[str, float], int]:
    """Scores by id in the order of the answer, and how many hits were re-ranked."""
    answer = searcher.search("things", parse({"text": TEXT, "limit": 250, "explain": True, **options}))
    found = {hit.id: hit.score for hit in answer.page.hits}
    assert len(found) == len(answer.page.hits), "a document is there once"
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert answer.explain is not None
    ((of,),) = [step["of"] for step in answer.explain["steps"]]
    return found, of["reranked"]


def embedded(through: WriteThrough) -> set[str]:
    """The documents that searches had embedded."""
    keys = {key for _, _, key, _ in through._asked}
    return {title for title in TITLES if document_key("", title) in keys}


def test_old_hits_are_ranked_by_the_new_model_and_carried_over(
    world: World, searcher: Searcher, through: WriteThrough
) -> None:
    held = set(world.versions(2))
    world.new.priorities.clear()
    found, reranked = search(searcher, rerank=15)
    assert world.new.priorities == {Priority.SEARCH}
    done = embedded(through)
    assert len(done) == reranked == 15
    query = world.new._one(TEXT)
    for i in done:
        assert found[i] == pytest.approx(float(query @ world.new._one(i)), abs=1e-5), "the new generation's own score"
    through.flush()
    world.backfill()
    assert held.isdisjoint(done)
    assert done <= set(world.versions(2))
    assert world.versions(2).items() <= world.versions(1).items()


def test_the_second_half_is_looked_for_near_what_the_first_half_showed(
    world: World, searcher: Searcher, through: WriteThrough
) -> None:
    held = set(world.versions(2))
    _, none = search(searcher)
    assert none == 0
    _, reranked = search(searcher, rerank=40)
    as_found = [i for i in world.find(TEXT, Wanted(250, to_rerank=True)) if i not in held][:reranked]
    assert set(as_found[: reranked // 2]) <= embedded(through), "the first half are the best hits as found"
    assert embedded(through) - set(as_found), "the second half is more than what the first search found"


def test_what_was_not_embedded_comes_after_what_was(world: World, searcher: Searcher, through: WriteThrough) -> None:
    held = set(world.versions(2))
    found, reranked = search(searcher, rerank=9)
    assert reranked == 9
    places = {i: place for place, i in enumerate(found)}
    done = embedded(through)
    assert max(places[i] for i in done) < min(place for i, place in places.items() if i not in done | held)


def test_more_than_the_limit_is_refused(searcher: Searcher) -> None:
    with pytest.raises(InvalidRequest, match="rerank"):
        searcher.search("things", parse({"text": TEXT, "rerank": 500}))
