"""What stands in Redis: keys that show nothing, that never meet, and caches that answer for nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.adapters.memory import MemoryLogReader
from driftline.core import keys
from driftline.core.control import collection_record
from driftline.core.receipts import ReceiptTail
from driftline.query.request import parse
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from tests.build import a_change, a_collection, publish_change
from tests.client import until
from tests.unit.test_pipeline import Pipeline

Parts = tuple[str, ...]
# Few characters, so that parts often differ only in where one ends and the next begins.
PART = st.text(alphabet="a:/\x00\u00e9", max_size=4)
MADE: dict[str, tuple[Callable[..., str], st.SearchStrategy[tuple[Any, ...]]]] = {
    "document_embedding": (keys.document_embedding, st.tuples(PART, PART)),
    "query_embedding": (keys.query_embedding, st.tuples(PART, PART)),
    "result": (keys.result, st.tuples(PART, PART, PART, st.integers(0, 11))),
    "epoch": (keys.epoch, st.tuples(PART)),
}
ANY = st.sampled_from(sorted(MADE)).flatmap(lambda kind: st.tuples(st.just(kind), MADE[kind][1]))


@given(ANY, ANY)
def test_two_things_never_have_one_key(one: tuple[str, Parts], other: tuple[str, Parts]) -> None:
    made, made_too = (MADE[kind][0](*parts) for kind, parts in (one, other))
    assert (made == made_too) is (one == other)


@given(st.text(max_size=3_000), st.text(max_size=3_000))
def test_a_key_is_short_whatever_it_stands_for(space: str, text: str) -> None:
    for key in (keys.document_embedding(space, text), keys.query_embedding(space, text), keys.epoch(text)):
        assert re.fullmatch(r"[a-z]:[0-9a-f]{32}", key)


class World(Pipeline):
    """A collection with tenants, and searches in it."""

    def __init__(self) -> None:
        super().__init__(a_collection(name="shared", tenancy=True))
        self.tail = ReceiptTail(MemoryLogReader(self.log))
        self.tail.start()
        self.searcher = self.a_searcher(self.tail)

    def a_searcher(self, tail: ReceiptTail) -> Searcher:
        return Searcher(self.view, self.embedder, self.store, self.cache, tail, QuerySection())

    def write(self, tenant: str, document: str, title: str) -> None:
        publish_change(self.log, a_change(document, collection=self.collection, tenant=tenant, title=title))
        self.drain()

    def search(self, tenant: str, text: str = "red shoes", **more: Any) -> tuple[bool, list[str]]:
        """Whether the answer came from the cache, and the documents in it."""
        held = self.results()
        answer = self.searcher.search("shared", parse({"text": text, "tenant": tenant, **more}))
        if not answer.cached:
            until(lambda: self.results() != held, 5, every=0.005)
        return answer.cached, [hit.id for hit in answer.page.hits]

    def results(self) -> dict[str, bytes]:
        return {key: kept for key, kept in list(self.cache.items.items()) if key.startswith("p:")}

    def close(self) -> None:
        self.searcher.close()
        self.tail.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.write("acme", "mine", "red shoes of acme")
    made.write("rival", "theirs", "red shoes of rival")
    yield made
    made.close()


def test_an_answer_to_one_tenant_never_answers_another(world: World) -> None:
    assert world.search("acme") == (False, ["mine"])
    assert world.search("rival") == (False, ["theirs"])
    # Answers are cached behind the caller's back, a moment later.
    until(lambda: world.search("acme") == (True, ["mine"]), 10)
    until(lambda: world.search("rival") == (True, ["theirs"]), 10)
    assert world.search("nobody") == (False, [])
    # Tenants whose names with what follows or precedes them would read the same.
    assert world.search("acme", "red shoes rival") == (False, ["mine"])
    assert world.search("rival", "red shoes acme") == (False, ["theirs"])


def test_a_page_never_answers_for_another_page(world: World) -> None:
    world.write("acme", "more", "red shoes of acme too")
    pages = [world.search("acme", limit=1, offset=offset) for offset in (0, 1)]
    assert [cached for cached, _ in pages] == [False, False]
    assert pages[0][1] != pages[1][1]
    for offset, (_, found) in enumerate(pages):
        until(lambda o=offset, f=found: world.search("acme", limit=1, offset=o) == (True, f), 10)  # type: ignore[misc]


def test_a_write_outdates_answers_though_its_receipt_is_late(world: World) -> None:
    """index counts it in Redis under the key that query looks at; the tail here reads no receipts."""
    late = ReceiptTail(MemoryLogReader(world.log))
    world.searcher.close()
    world.searcher = world.a_searcher(late)
    assert world.search("acme") == (False, ["mine"])
    until(lambda: world.search("acme") == (True, ["mine"]), 10)
    world.write("acme", "more", "red shoes")
    assert world.search("acme")[0] is False


def test_a_collection_made_anew_is_not_answered_by_the_one_before(world: World) -> None:
    assert world.search("acme") == (False, ["mine"])
    world.view.apply(collection_record(replace(world.collection, deleted=True)).value)
    generation = replace(world.collection.generations[0], store="test_shared_u2_1")
    world.collection = replace(world.collection, uid="u2", generations=(generation,))
    world.view.apply(collection_record(world.collection).value)
    world.write("acme", "new", "blue shoes")
    assert world.search("acme") == (False, ["new"])


def test_nothing_that_was_written_or_searched_for_can_be_read_from_the_keys(world: World) -> None:
    world.search("acme", "a personal matter " * 500)
    assert world.cache.items
    for key in world.cache.items:
        assert re.fullmatch(r"[epqw]:[0-9a-f]{32}", key)
