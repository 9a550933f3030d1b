from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.core.errors import InvalidRecord
from driftline.core.indexes import Chunking
from driftline.retrieval.chunking import chunk, sentence_spans, windows


def words(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"\w+", text)]


def test_sentences_are_found_without_their_outer_space() -> None:
    text = "One two.  Three!\n\nFour? Five"
    assert [text[a:b] for a, b in sentence_spans(text)] == ["One two.", "Three!", "Four?", "Five"]


def test_windows_overlap_by_whole_sentences() -> None:
    text = " ".join(f"a{i} b{i} c{i} d{i} e{i}." for i in range(10))
    chunking = Chunking(mode="sentences", max_tokens=22, overlap_tokens=5)
    found = windows(text, chunking, 512, words)
    assert all(len(words(w)) <= 20 for w in found)
    assert all(second.startswith(first.split(". ")[-1]) for first, second in itertools.pairwise(found))


def test_a_sentence_over_the_limit_is_cut_between_tokens() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    found = windows(text, Chunking(mode="sentences", max_tokens=32, overlap_tokens=0), 512, words)
    assert [len(words(w)) for w in found] == [30, 30, 30, 10]


def test_whole_is_one_chunk() -> None:
    assert chunk("a. b. c.", Chunking(), 256, words) == ["a. b. c."]


def test_too_many_chunks_are_refused() -> None:
    chunking = Chunking(mode="sentences", max_tokens=16, overlap_tokens=0, max_chunks=2)
    with pytest.raises(InvalidRecord, match="too_many_chunks"):
        chunk("word " * 200, chunking, 256, words)


@given(st.text(st.sampled_from("ab .!?\n"), max_size=300), st.integers(16, 40), st.integers(0, 8))
@settings(max_examples=300, deadline=None)
def test_every_word_is_in_a_chunk_in_order_and_no_chunk_is_over_the_limit(text: str, limit: int, overlap: int) -> None:
    chunking = Chunking(mode="sentences", max_tokens=limit, overlap_tokens=overlap)
    found = windows(text, chunking, 512, words)
    assert all(len(words(w)) <= limit - 2 for w in found)
    covered: set[int] = set()
    start = 0
    for window in found:
        start = text.index(window, start)
        covered.update(range(start, start + len(window)))
    assert all(set(range(*span)) <= covered for span in words(text))
