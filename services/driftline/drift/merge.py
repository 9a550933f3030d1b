"""One ranking from several generations. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document as one generation found it; `score` is on the newest generation's scale."""

    key: str
    version: int
    generation: int
    score: float


def merge(found: Sequence[Ranked], newest: Mapping[str, int]) -> list[Ranked]:
    """Best first; each document once.

    `newest` is the highest version known of a document in any generation: an older copy never counts. Of two copies of
    the newest version the newer generation's counts, whatever the scores say: its score needs no map.
    """
    best: dict[str, Ranked] = {}
    for hit in found:
        if hit.version < newest.get(hit.key, hit.version):
            continue
        known = best.get(hit.key)
        if known is None or (hit.version, hit.generation) > (known.version, known.generation):
            best[hit.key] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.key))
