"""One HTTP connection, bounded: uvicorn's protocol on httptools, which alone takes a head of any size for any time.

httptools costs 21 us of CPU a request and these bounds hardly more; h11, which has a bound of its own, costs 45.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from driftline.core import metrics
from driftline.core.settings import HttpSettings
from driftline.web.problems import headers_of, problem

# Requests of one connection that wait for the answer to the one before. Nobody pipelines by accident.
_PIPELINED = 16
# After an early answer: what a client had sent by then is still read, for so long and so many bytes, since closing
# with unread bytes resets the connection, and a reset may overtake the answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 1_000_000


class Connections(ServerState):  # type: ignore[misc]
    """All connections of a server; `waiting` are those without a whole request head, the longest waiting first."""

    def __init__(self, limits: HttpSettings) -> None:
        super().__init__()
        self.limits = limits
        self.draining = False
        self.waiting: dict[Connection, None] = {}

    def admit(self) -> bool:
        """Whether a connection more fits, which may cost the one that has waited longest its place."""
        if len(self.connections) <= self.limits.max_connections:
            return True
        oldest = next(iter(self.waiting), None)
        if oldest is None:
            return False
        del self.waiting[oldest]
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def drain(self) -> None:
        """From now on every answer says that its connection closes."""
        self.draining = True
        for connection in self.connections:
            cycle = connection.cycle
            if cycle is not None and not cycle.response_started:
                cycle.keep_alive = False


class Connection(HttpToolsProtocol):  # type: ignore[misc]
    """A head may have `max_header_bytes` and take `header_seconds`; so may anything else that is no body: trailers.

    A client that reads nothing of its answer, and sends nothing, for `body_seconds` is cut off.
    """

    def __init__(self, config: Any, server_state: Connections, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = server_state
        self._limits = server_state.limits
        self._held = 0  # bytes that the parser took since it last gave a head or a part of a body
        self._heard = self.loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lingering = _Lingering(cast(asyncio.Transport, transport), self)
        super().connection_made(lingering)
        if not self._all.admit():
            lingering.abort()
            return
        self._all.waiting[self] = None
        self.timeout_keep_alive_task = self.loop.call_later(self._limits.idle_seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.waiting.pop(self, None)
        self._stop_timers()
        self.transport.lost()
        super().connection_lost(exc)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._unread_timer = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self.transport.discard(len(data))
            return
        self._heard = self.loop.time()
        if self in self._all.waiting and self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.header_seconds, self.transport.abort)
        limit, begin = self._limits.max_header_bytes, 0
        while begin < len(data) and not self.transport.is_closing():
            part = data[begin : begin + limit + 1 - self._held]
            begin += len(part)
            self._held += len(part)
            super().data_received(part)
            if self._held > limit:
                self.refuse(431, "header_too_large", f"expected a request head of at most {limit} bytes")

    def on_headers_complete(self) -> None:
        self._held = 0
        self._all.waiting.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many pipelined requests")  # the parser stops, and the connection with it
        super().on_headers_complete()
        if self._all.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete and not self.pipeline:
            self._all.waiting[self] = None
            if self._held:
                self._head_timer = self.loop.call_later(self._limits.header_seconds, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        del msg
        self.refuse(400, "malformed_request", "expected an HTTP/1.1 request")

    def refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what is no request, where an answer under way does not forbid it, and close."""
        metrics.HTTP_REQUESTS.labels("other", str(status)).inc()
        self._refused = True
        if self.cycle is None or self.cycle.response_complete:
            body = problem(status, code, detail)
            content = orjson.dumps(body)
            headers = headers_of(body) | {"Content-Length": str(len(content)), "Connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINE[status] + lines.encode("ascii") + b"\r\n" + content)
        self.transport.close()

    @property
    def unread(self) -> bool:
        """Whether the client may still be sending what nobody will read."""
        return self._refused or (self.cycle is not None and self.cycle.more_body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self._limits.body_seconds, self._check_reading)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _check_reading(self) -> None:
        """Somebody who still sends a bulk request may read its answer later."""
        left = self._heard + self._limits.body_seconds - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(left, self._check_reading)


class _Lingering(asyncio.Transport):
    """The transport of a connection, whose `close` lets a client that is still sending read its answer."""

    def __init__(self, inner: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._inner = inner
        self._connection = connection
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._discarded = 0

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        loop, limits = self._connection.loop, self._connection._limits
        if self._connection.unread and not self._inner.is_closing():
            self._inner.write_eof()
            self._connection.flow.resume_reading()
            self._timer = loop.call_later(_LINGER_SECONDS, self._inner.abort)
            return
        self._inner.close()
        if self._inner.get_write_buffer_size():
            self._timer = loop.call_later(limits.body_seconds, self._inner.abort)

    def discard(self, count: int) -> None:
        """Take note of bytes that came after the end."""
        self._discarded += count
        if self._discarded > _LINGER_BYTES:
            self._inner.abort()

    def lost(self) -> None:
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        return self._closing or self._inner.is_closing()

    def abort(self) -> None:
        self._closing = True
        self._inner.abort()

    def write(self, data: Any) -> None:
        """After `close` for nothing, as asyncio's transports do it."""
        if not self._closing:
            self._inner.write(data)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)
