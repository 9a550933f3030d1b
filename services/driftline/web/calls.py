"""What all gRPC calls of a service have in common: errors as statuses, and an end for streams that nobody feeds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from driftline.core import metrics
from driftline.core.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    NotFound,
    Overloaded,
    SpaceMismatch,
    Unavailable,
)
from driftline.core.worker import Worker
from driftline.web.auth import Keys, Role

log = logging.getLogger(__name__)

_STATUS: list[tuple[type[Exception], grpc.StatusCode]] = [
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
]

_HOLD_SECONDS = 0.2


def authorize(keys: Keys, context: grpc.ServicerContext, role: Role) -> None:
    """Check the call's API key. Raises Denied."""
    metadata = dict(context.invocation_metadata())
    keys.check(str(metadata.get("authorization", "")), str(metadata.get("x-api-key", "")), role)


def _abort_with(context: grpc.ServicerContext, error: Exception) -> None:
    """End a call with the status that fits the error. Never returns."""
    if isinstance(error, Denied):
        code = grpc.StatusCode.UNAUTHENTICATED if error.status == 401 else grpc.StatusCode.PERMISSION_DENIED
        context.abort(code, error.detail)
    if isinstance(error, SpaceMismatch):
        metrics.SPACE_REFUSALS.inc()
    code = next((c for kind, c in _STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if code is grpc.StatusCode.INTERNAL:
        log.error("bug while answering", exc_info=error)
        context.abort(code, "an unexpected error; it is in the log of the service")
    context.abort(code, str(error))


class Calls(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets methods raise what the REST API's raise. A stream of requests ends when none comes for `idle_seconds`."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle = idle_seconds
        self._heard: dict[Any, float] = {}
        Worker("grpc-idle", self._end_idle, every_seconds=min(1.0, idle_seconds / 4)).start()
        self._answering = threading.Event()
        self._answering.set()

    def stop(self, server: Any, seconds: float) -> None:
        """Stop a server, giving the calls under way so long to end; returns when they have.

        gRPC cancels the calls that it has not yet handed to a thread when it stops. So answers are held for a moment:
        who waits for one sends nothing, what was sent is taken, and the word that the connection ends (GOAWAY)
        reaches clients before the answers do, after which they would send again.
        """
        self._answering.clear()
        time.sleep(_HOLD_SECONDS)
        ended = server.stop(seconds)
        time.sleep(_HOLD_SECONDS)
        self._answering.set()
        ended.wait()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        if handler.request_streaming and handler.response_streaming:
            return handler._replace(stream_stream=self._stream(handler.stream_stream))
        if not handler.request_streaming and not handler.response_streaming:
            return handler._replace(unary_unary=self._unary(handler.unary_unary))
        return handler

    def _unary(self, method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, context: Any) -> Any:
            try:
                return method(request, context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the call ends with a status
                return _abort_with(context, error)
            finally:
                self._answering.wait()

        return answer

    def _stream(self, method: Callable[[Any, Any], Iterator[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
        def answer(requests: Any, context: Any) -> Iterator[Any]:
            try:
                yield from method(self._fed(requests, context), context)
            except grpc.RpcError:  # the client is gone
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the call ends with a status
                _abort_with(context, error)
            finally:
                self._answering.wait()

        return answer

    def _fed(self, requests: Any, context: Any) -> Iterator[Any]:
        try:
            self._heard[context] = time.monotonic()
            for request in requests:
                # What the method does with the request, and how long its answer takes, is no waiting for the client.
                self._heard.pop(context, None)
                yield request
                self._heard[context] = time.monotonic()
        finally:
            self._heard.pop(context, None)

    def _end_idle(self) -> None:
        """A stream without requests keeps a thread of the pool."""
        now = time.monotonic()
        for context, since in list(self._heard.items()):
            if now - since > self._idle:
                context.cancel()
