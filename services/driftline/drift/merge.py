"""One ranking from several generations. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftline.core.store import Hit


def merge(found: Sequence[Hit], newest: Mapping[str, int]) -> list[Hit]:
    """Best first; each document once. Scores are on the newest leg's scale.

    `newest` is the highest version known of a document in any generation: an older copy never counts. Of two copies of
    the newest version the newer generation's counts, whatever the scores say: its score needs no map.
    """
    best: dict[str, Hit] = {}
    for hit in found:
        if hit.version < newest.get(hit.key, hit.version):
            continue
        known = best.get(hit.key)
        if known is None or (hit.version, -hit.leg) > (known.version, -known.leg):
            best[hit.key] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.key))
