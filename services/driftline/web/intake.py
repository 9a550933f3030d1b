"""What a service takes in at once: requests, and bytes of their bodies. Beyond it the answer is 429."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from driftline.core.errors import InvalidRequest, Overloaded
from driftline.core.settings import HttpSettings

# Kubernetes must learn how a full service is: these are answered beyond every bound.
HEALTH_PATHS = frozenset(("/livez", "/readyz", "/metrics"))


class Intake:
    """Of one event loop."""

    def __init__(self, limits: HttpSettings) -> None:
        self.limits = limits
        self._requests = 0
        self._bytes = 0

    def enter(self) -> None:
        """Count a request; its end is `leave`, also after Overloaded."""
        self._requests += 1
        if self._requests > self.limits.max_requests:
            raise Overloaded(f"the service answers {self.limits.max_requests} requests, its most")

    def leave(self, scope: Scope) -> None:
        self._requests -= 1
        self._bytes -= scope.get("driftline.held", 0)

    async def read(self, request: Request) -> bytes:
        """The whole body, which counts until the request ends. Raises InvalidRequest and Overloaded."""
        limit = self.limits.max_body_bytes
        check_encoding(request.headers)
        if _declared(request.headers) > limit:
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    self._hold(request.scope, len(part))
                    body += part
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise _too_slow(self.limits.body_seconds) from None
        return bytes(body)

    def _hold(self, scope: Scope, count: int) -> None:
        if self._bytes + count > self.limits.max_buffered_bytes:
            raise Overloaded(f"the bodies of all requests together have {self.limits.max_buffered_bytes} bytes")
        self._bytes += count
        scope["driftline.held"] = scope.get("driftline.held", 0) + count

    async def parts(self, request: Request) -> AsyncIterator[bytes]:
        """The parts of a body of any length; none may take longer than `body_seconds`. Raises InvalidRequest."""
        check_encoding(request.headers)
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(self.limits.body_seconds):
                    part = await anext(stream, None)
            except TimeoutError:
                raise _too_slow(self.limits.body_seconds) from None
            if part is None:
                return
            yield part


def check_encoding(headers: Headers) -> None:
    """A body is taken as it is: what some bytes of gzip unpack to has no bound. Raises InvalidRequest."""
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise InvalidRequest("unsupported_encoding", "expected a body that is not compressed", "Content-Encoding", 415)


def has_body(headers: Headers) -> bool:
    return _declared(headers) > 0 or "transfer-encoding" in headers


def _declared(headers: Headers) -> int:
    """httptools has refused what is no number."""
    declared = headers.get("content-length", "0")
    return int(declared) if declared.isdecimal() else 0


def _too_large(limit: int) -> InvalidRequest:
    return InvalidRequest("body_too_large", f"expected at most {limit} bytes", "body", 413)


def _too_slow(seconds: float) -> InvalidRequest:
    return InvalidRequest("body_too_slow", f"expected the body within {seconds:g} s", "body", 408)
