"""Running an HTTP application and a gRPC server in one process, until SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import uvicorn
from fastapi import FastAPI
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from driftline.core import metrics
from driftline.core.errors import (
    Conflict,
    DriftlineError,
    InvalidRequest,
    NotFound,
    Overloaded,
    SpaceMismatch,
    Unavailable,
)
from driftline.core.health import Health
from driftline.core.settings import HttpSettings
from driftline.web.auth import Denied, Keys, Role

log = logging.getLogger(__name__)

_STATUS: list[tuple[type[Exception], grpc.StatusCode]] = [
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
]


def abort_with(context: grpc.ServicerContext, error: Exception) -> None:
    """End a call with the status that fits the error. Never returns."""
    if isinstance(error, Denied):
        code = grpc.StatusCode.UNAUTHENTICATED if error.status == 401 else grpc.StatusCode.PERMISSION_DENIED
        context.abort(code, error.detail)
    if isinstance(error, SpaceMismatch):
        metrics.SPACE_REFUSALS.inc()
    code = next((c for kind, c in _STATUS if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    if not isinstance(error, DriftlineError):
        log.error("bug while answering", exc_info=error)
        context.abort(code, "an unexpected error; it is in the log of the service")
    context.abort(code, str(error))


def authorize(keys: Keys, context: grpc.ServicerContext, role: Role) -> None:
    """Check the call's API key. Raises Denied."""
    metadata = dict(context.invocation_metadata())
    keys.check(str(metadata.get("authorization", "")), str(metadata.get("x-api-key", "")), role)


def start_grpc(settings: HttpSettings, services: Iterable[tuple[str, Callable[[Any], None]]], health: Health) -> Any:
    """Start a gRPC server with the standard health service and reflection; None when the port is 0."""
    if not settings.grpc_port:
        return None
    server = grpc.server(
        ThreadPoolExecutor(16, thread_name_prefix="grpc"),
        options=[("grpc.max_receive_message_length", settings.max_body_bytes), ("grpc.so_reuseport", 0)],
    )
    names = [reflection.SERVICE_NAME, grpc_health.SERVICE_NAME]
    for name, register in services:
        register(server)
        names.append(name)
    servicer = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(names, server)
    if server.add_insecure_port(f"{settings.host}:{settings.grpc_port}") == 0:
        raise SystemExit(f"driftline: gRPC port {settings.grpc_port} cannot be used")
    server.start()
    threading.Thread(target=_follow_health, args=(servicer, health), name="grpc-health", daemon=True).start()
    return server


def _follow_health(servicer: Any, health: Health) -> None:
    while True:
        ready, _ = health.report()
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        servicer.set("", status)
        threading.Event().wait(0.5)


def watch(health: Health, checks: dict[str, Callable[[], None]], every_seconds: float = 2.0) -> threading.Event:
    """Run readiness checks for ever on a daemon thread; set the returned event to end them."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            for name, check in checks.items():
                try:
                    check()
                    health.ready(name)
                except Unavailable as error:
                    health.not_ready(name, str(error))
            stop.wait(every_seconds)

    for name in checks:
        health.not_ready(name, "not checked yet")
    threading.Thread(target=run, name="readiness", daemon=True).start()
    return stop


class _Server(uvicorn.Server):  # type: ignore[misc]
    """A server whose clean end by SIGTERM is a success: uvicorn itself raises the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def serve_http(app: FastAPI, settings: HttpSettings) -> None:
    """Serve until SIGTERM or SIGINT, finishing the requests that are under way."""
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False, loop="uvloop",
        http="httptools", timeout_graceful_shutdown=20,
    )  # fmt: skip
    _Server(config).run()
