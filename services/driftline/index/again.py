"""Rows that were taken out are taken out once more: Milvus has lost deletes when it loads a segment.

Searches never show what is left (`VectorStore.search`); this removes it. docs/decisions/0017-lost-deletes.md
"""

from __future__ import annotations

from collections import deque

from driftline.core.store import WritePlan

# Segments are loaded when they are sealed, 5 s later for 50,000 rows, and when they are compacted, half a minute to
# minutes later.
_AFTER_US = (30_000_000, 600_000_000)
# About 20 MB; what is more is left to `driftline verify --repair`.
_MOST = 100_000


class TakenOut:
    """What one process took out of one store. It is forgotten when ownership changes: the new owner may have written
    rows of those numbers since. Used by one thread."""

    def __init__(self) -> None:
        self._waiting: tuple[deque[tuple[int, str, int]], ...] = tuple(deque(maxlen=_MOST) for _ in _AFTER_US)

    def note(self, plan: WritePlan, now_us: int) -> None:
        """`plan` was written: of each document, rows below a number were taken out."""
        ends = [(r.key, r.chunks) for r in plan.removals if r.chunks] + [(key, old) for key, _, old in plan.trims]
        self._waiting[0].extend((now_us, key, end) for key, end in ends)

    def due(self, now_us: int) -> dict[str, int]:
        """By key the number below which rows are to be taken out again, as far as the document does not have them."""
        found: dict[str, int] = {}
        for number, (waiting, after) in enumerate(zip(self._waiting, _AFTER_US, strict=True)):
            while waiting and waiting[0][0] + after <= now_us:
                entry = waiting.popleft()
                found[entry[1]] = max(entry[2], found.get(entry[1], 0))
                if number + 1 < len(self._waiting):
                    self._waiting[number + 1].append(entry)
        return found
