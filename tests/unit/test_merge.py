"""Merging what several generations found: which copy of a document counts."""

from __future__ import annotations

from driftline.core.records import Carry, ChunkHit
from driftline.drift.merge import Ranked, merge
from driftline.retrieval.generations import group
from tests.unit.test_generations import NEW, TITLES, World


def hit(key: str, version: int, score: float, chunk: int = 0) -> ChunkHit:
    return ChunkHit(key, key, version, chunk, score, f"{key} v{version}", b"{}")


def test_a_chunk_of_an_older_version_never_counts_however_well_it_scores() -> None:
    found = group([hit("a", 1, 0.9, 3), hit("b", 1, 0.8), hit("a", 2, 0.4)])
    assert [(h.id, h.version) for h in found] == [("b", 1), ("a", 2)]


def test_of_a_documents_chunks_the_best_one_counts() -> None:
    """A store answers best first."""
    assert [(h.chunk, h.score) for h in group([hit("a", 1, 0.7, 1), hit("a", 1, 0.2, 0)])] == [(1, 0.7)]


def test_the_newer_generations_copy_counts_though_its_score_is_lower() -> None:
    older, newer = Ranked("a", 1, -1, 0.9), Ranked("a", 1, 0, 0.3)
    for found in ([older, newer], [newer, older]):
        assert merge(found, {"a": 1}) == [newer]


def test_an_older_version_is_no_hit_though_the_newer_one_was_not_found() -> None:
    assert merge([Ranked("a", 1, 0, 0.9), Ranked("b", 1, 0, 0.2)], {"a": 2}) == [Ranked("b", 1, 0, 0.2)]


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
