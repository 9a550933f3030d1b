"""When refusals come in numbers: what one producer's flood may do, and what it may not.

A record that is refused is set aside alone, and a flood of them is nobody's problem but its producer's: records of
others go on. Two cases are different, and a `Breaker` tells them apart:

* a stage refuses records of *several* producers for reasons that may as well be its own or its encoder's fault
  (`InvalidRecord.suspect`): it stops before more are set aside;
* a source refuses most of its topic, whatever the reason: its mapping is wrong, or its producer is. It pauses alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from driftline.core.errors import DriftlineError, InvalidRecord

# Below so many records a share says nothing.
_FEWEST = 20


class Flooded(DriftlineError):
    """Too many records were refused: stopping before more of them are set aside."""


class Breaker:
    """Counts refusals over the last records. Used by one thread."""

    def __init__(self, limit: float, window: int, *, any_reason: bool = False, origins: int = 2) -> None:
        """Opens when more than `limit` (a share) of the last `window` records were refused, of at least `origins`
        different producers. Without `any_reason` only suspect refusals count."""
        self._limit = limit
        self._recent: deque[str | None] = deque(maxlen=window)
        self._fewest = max(_FEWEST, window // 10)
        self._any_reason = any_reason
        self._origins = origins

    def count(self, total: int, refused: Iterable[tuple[str, InvalidRecord]]) -> None:
        """Take a batch of `total` records, of which some were refused, each with its origin. Raises Flooded."""
        counted = [(origin, error) for origin, error in refused if self._any_reason or error.suspect]
        self._recent.extend([None] * (total - len(counted)))
        self._recent.extend(origin for origin, _ in counted)
        bad = [origin for origin in self._recent if origin is not None]
        if len(self._recent) < self._fewest or len(bad) <= self._limit * len(self._recent):
            return
        if counted and len(set(bad)) >= self._origins:
            raise Flooded(
                f"{len(bad) / len(self._recent):.0%} of the last {len(self._recent)} records were refused, over the "
                f"limit of {self._limit:.0%}; the last one because: {counted[-1][1]}"
            )
