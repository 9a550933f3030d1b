"""The lanes beside the fresh changes: the same stage, on what those leave over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from driftline.core.deferral import deferred
from driftline.core.errors import InvalidRecord
from driftline.core.records import Clock, Incoming, now_us
from driftline.core.stage import Processed, Result
from driftline.core.troubles import LONGEST_US
from driftline.encode.stage import Change, EncodeStage
from driftline.encode.stage import decode as decode_change

# A batch of changes whose time has not come is looked at again this often.
_LOOK_AGAIN_SECONDS = 5.0


class YieldingStage:
    """Starts a batch only while nothing that goes before it is `busy`, or after `patience_seconds` all the same: under
    changes that never pause, what waits here is slow but comes to an end."""

    def __init__(self, stage: EncodeStage, busy: Callable[[], bool], patience_seconds: float) -> None:
        self._stage = stage
        self._busy = busy
        self._patience = patience_seconds
        self._rest = threading.Event()

    def reset(self) -> None:
        self._stage.reset()

    def process(self, batch: Sequence[Change]) -> Processed:
        self._give_way()
        return self._stage.process(batch)

    def reject(self, item: Change, error: InvalidRecord) -> Processed:
        return self._stage.reject(item, error)

    def _give_way(self) -> None:
        begun = time.monotonic()
        while self._busy() and time.monotonic() - begun < self._patience:
            self._rest.wait(0.02)


class DeferredStage(YieldingStage):
    """Changes that were put off. Those whose time has come are embedded; the others go to the end of the queue, so that
    a collection which cannot be written for hours never stands before one that can."""

    def __init__(
        self, stage: EncodeStage, busy: Callable[[], bool], patience_seconds: float, clock: Clock = now_us
    ) -> None:
        super().__init__(stage, busy, patience_seconds)
        self._clock = clock

    def process(self, batch: Sequence[Change]) -> Processed:
        first = min(self._remaining_us(change) for change in batch)
        self._rest.wait(min(_LOOK_AGAIN_SECONDS, first / 1e6))
        is_due = [self._remaining_us(change) == 0 for change in batch]
        due = [change for change, now in zip(batch, is_due, strict=True) if now]
        if due:
            self._give_way()
        answers = iter(self._stage.process(due).results if due else ())
        return Processed([next(answers) if now else self._again(c) for c, now in zip(batch, is_due, strict=True)])

    def _remaining_us(self, change: Change) -> int:
        """Until it is due. A time that lies further ahead than any pause is no time of ours: it is due at once."""
        remaining = max(0, change.event.not_before_us - self._clock())
        return remaining if remaining <= LONGEST_US else 0

    @staticmethod
    def _again(change: Change) -> Result:
        event = change.event
        return (
            deferred(
                event,
                event.version,
                event.origin or change.position,
                change.position.partition,
                event.not_before_us,
                change.headers,
            ),
        )


def decode_deferred(record: Incoming) -> Change:
    """Raises InvalidRecord; also of a change without a version: its position here would give it a wrong one."""
    change = decode_change(record)
    if not change.event.version or change.event.origin is None:
        raise InvalidRecord("undecodable", "a change that was put off needs its version and its first position")
    return change
