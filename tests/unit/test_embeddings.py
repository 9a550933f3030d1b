"""The vectors of texts: cached ones, equal ones, refused ones, and those that did not get through."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from driftline.adapters.memory import MemoryCache, MemoryEmbedder
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.keys import document_embedding
from driftline.core.ports import EmbedAnswer
from driftline.core.records import Priority, Space
from driftline.retrieval.embeddings import CachedEncoder, TextEncoder, directly


class Asking:
    """An encoder that notes what it is asked, and that one request may not get through to."""

    def __init__(self) -> None:
        self.embedder = MemoryEmbedder()
        self.space = self.embedder.describe("hashing")
        self.asked: list[list[str]] = []
        self.lost = ""
        self._through = directly(self.embedder, Priority.CHANGE)

    def __call__(self, space: Space, requests: Sequence[Sequence[str]]) -> list[EmbedAnswer]:
        self.asked += [list(request) for request in requests]
        answers = self._through(space, requests)
        return [
            Unavailable("triton", "lost") if self.lost in request else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


@pytest.fixture
def asking() -> Asking:
    return Asking()


def cached(asking: Asking, cache: MemoryCache, request_texts: int = 2) -> CachedEncoder:
    keep = partial(cache.set_many, ttl_seconds=60)
    return CachedEncoder(asking, cache, "embedding", document_embedding, keep, request_texts)


def test_each_text_has_its_own_vector_and_is_encoded_once(asking: Asking) -> None:
    texts = ["b b b", "a", "b b b", "c c", "a"]
    found = TextEncoder(asking, request_texts=2).encode(asking.space, texts)
    assert asking.asked == [["b b b", "c c"], ["a"]]
    for text, vector in zip(texts, found, strict=True):
        (alone,) = asking.embedder.embed("hashing", asking.space.fingerprint, [[text]])
        assert not isinstance(vector, InvalidRecord)
        assert not isinstance(alone, Exception)
        np.testing.assert_array_equal(vector, alone[0])


def test_of_a_refused_request_only_the_guilty_text_is_refused(asking: Asking) -> None:
    asking.embedder.refused_texts.add("poison")
    texts = ["a", "poison", "b", "c", "d"]
    found = TextEncoder(asking).encode(asking.space, texts)
    assert [isinstance(vector, InvalidRecord) for vector in found] == [text == "poison" for text in texts]


def test_what_the_cache_holds_is_not_encoded_and_what_is_encoded_is_kept(asking: Asking) -> None:
    cache = MemoryCache()
    first = cached(asking, cache).encode(asking.space, ["a", "b"])
    asking.asked.clear()
    second = cached(asking, cache).encode(asking.space, ["b", "a", "c"])
    assert asking.asked == [["c"]]
    np.testing.assert_array_equal(np.stack(second[:2]), np.stack(first[::-1]))  # type: ignore[arg-type]


def test_what_got_through_is_kept_although_the_rest_did_not(asking: Asking) -> None:
    cache = MemoryCache()
    asking.lost = "a"
    with pytest.raises(Unavailable):
        cached(asking, cache, request_texts=1).encode(asking.space, ["a", "b"])
    asking.lost, asking.asked = "", []
    assert len(cached(asking, cache).encode(asking.space, ["a", "b"])) == 2
    assert asking.asked == [["a"]]


def test_bytes_of_another_length_are_no_vector(asking: Asking) -> None:
    (found,) = cached(asking, MemoryCache()).encode(asking.space, ["a"], held=[b"\x00" * 7])
    assert not isinstance(found, InvalidRecord)
    assert asking.asked == [["a"]]
    assert found.shape == (asking.space.dimension,)


def test_refused_texts_are_not_kept(asking: Asking) -> None:
    cache = MemoryCache()
    asking.embedder.refused_texts.add("poison")
    for _ in range(2):
        (answer,) = cached(asking, cache).encode(asking.space, ["poison"])
        assert isinstance(answer, InvalidRecord)
    assert asking.asked == [["poison"], ["poison"]]
