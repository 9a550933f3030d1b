"""Terms, BM25 as an inner product, and statistics of terms."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.core.analysis import LANGUAGES, Analyzer
from driftline.core.errors import PartlyUnavailable
from driftline.core.limits import MAX_STATISTICS_BYTES
from driftline.core.vectors import Sparse
from driftline.retrieval import term_statistics
from driftline.retrieval.lexical import MAX_TERMS_PER_TEXT, Bm25, document_weights, read_statistics
from driftline.retrieval.term_statistics import MAX_TERMS, Statistics
from driftline.retrieval.terms import Terms, stop_words, term_of

WORDS = st.sampled_from("red blue shoes hats running runner the of a warm cold house houses".split())  # noqa: SIM905
ROW = (
    [486738943, 803532509, 1168149181, 2403462326, 2424286272, 2950888678],
    [1.6248, 1.6248, 1.6248, 1.6248, 1.6248, 1.6248],
)
TEXT = st.lists(WORDS, max_size=30).map(" ".join)


def terms(text: str, **changes: object) -> list[int]:
    return Terms(Analyzer.model_validate(changes)).of(text)


def same(text: str, *words: str, **changes: object) -> bool:
    return terms(text, **changes) == [term_of(word) for word in words]


def test_english_words_are_stems_without_stop_words() -> None:
    assert same("The Runners were running; don't run!", "runner", "run", "run")
    assert same("house's Houses", "hous", "hous")


def test_what_an_analyzer_leaves_alone() -> None:
    assert same("The Runners run", "the", "runners", "run", language="none")
    assert same("The Runners run", "the", "runner", "run", stop_words=False)
    assert same("The Runners run", "runners", "run", stemming=False)


def test_accents_full_width_and_case_are_folded() -> None:
    assert same("Café ＣＡＦＥ́ café", "cafe", "cafe", "cafe", language="none")
    assert same("Straße Ærø Łódź", "strasse", "aero", "lodz", language="none")


def test_accents_that_make_another_letter_stay() -> None:
    assert same("мой", "мой", language="none")
    assert same("हिन्दी", "हिन्दी", language="none"), "signs of vowels are parts of a word"


def test_turkish_has_two_letters_i() -> None:
    assert terms("DIŞ İYİ", language="turkish", stemming=False) == terms("dış iyi", language="turkish", stemming=False)


def test_german_umlauts_are_stemmed_before_they_are_folded() -> None:
    assert terms("Häuser", language="german") == terms("Haus", language="german")


def test_what_is_written_without_spaces_becomes_n_grams() -> None:
    assert same("東京都", "東京", "京都", language="none")
    assert same("東京タワーabc", "東京", "京タ", "タワ", "ワー", "abc", language="none")
    assert same("猫", "猫", language="none")
    assert same("東京都", "東", "京", "都", language="none", ngrams=1)
    assert len(terms("ภาษาไทย", language="none")) == len("ภาษาไทย") - 1


def test_code_and_numbers_are_words() -> None:
    assert same("os.path.join(x_1, 3.14)", "os", "path", "join", "x", "1", "3", "14", language="none")


def test_every_language_is_known_to_the_stemmer() -> None:
    for language in LANGUAGES:
        assert terms("word", language=language, stop_words=False)


def test_lists_of_stop_words_are_those_of_languages() -> None:
    assert "the" in stop_words("english")
    assert "und" in stop_words("german")
    assert stop_words("greek") == frozenset()


def test_long_words_are_cut_and_text_may_be_anything() -> None:
    assert terms("x" * 150, language="none") == [term_of("x" * 64)] * 2 + [term_of("x" * 22)]
    assert terms("\ud800 \x00 \U0010ffff") == []


@given(st.text(max_size=200))
def test_any_text_has_terms_and_the_same_ones_again(text: str) -> None:
    analyzer = Terms(Analyzer())
    assert analyzer.of(text) == analyzer.of(text) == terms(text)


def test_an_analyzer_is_used_by_many_threads_at_once() -> None:
    analyzer = Terms(Analyzer())
    text = " ".join(f"running{i} houses{i}" for i in range(500))
    expected, found = terms(text), []
    threads = [threading.Thread(target=lambda: found.append(analyzer.of(text))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


# BM25


def reference(texts: Sequence[str], query: str, analyzer: Analyzer) -> list[float]:
    """As the textbook has it, with the analyzer's average length."""
    split = [Counter(Terms(analyzer).of(text)) for text in texts]
    scores = []
    for counted in split:
        length, score = sum(counted.values()), 0.0
        for term, often in Counter(Terms(analyzer).of(query)).items():
            n = sum(term in other for other in split)
            idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            tf = counted[term]
            norm = tf + analyzer.k1 * (1 - analyzer.b + analyzer.b * length / analyzer.average_length)
            score += often * idf * tf * (analyzer.k1 + 1) / norm if tf else 0.0
        scores.append(score)
    return scores


@given(st.lists(TEXT, min_size=1, max_size=8), TEXT, st.floats(0, 3), st.floats(0, 1), st.floats(1, 100))
@settings(max_examples=80, deadline=None)
def test_the_inner_product_is_bm25(texts: list[str], query: str, k1: float, b: float, average: float) -> None:
    analyzer = Analyzer(k1=k1, b=b, average_length=average)
    bm25 = Bm25(analyzer)
    rows = bm25.document_weights(texts)
    statistics = Statistics.of(rows, len(texts))
    found = rows.dot(bm25.query_weights(query, statistics))
    assert found == pytest.approx(reference(texts, query, analyzer), rel=1e-4, abs=1e-5)


