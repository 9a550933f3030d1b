"""A loop for every source, so that one source's trouble is its own: a topic that is not there yet, a collection that is
not, a producer that floods its topic with what cannot be taken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from driftline.core import metrics
from driftline.core.breaker import Flooded
from driftline.core.errors import Unavailable
from driftline.core.runner import Runner

log = logging.getLogger(__name__)
_REGISTER_AGAIN_SECONDS = 2.0


class SourceLoop:
    """Reads one source until it is stopped. After a flood of refusals it pauses, then reads on: at worst a window of
    records is set aside per pause, and whoever is told by the alert has that long to mend the mapping."""

    def __init__(
        self,
        topic: str,
        register: Callable[[], None],
        open_: Callable[[], tuple[Runner[Any], Callable[[], None]]],
        pause_seconds: float,
    ) -> None:
        """`register` notes the topic's log and raises Unavailable while there is none; `open_` gives a fresh runner and
        what closes its subscriber."""
        self.topic = topic
        self._register = register
        self._open = open_
        self._pause = pause_seconds
        self._stopping = threading.Event()
        self._runner: Runner[Any] | None = None

    def run(self) -> None:
        """Raises only what is a bug."""
        metrics.SOURCE_PAUSED.labels(self.topic).set(0)
        while not self._stopping.is_set():
            try:
                self._register()
                break
            except Unavailable as error:
                log.warning("source waits", extra={"topic": self.topic, "error": str(error)})
                self._stopping.wait(_REGISTER_AGAIN_SECONDS)
        while not self._stopping.is_set():
            try:
                self._read()
            except Flooded as error:
                log.error(
                    "source paused", extra={"topic": self.topic, "error": str(error), "pause_seconds": self._pause}
                )
                metrics.SOURCE_PAUSED.labels(self.topic).set(1)
                self._stopping.wait(self._pause)
                metrics.SOURCE_PAUSED.labels(self.topic).set(0)
            except Unavailable as error:
                log.warning("source waits", extra={"topic": self.topic, "error": str(error)})
                self._stopping.wait(_REGISTER_AGAIN_SECONDS)

    def _read(self) -> None:
        runner, close = self._open()
        self._runner = runner
        try:
            if not self._stopping.is_set():
                runner.run()
        finally:
            self._runner = None
            close()

    def stop(self) -> None:
        """Finish what is in flight, commit it, and return from `run`."""
        self._stopping.set()
        runner = self._runner
        if runner is not None:
            runner.stop()
