"""The lease check right before a write leaves for Milvus, which has no conditional write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from driftline.adapters.milvus.client import GrpcHandler
from driftline.core.ports import Guard


class Written:
    """What the writes of one `fence` came to."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        # The server's time of the last of them.
        self.timestamp = 0
        # Milvus 2.3 answers a delete without a timestamp: then nothing tells when it is visible, until a later write.
        self.untimed = False

    def seconds(self) -> float:
        """Seconds the next write may take. Raises Fenced."""
        return self._guard()

    def note(self, timestamp: int) -> None:
        self.untimed = timestamp == 0
        self.timestamp = max(self.timestamp, timestamp)


# One for the process: pymilvus shares a connection, and so its stub, between clients of one address.
_ON_THIS_THREAD = threading.local()


@contextmanager
def fence(guard: Guard) -> Iterator[Written]:
    """Have every write of this thread ask `guard`, as late as can be. pymilvus wraps what it raises in its own."""
    _ON_THIS_THREAD.written = written = Written(guard)
    try:
        yield written
    finally:
        del _ON_THIS_THREAD.written


class _FencedCall:
    """A write RPC of pymilvus' stub, which it calls directly (upsert) or through `future` (delete)."""

    def __init__(self, call: Any, timeout_seconds: float) -> None:
        self._call = call
        self._timeout = timeout_seconds

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
        response = self._call(request, timeout=self._allowed(timeout), metadata=metadata)
        self._note(response)
        return response

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
        pending = self._call.future(request, timeout=self._allowed(timeout), metadata=metadata)
        if pending.exception() is None:
            self._note(pending.result())
        return pending

    def _allowed(self, timeout: float | None) -> float:
        written: Written | None = getattr(_ON_THIS_THREAD, "written", None)
        allowed = self._timeout if written is None else min(self._timeout, written.seconds())
        return min(timeout or allowed, allowed)

    @staticmethod
    def _note(response: Any) -> None:
        written: Written | None = getattr(_ON_THIS_THREAD, "written", None)
        if written is not None:
            written.note(response.timestamp)


class _FencedHandler(GrpcHandler):  # type: ignore[misc]
    """pymilvus' connection, whatever stub it makes: it makes another one when it connects anew, in the middle of a
    call that it then tries again, and that try has to be guarded like the first."""

    fence_timeout_seconds: float

    @property
    def _stub(self) -> Any:
        return self.__dict__.get("_stub")

    @_stub.setter
    def _stub(self, stub: Any) -> None:
        self.__dict__["_stub"] = self._fenced(stub)

    def _fenced(self, stub: Any) -> Any:
        for name in ("Upsert", "Delete"):
            call = getattr(stub, name)
            if not isinstance(call, _FencedCall):
                setattr(stub, name, _FencedCall(call, self.fence_timeout_seconds))
        return stub


def guard_writes(handler: Any, timeout_seconds: float) -> None:
    """Check the lease as late as can be: after the request is serialised, right before it is sent.

    pymilvus spends milliseconds packing rows between its public call and the RPC; a process frozen there would
    write with a lease it no longer has. The deadline given to gRPC ends with the lease, so a request frozen later
    dies on the server.
    """
    if isinstance(handler, _FencedHandler):
        return
    handler.fence_timeout_seconds = timeout_seconds
    handler.__class__ = _FencedHandler
    handler._stub = handler.__dict__["_stub"]
