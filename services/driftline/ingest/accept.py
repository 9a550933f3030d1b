"""Taking change events: the bound, the log, and waiting for receipts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from driftline.core import codec, metrics
from driftline.core.control import ControlView
from driftline.core.errors import Overloaded
from driftline.core.logs import TRACE_HEADER, current_traceparent
from driftline.core.ports import Publisher
from driftline.core.receipts import ReceiptTail
from driftline.core.records import ChangeEvent, Outgoing, Position, Receipt, record_key
from driftline.core.topics import CHANGES
from driftline.ingest.quota import Quotas


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that Kafka has. `version` is the given one, or the one its position assigns."""

    position: Position
    version: int
    receipt: Receipt | None = None

    def as_json(self, document_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": document_id,
            "token": self.position.token(),
            "version": self.version,
            "state": "accepted",
        }
        if self.receipt is not None:
            body["state"] = self.receipt.outcome.name.lower()
            if self.receipt.reason:
                body["reason"] = self.receipt.reason
                body["detail"] = self.receipt.detail
            if self.receipt.superseded_by:
                body["superseded_by"] = self.receipt.superseded_by
        return body


def outgoing(event: ChangeEvent) -> Outgoing:
    """The record of an event, under the current trace."""
    key = record_key(event.collection_uid, event.tenant, event.id)
    trace = current_traceparent()
    headers = ((TRACE_HEADER, trace.encode()),) if trace else ()
    return Outgoing(CHANGES.name, key, codec.encode_change(event), headers=headers)


class Acceptor:
    """Thread-safe."""

    def __init__(
        self, view: ControlView, publisher: Publisher, tail: ReceiptTail, max_pending: int, quotas: Quotas
    ) -> None:
        self._view = view
        self._publisher = publisher
        self._tail = tail
        self._max_pending = max_pending
        self._quotas = quotas
        self._pending = 0
        self._lock = threading.Lock()

    def accept(self, events: Sequence[ChangeEvent], *, paced: bool = False) -> list[Accepted]:
        """Return when Kafka has them all. Raises Overloaded (nothing was taken) and Unavailable (some may be).

        `paced` is for who sends many and rests for `ahead_seconds` in between; others are told to come back later.
        """
        if not paced and (seconds := self._quotas.ahead_seconds(events)):
            metrics.EVENTS_REFUSED.labels("over_quota").inc()
            raise Overloaded("the tenant writes faster than ingest.tenant_documents_per_second", seconds)
        with self._lock:
            if self._pending + len(events) > self._max_pending:
                metrics.EVENTS_REFUSED.labels("overloaded").inc()
                raise Overloaded(f"{self._pending} events wait for Kafka; the bound is {self._max_pending}")
            self._pending += len(events)
        try:
            base = self._view.log_base(CHANGES.name)
            placed = self._publisher.publish([outgoing(event) for event in events])
        finally:
            with self._lock:
                self._pending -= len(events)
        self._quotas.charge(events)
        for (operation, source), count in Counter((event.operation, event.source) for event in events).items():
            metrics.EVENTS.labels(operation.name.lower(), source.partition(":")[0]).inc(count)
        return [
            Accepted(Position(partition, offset), event.version or base + offset)
            for event, (partition, offset) in zip(events, placed, strict=True)
        ]

    def ahead_seconds(self, events: Sequence[ChangeEvent]) -> float:
        """How long the sender of these should rest before it sends more."""
        return self._quotas.ahead_seconds(events)

    def wait(self, accepted: Accepted, timeout_seconds: float) -> Accepted:
        """With the event's receipt, when it comes in time."""
        receipt = self._tail.wait(accepted.position, timeout_seconds)
        return accepted if receipt is None else Accepted(accepted.position, receipt.version, receipt)

    def receipt(self, position: Position) -> Receipt | None:
        """Raises ValueError for a position that no event can have."""
        self._tail.check(position)
        return self._tail.wait(position, 0)
