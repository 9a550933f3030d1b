"""Liveness, readiness and metrics of a service without an API of its own.

`/livez` answers while the process runs its loop, `/readyz` says for each check why it is not ready,
`/metrics` is Prometheus text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
from prometheus_client import generate_latest

from driftline.core import metrics


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


def serve(host: str, port: int, health: Health, alive: Callable[[], bool]) -> ThreadingHTTPServer:
    """Answer health and metrics requests on a daemon thread; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, metrics_text(), "text/plain; version=0.0.4")
            elif self.path == "/livez":
                self._answer(200 if alive() else 503, b'{"alive":true}' if alive() else b'{"alive":false}')
            elif self.path == "/readyz":
                ready, checks = health.report()
                self._answer(200 if ready else 503, orjson.dumps({"ready": ready, "checks": checks}))
            else:
                self._answer(404, b'{"detail":"try /livez, /readyz or /metrics"}')

        def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
