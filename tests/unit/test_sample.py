"""What a compensation is fitted on and judged by."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from driftline.core.records import document_key
from driftline.core.store import StoredDocument, StoreTarget
from driftline.upgrade.sample import fetch, pseudo_query
from tests.unit.upgrading import TITLES, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_pseudo_queries_are_words_of_their_text() -> None:
    rng = random.Random(1)
    text = " ".join(f"w{i}" for i in range(100))
    for _ in range(100):
        words = pseudo_query(text, rng).split()
        assert 2 <= len(words) <= 12
        assert set(words) <= set(text.split())
    assert pseudo_query("one", rng) == "one"


def test_documents_that_one_read_misses_are_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is not there between a delete and the write after it, where both come several times a second."""
    target, seen = world.now.target(world.now.primary.generation(1), world.old.space), set[str]()
    read = world.store.fetch

    def first_in_vain(target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        known = [key for key in keys if key in seen]
        seen.update(keys)
        return read(target, known, with_vectors)

    monkeypatch.setattr(world.store, "fetch", first_in_vain)
    keys = [document_key("", title) for title in TITLES]
    assert [document.key for document in fetch(world.store, target, [*keys, "no such key"])] == keys
