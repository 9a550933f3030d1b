"""Merging what several generations found: which copy of a document counts."""

from __future__ import annotations

from driftline.core.records import Carry
from driftline.core.store import Hit
from driftline.drift.merge import merge
from driftline.retrieval.leg_search import group
from tests.unit.test_engine import NEW, TITLES, World


def hit(key: str, version: int, score: float, chunk: int = 0, leg: int = 0) -> Hit:
    return Hit(key, key, version, chunk, score, f"{key} v{version}", b"{}", leg)


def test_a_chunk_of_an_older_version_never_counts_however_well_it_scores() -> None:
    found = group([hit("a", 1, 0.9, 3), hit("b", 1, 0.8), hit("a", 2, 0.4)])
    assert [(h.id, h.version) for h in found] == [("b", 1), ("a", 2)]


def test_of_a_documents_chunks_the_best_one_counts() -> None:
    """A store answers best first."""
    assert [(h.chunk, h.score) for h in group([hit("a", 1, 0.7, 1), hit("a", 1, 0.2, 0)])] == [(1, 0.7)]


def test_the_newer_generations_copy_counts_though_its_score_is_lower() -> None:
    older, newer = hit("a", 1, 0.9, leg=1), hit("a", 1, 0.3)
    for found in ([older, newer], [newer, older]):
        assert merge(found, {"a": 1}) == [newer]


def test_an_older_version_is_no_hit_though_the_newer_one_was_not_found() -> None:
    assert merge([hit("a", 1, 0.9), hit("b", 1, 0.2)], {"a": 2}) == [hit("b", 1, 0.2)]


def test_a_document_counts_once_and_its_newest_version_wins() -> None:
    found = [hit("a", 1, 0.9), hit("a", 2, 0.3, leg=1), hit("b", 5, 0.8, leg=1), hit("b", 5, 0.5), hit("c", 1, 0.7)]
    merged = merge(found, {"c": 2, "a": 2})
    assert [(h.key, h.leg, h.score) for h in merged] == [("b", 0, 0.5), ("a", 1, 0.3)]


def test_one_generation_passes_through_unchanged() -> None:
    found = [hit(f"k{i}", 1, 1 - i / 10) for i in range(10)]
    assert merge(found, {}) == found


def test_the_older_generations_copy_does_not_stand_in_for_one_that_the_newer_ranks_too_low() -> None:
    """The newest encoder finds the document unlike the query: that the older one finds it like it does not count."""
    world = World(Carry.OWN, Carry.OWN)
    wanted, others = TITLES[0], TITLES[1:]
    texts = {wanted: "nothing of the kind"} | dict.fromkeys(others, "quite another thing")
    original = NEW._one
    NEW._one = lambda text: original(texts.get(text, text))  # type: ignore[method-assign]
    try:
        world.put(2, TITLES)
        found = [id for id, _ in world.find(f"{wanted} quite", needed=1)]
    finally:
        NEW._one = original  # type: ignore[method-assign]
    assert len(found) == 1
    assert wanted not in found
