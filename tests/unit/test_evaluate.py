"""Ways of searching side by side."""

from __future__ import annotations

import pytest

from driftline.cli.evaluate import Ran, compared, read_way

QRELS = {f"q{i}": {f"d{i}": 1} for i in range(40)}
RIGHT = {query: [next(iter(grades)), "x"] for query, grades in QRELS.items()}
SECOND = {query: ids[::-1] for query, ids in RIGHT.items()}


def test_each_way_is_compared_with_the_first() -> None:
    first, second = compared({"a": Ran(SECOND, [1.0] * 40), "b": Ran(RIGHT, [2.0] * 40)}, QRELS)
    assert (first["ndcg@10"], second["ndcg@10"], second["queries"]) == (0.6309, 1.0, 40)
    assert (first["difference"], first["difference interval"]) == (None, None)
    assert second["difference"] == pytest.approx(0.3691)
    # Every query gains the same, so that the interval has no width.
    assert second["difference interval"] == (0.3691, 0.3691)
    assert second["ndcg@10 interval"] == (1.0, 1.0)
    assert (first["p50 ms"], second["p95 ms"], second["recall@100"], first["mrr"]) == (1.0, 2.0, 1.0, 0.5)


def test_a_query_without_an_answer_counts_as_nothing_found() -> None:
    half = {query: ids for query, ids in RIGHT.items() if int(query[1:]) < 20}
    (row,) = compared({"a": Ran(half, [1.0])}, QRELS)
    assert row["ndcg@10"] == 0.5
    low, high = row["ndcg@10 interval"]
    assert 0.3 < low < 0.5 < high < 0.7


def test_a_way_is_a_name_and_what_a_search_asks_for() -> None:
    assert read_way('re rank={"rerank": 50, "min_score": 0.5}') == ("re rank", {"rerank": 50, "min_score": 0.5})
    assert read_way("plain={}") == ("plain", {})


@pytest.mark.parametrize("text", ["", "name", "=", "={}", 'a={"text": "x"}', "a=[]", "a={", "a=1", "a=\udcff"])
def test_what_is_no_way_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="--way"):
        read_way(text)