def test_a_text_without_terms_is_an_empty_row() -> None:
    rows = Bm25(Analyzer()).document_weights(["", "the of", "shoes"])
    assert np.diff(rows.starts).tolist() == [0, 0, 1]
    assert len(Bm25(Analyzer()).query_weights("the", Statistics.none()).terms) == 0


def test_a_row_is_bounded_and_keeps_what_counts_most() -> None:
    text = " ".join([f"w{i}" for i in range(MAX_TERMS_PER_TEXT + 500)] + ["often"] * 50)
    row = Bm25(Analyzer(language="none")).document_weights([text])
    assert len(row.terms) == MAX_TERMS_PER_TEXT
    assert row.is_well_formed()
    assert term_of("often") in row.terms


def test_another_analyzer_is_another_space() -> None:
    spaces = [Analyzer().space(), Analyzer(k1=1.3).space(), Analyzer(language="german").space()]
    assert len({space.fingerprint for space in spaces}) == 3
    assert Analyzer.model_validate("english").space() == spaces[0]
    assert {space.kind for space in spaces} == {"sparse"}


def test_the_space_of_the_default_analyzer_never_changes() -> None:
    """If this fails, terms or weights are made in another way: raise `analysis.VERSION`, and only then this line."""
    assert Analyzer().space().fingerprint == "e33c92c9fe0640296cb285de9fc22a7c"
    row = Bm25(Analyzer()).document_weights(["The runners' houses are warm: 東京都, café."])
    assert (row.terms.tolist(), [round(w, 4) for w in row.weights.tolist()]) == ROW


def test_an_analyzer_of_another_version_waits() -> None:
    space = Analyzer().space()
    assert len(document_weights(space, ["shoes"]).terms) == 1
    for other in (space.analyzer.replace('"version":1', '"version":2'), "{}", "[", '{"version":1,"analyzer":{"x":1}}'):
        with pytest.raises(PartlyUnavailable, match="analyzer"):
            document_weights(replace(space, analyzer=other), [])


# Statistics

ROWS = st.lists(st.sets(st.integers(0, 50), max_size=10), min_size=1, max_size=30)


@given(ROWS, st.integers(1, 5))
def test_statistics_count_rows_and_come_back_from_bytes(rows: list[set[int]], times: int) -> None:
    sample = [Sparse.of([dict.fromkeys(row, 1.0)]) for row in rows]
    found = Statistics.from_bytes(Statistics.of(sample, times * len(rows)).to_bytes())
    assert (found.documents, found.rows) == (times * len(rows), times * len(rows))
    counted = Counter(term for row in rows for term in row)
    assert dict(zip(found.terms.tolist(), found.counts.tolist(), strict=True)) == {
        term: count * times for term, count in counted.items()
    }


def test_rare_terms_weigh_more_and_unknown_ones_as_the_rarest() -> None:
    sample = [Sparse.of([{1: 1.0, 2: 1.0}]), Sparse.of([{1: 1.0}]), Sparse.of([{1: 1.0}])]
    often, once, never = Statistics.of(sample, 3).idf(np.array([1, 2, 9], dtype=np.uint32))
    assert often < once == never
    assert often == pytest.approx(math.log(1 + 0.5 / 3.5), rel=1e-5)


def test_a_document_has_as_many_rows_as_chunks() -> None:
    """Two documents of three chunks each, of ten: 30 rows, and a term that is in two of six is in ten of them."""
    sample = [Sparse.of([{1: 1.0}, {2: 1.0}, {3: 1.0}]), Sparse.of([{1: 1.0}, {3: 1.0}, {3: 1.0}])]
    found = Statistics.of(sample, 10)
    assert (found.documents, found.rows) == (10, 30)
    assert dict(zip(found.terms.tolist(), found.counts.tolist(), strict=True)) == {1: 10.0, 2: 5.0, 3: 15.0}


def test_nothing_is_known_of_an_empty_index() -> None:
    assert Statistics.of([], 0).idf(np.array([1, 2], dtype=np.uint32)).tolist() == [1.0, 1.0]
    assert Statistics.from_bytes(b"").rows == 0


def test_only_the_most_frequent_terms_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_statistics, "MAX_TERMS", 3)
    sample = [Sparse.of([dict.fromkeys(range(i), 1.0)]) for i in range(1, 8)]
    found = Statistics.of(sample, 7)
    assert found.terms.tolist() == [0, 1, 2]
    assert found.unlisted == pytest.approx((4**2 + 3**2 + 2**2 + 1) / (4 + 3 + 2 + 1)), "as those left out"


def test_the_largest_statistics_fit_a_record() -> None:
    largest = Statistics(
        10**9, 10**9, 1.0, np.arange(MAX_TERMS, dtype=np.uint32), np.ones(MAX_TERMS, np.float32)
    ).to_bytes()
    assert len(largest) <= MAX_STATISTICS_BYTES
    assert Statistics.from_bytes(largest).rows == 10**9


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"x" * 28,
        b"DTS2" + bytes(20) + b"\x01\x00\x00\x00",
        b"DTS2" + bytes(20) + b"\xff" * 4,
        b"DTS2" + bytes(16),
    ],
)
def test_other_bytes_are_no_statistics(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected statistics"):
        Statistics.from_bytes(content)
    assert read_statistics(content).rows == 0


@given(st.binary(max_size=120))
def test_any_bytes_are_statistics_or_refused(content: bytes) -> None:
    statistics = read_statistics(b"DTS2" + content)
    assert np.isfinite(statistics.idf(np.array([1, 2**32 - 1], dtype=np.uint32))).all()
