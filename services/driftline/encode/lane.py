"""The lane of backfills: the same stage, on what fresh changes leave over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from driftline.core.runner import Processed
from driftline.encode.stage import Change, EncodeStage


class YieldingStage:
    """Starts a batch only while no fresh change is being embedded, or after `patience_seconds` all the same: under
    changes that never pause, a backfill is slow but comes to an end."""

    def __init__(self, stage: EncodeStage, busy: Callable[[], bool], patience_seconds: float) -> None:
        self._stage = stage
        self._busy = busy
        self._patience = patience_seconds
        self._rest = threading.Event()

    def reset(self) -> None:
        self._stage.reset()

    def process(self, batch: Sequence[Change]) -> Processed:
        begun = time.monotonic()
        while self._busy() and time.monotonic() - begun < self._patience:
            self._rest.wait(0.02)
        return self._stage.process(batch)
