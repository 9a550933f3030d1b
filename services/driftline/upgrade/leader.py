"""Who leads: the one member of the group that owns the control topic's only partition."""

from __future__ import annotations

import logging
import threading

from driftline.core.errors import Unavailable
from driftline.core.health import Health
from driftline.core.ports import Subscriber

log = logging.getLogger(__name__)
# A step may write for some seconds after it was asked whether it leads.
_MARGIN_SECONDS = 1.0


class Leader:
    """Keeps the membership on a thread of its own; reads nothing."""

    def __init__(self, subscriber: Subscriber, health: Health) -> None:
        self._subscriber = subscriber
        self._health = health
        self._owns = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def leading(self) -> bool:
        return self._owns and self._subscriber.lease_seconds() > _MARGIN_SECONDS

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._subscriber.close()

    # What the subscriber calls, inside `poll`.

    def on_revoked(self) -> None:
        self._owns = False

    def on_lost(self) -> None:
        self._owns = False

    def on_assigned(self, partitions: int) -> None:
        self._owns = partitions > 0
        self._subscriber.pause()
        self._health.ready("assignment")
        log.info("leading" if self._owns else "standing by")

    def _run(self) -> None:
        self._subscriber.pause()
        while not self._stop.is_set():
            try:
                self._subscriber.poll(1, 0.25)
            except Unavailable as error:
                log.warning("the group cannot be reached", extra={"error": str(error)})
                self._stop.wait(1.0)
