"""Fusion: examples by hand, what holds for every kind, and the example of docs/fusion.md."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from driftline.core.errors import InvalidRequest
from driftline.retrieval.fusion import FUSIONS, Fusion, FusionSpec, Ranked, Ranking, Rrf
from driftline.retrieval.fusion.calibrated import Calibrated
from driftline.retrieval.fusion.dbsf import Dbsf
from driftline.retrieval.fusion.minmax import MinMax

PAGE = Path(__file__).resolve().parents[2] / "docs/fusion.md"
CALIBRATION = {"a": {"slope": 2.0, "intercept": -1.0}, "b": {"slope": 0.5, "intercept": 0.0}}
EVERY: list[Fusion] = [Rrf(), Rrf(k=1), MinMax(), Dbsf(), Calibrated(of=CALIBRATION)]
SPEC = TypeAdapter(FusionSpec)
SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e6, 1e6), max_size=8)


def a_ranking(name: str, scores: dict[str, float], weight: float = 1.0) -> Ranking:
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return Ranking(name, weight, [Ranked(key, score, rank) for rank, (key, score) in enumerate(ordered, 1)])


def fused(fusion: Fusion, *rankings: Ranking) -> dict[str, float]:
    return {one.key: one.score for one in fusion.fuse(rankings)}


def order(fusion: Fusion, *rankings: Ranking) -> list[str]:
    return [one.key for one in fusion.fuse(rankings)]


A = a_ranking("a", {"x": 0.9, "y": 0.8, "z": 0.1})
B = a_ranking("b", {"y": 12.0, "w": 4.0}, 2.0)


def test_reciprocal_ranks() -> None:
    expected = {"y": 1 / 62 + 2 / 61, "w": 2 / 62, "x": 1 / 61, "z": 1 / 63}
    assert fused(Rrf(), A, B) == pytest.approx(expected)
    assert order(Rrf(), A, B) == ["y", "w", "x", "z"]


def test_min_max() -> None:
    expected = {"x": 1 / 3, "y": (7 / 8) / 3 + 2 / 3, "z": 0.0, "w": 0.0}
    assert fused(MinMax(), A, B) == pytest.approx(expected)
    assert fused(MinMax(), a_ranking("a", {"x": 5.0, "y": 5.0})) == {"x": 1.0, "y": 1.0}


def test_distribution_based() -> None:
    mean, deviation = 2.0, math.sqrt(2 / 3)
    expected = {k: (s - mean) / (6 * deviation) + 0.5 for k, s in {"x": 3.0, "y": 2.0, "z": 1.0}.items()}
    assert fused(Dbsf(), a_ranking("a", {"x": 3.0, "y": 2.0, "z": 1.0})) == pytest.approx(expected)
    assert fused(Dbsf(), a_ranking("a", {"x": 5.0, "y": 5.0})) == {"x": 0.5, "y": 0.5}
    outlier = a_ranking("a", {f"d{i}": float(i) for i in range(100)} | {"far": 1e6})
    assert fused(Dbsf(), outlier)["far"] == 1.0


def test_calibrated_is_a_probability_and_what_was_not_found_is_no_better_than_the_last() -> None:
    found = fused(Calibrated(of=CALIBRATION), A, B)
    odds = {"x": (0.8 + 2 * 2.0) / 3, "y": (0.6 + 2 * 6.0) / 3, "z": (-0.8 + 2 * 2.0) / 3, "w": (-0.8 + 2 * 2.0) / 3}
    assert found == pytest.approx({key: 1 / (1 + math.exp(-value)) for key, value in odds.items()})
    with pytest.raises(InvalidRequest, match="'c' has no calibration"):
        Calibrated(of=CALIBRATION).fuse([a_ranking("c", {"x": 1.0})])


@pytest.mark.parametrize("fusion", EVERY, ids=lambda f: f.kind)
@given(a=SCORES, b=SCORES, weight=st.floats(0.01, 100))
def test_every_document_is_there_once_with_a_finite_score(
    fusion: Fusion, a: dict[str, float], b: dict[str, float], weight: float
) -> None:
    found = fusion.fuse([a_ranking("a", a), a_ranking("b", b, weight)])
    assert sorted(one.key for one in found) == sorted(a.keys() | b.keys())
    assert all(math.isfinite(one.score) for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("fusion", EVERY, ids=lambda f: f.kind)
@given(scores=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-50, 50).map(float), min_size=1, max_size=8))
def test_a_single_ranking_keeps_its_order(fusion: Fusion, scores: dict[str, float]) -> None:
    ranking = a_ranking("a", scores)
    found = fused(fusion, ranking)
    for better, worse in zip(ranking.hits, ranking.hits[1:], strict=False):
        assert found[better.key] >= found[worse.key]


@pytest.mark.parametrize("fusion", EVERY, ids=lambda f: f.kind)
@given(a=SCORES, b=SCORES)
def test_the_order_of_the_rankings_does_not_matter(fusion: Fusion, a: dict[str, float], b: dict[str, float]) -> None:
    rankings = [a_ranking("a", a), a_ranking("b", b)]
    assert fused(fusion, *rankings) == pytest.approx(fused(fusion, *rankings[::-1]))


@pytest.mark.parametrize("fusion", EVERY[:4], ids=lambda f: f.kind)
@given(
    scores=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-50, 50).map(float), max_size=8),
    factor=st.sampled_from([0.25, 2.0, 64.0]),
    constant=st.integers(-8, 8).map(float),
)
def test_the_scale_of_scores_does_not_matter(
    fusion: Fusion, scores: dict[str, float], factor: float, constant: float
) -> None:
    scaled = {key: factor * score + constant for key, score in scores.items()}
    assert fused(fusion, a_ranking("a", scaled)) == pytest.approx(fused(fusion, a_ranking("a", scores)))


@pytest.mark.parametrize("fusion", EVERY, ids=lambda f: f.kind)
def test_a_document_that_is_first_everywhere_is_first(fusion: Fusion) -> None:
    first = [a_ranking("a", {"x": 9.0, "y": 1.0}), a_ranking("b", {"x": 3.0, "z": 2.0})]
    assert order(fusion, *first)[0] == "x"


def test_nothing_of_nothing() -> None:
    assert [fusion.fuse([]) for fusion in EVERY] == [[]] * len(EVERY)
    assert [fusion.fuse([a_ranking("a", {})]) for fusion in EVERY] == [[]] * len(EVERY)


@pytest.mark.parametrize("spec", ["rrf", {"kind": "rrf", "k": 20}, "minmax", {"kind": "calibrated", "of": CALIBRATION}])
def test_a_fusion_is_read_by_its_name_and_written_with_its_settings(spec: Any) -> None:
    read = SPEC.validate_python(spec)
    written = SPEC.dump_python(read)
    assert written["kind"] == (spec if isinstance(spec, str) else spec["kind"])
    assert SPEC.validate_python(written) == read


@pytest.mark.parametrize(
    "spec", ["magic", "", None, 5, [], {}, {"k": 5}, {"kind": "rrf", "k": 0}, {"kind": "rrf", "x": 1}, {"kind": []},
             {"kind": "calibrated"}, {"kind": "minmax", "k": 5}],
)  # fmt: skip
def test_what_is_no_fusion_is_refused(spec: Any) -> None:
    with pytest.raises(ValidationError):
        SPEC.validate_python(spec)


def examples(page: Path, language: str) -> Sequence[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_the_page_is_a_fusion() -> None:
    """Adding one is a class and a line."""
    (source,) = examples(PAGE, "python")
    exec(compile(source, str(PAGE), "exec", dont_inherit=True), {"__name__": "example"})
    try:
        fusion = SPEC.validate_python("combmnz")
        assert order(fusion, A, B) == ["y", "x", "w", "z"]
        assert fused(fusion, A, B)["y"] == pytest.approx(2 * ((7 / 8) / 3 + 2 / 3))
    finally:
        FUSIONS.pop("combmnz", None)


def test_the_page_names_every_fusion() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in FUSIONS)
