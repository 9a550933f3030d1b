"""Liveness, readiness and metrics of a service without an API of its own.

`/livez` answers while the process runs its loop, `/readyz` says for each check why it is not ready,
`/metrics` is Prometheus text.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from prometheus_client import generate_latest

from driftline.core import metrics
from driftline.core.errors import ConfigError
from driftline.core.worker import Worker


@dataclass
class Health:
    """Named checks. A check is ready, or not with the reason in words a person can act on.

    `scope` stands before the checks' names in the metric, for a part of a service that has a health of its own.
    """

    scope: str = ""
    _reasons: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ready(self, check: str) -> None:
        self._set(check, "")

    def not_ready(self, check: str, reason: str) -> None:
        self._set(check, reason or "not ready")

    def _set(self, check: str, reason: str) -> None:
        with self._lock:
            self._reasons[check] = reason
        metrics.READY.labels(self.scope + check).set(0 if reason else 1)

    def report(self) -> tuple[bool, Mapping[str, str]]:
        """(ready, check -> "ok" or the reason). Ready needs every check, and at least one."""
        with self._lock:
            reasons = dict(self._reasons)
        return bool(reasons) and not any(reasons.values()), {k: v or "ok" for k, v in reasons.items()}


def metrics_text() -> bytes:
    return generate_latest(metrics.REGISTRY)


def serve(host: str, port: int, health: Health, alive: Callable[[], bool]) -> HealthServer:
    """Answer health and metrics requests in the background; port 0 takes a free one. Raises ConfigError."""
    return HealthServer(host, port, health, alive)


class HealthServer:
    """HTTP as far as probes and Prometheus need it, a request per connection, all on one event loop of its own thread.

    A request's head may have 8 KiB and take 5 s; a connection more than 64 takes the place of the oldest.
    """

    _MOST = 64
    _SECONDS = 5.0

    def __init__(self, host: str, port: int, health: Health, alive: Callable[[], bool]) -> None:
        self._health = health
        self._alive = alive
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._loop = asyncio.new_event_loop()
        starting = asyncio.start_server(self._answer, host, port, limit=8_192)
        try:
            self._server = self._loop.run_until_complete(starting)
        except OSError as error:
            raise ConfigError(f"telemetry.metrics_port {port} on {host}: {error.strerror}") from error
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._worker = Worker("health", self._serve, interrupt=self._end)
        self._worker.start()

    def close(self, timeout_seconds: float = 5.0) -> None:
        self._worker.close(timeout_seconds)

    def _serve(self) -> None:
        self._loop.run_forever()
        for writer in self._open:
            writer.transport.abort()
        # Not cancelled: asyncio's streams tell of a cancelled task as of a bug. They end with their connections.
        answering = asyncio.all_tasks(self._loop)
        if answering:
            self._loop.run_until_complete(asyncio.wait(answering, timeout=1))
        self._loop.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > self._MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(self._SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body, kind = self._found(head)
                writer.write(
                    b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                    % (status, HTTPStatus(status).phrase.encode(), kind.encode(), len(body))
                )
                writer.write(body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except asyncio.LimitOverrunError:
            writer.write(b"HTTP/1.1 431 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
        except (OSError, EOFError, TimeoutError):
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)

    def _found(self, head: bytes) -> tuple[int, bytes, str]:
        """Status, body and content type of the answer to a request."""
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        if method != b"GET":
            return 405, b'{"detail":"expected GET"}', "application/json"
        match rest.partition(b" ")[0].partition(b"?")[0]:
            case b"/metrics":
                return 200, metrics_text(), "text/plain; version=0.0.4"
            case b"/livez":
                alive = self._alive()
                return 200 if alive else 503, orjson.dumps({"alive": alive}), "application/json"
            case b"/readyz":
                ready, checks = self._health.report()
                return 200 if ready else 503, orjson.dumps({"ready": ready, "checks": checks}), "application/json"
        return 404, b'{"detail":"try /livez, /readyz or /metrics"}', "application/json"
