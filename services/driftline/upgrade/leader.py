"""Who leads: the one member of the group that owns the control topic's only partition."""

from __future__ import annotations

import logging

from driftline.core.health import Health
from driftline.core.ports import Subscriber
from driftline.core.worker import Worker

log = logging.getLogger(__name__)
# A step may write for some seconds after it was asked whether it leads.
_MARGIN_SECONDS = 1.0


class Leader:
    """Keeps the membership in the background; reads nothing."""

    def __init__(self, subscriber: Subscriber, health: Health) -> None:
        self._subscriber = subscriber
        self._health = health
        self._owns = False
        self._worker = Worker("leader", lambda: subscriber.poll(1, 0.25))

    def start(self) -> None:
        self._subscriber.pause()
        self._worker.start()

    def leading(self) -> bool:
        return self._owns and self._subscriber.lease_seconds() > _MARGIN_SECONDS

    def close(self) -> None:
        if self._worker.close():
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
