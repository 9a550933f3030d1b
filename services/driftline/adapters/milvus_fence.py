"""The lease check right before a write leaves for Milvus, which has no conditional write."""

from __future__ import annotations

import threading
from typing import Any

from driftline.core.errors import Fenced
from driftline.core.ports import Guard


class Fence(threading.local):
    """What the write that runs on this thread may take, and the server's timestamp of its answer."""

    guard: Guard | None = None
    timestamp: int = 0
    # Milvus 2.3 answers a delete without a timestamp: then nothing tells when it is visible, until a later write.
    untimed: bool = False
    fenced: Fenced | None = None

    def answered(self, timestamp: int) -> None:
        self.untimed = timestamp == 0
        self.timestamp = max(self.timestamp, timestamp)

    def allowed(self, otherwise: float) -> float:
        """Seconds a write may take. pymilvus wraps what is raised under it: the original is kept."""
        if self.guard is None:
            return otherwise
        try:
            return min(otherwise, self.guard())
        except Fenced as error:
            self.fenced = error
            raise


# One for the process: pymilvus shares a connection, and so its stub, between clients of one address.
FENCE = Fence()


class _FencedCall:
    """A write RPC of pymilvus' stub, which it calls directly (upsert) or through `future` (delete)."""

    def __init__(self, call: Any, timeout_seconds: float) -> None:
        self._call = call
        self._timeout = timeout_seconds

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
        response = self._call(request, timeout=self._allowed(timeout), metadata=metadata)
        FENCE.answered(response.timestamp)
        return response

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
        pending = self._call.future(request, timeout=self._allowed(timeout), metadata=metadata)
        if pending.exception() is None:
            FENCE.answered(pending.result().timestamp)
        return pending

    def _allowed(self, timeout: float | None) -> float:
        allowed = FENCE.allowed(self._timeout)
        return min(timeout or allowed, allowed)


def guard_writes(stub: Any, timeout_seconds: float) -> None:
    """Check the lease as late as can be: after the request is serialised, right before it is sent.

    pymilvus spends milliseconds packing rows between its public call and the RPC; a process frozen there would
    write with a lease it no longer has. The deadline given to gRPC ends with the lease, so a request frozen later
    dies on the server.
    """
    if getattr(stub, "_driftline_guarded", False):
        return
    for name in ("Upsert", "Delete"):
        setattr(stub, name, _FencedCall(getattr(stub, name), timeout_seconds))
    stub._driftline_guarded = True
