"""Running an HTTP application and a gRPC server in one process, until SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
from fastapi import FastAPI
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from driftline.core.errors import ConfigError, Unavailable
from driftline.core.health import Health
from driftline.core.settings import HttpSettings
from driftline.core.worker import Worker
from driftline.web.calls import Calls
from driftline.web.server import HttpServer

log = logging.getLogger(__name__)


def start_grpc(
    settings: HttpSettings, services: Iterable[tuple[str, Callable[[Any], None]]], health: Health
) -> Callable[[float], None] | None:
    """Start a gRPC server with the standard health service and reflection; None when the port is 0.

    Returns what stops it: to be given the seconds that calls under way have. Raises ConfigError when
    the port cannot be used.
    """
    if not settings.grpc_port:
        return None
    calls = Calls(settings.body_seconds)
    server = grpc.server(
        ThreadPoolExecutor(settings.max_calls, thread_name_prefix="grpc"),
        interceptors=[calls],
        options=_bounds(settings),
        # As many as there are threads: a call that waits for one would wait for ever behind streams.
        maximum_concurrent_rpcs=settings.max_calls,
    )
    names = [reflection.SERVICE_NAME, grpc_health.SERVICE_NAME]
    for name, register in services:
        register(server)
        names.append(name)
    servicer = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(names, server)
    try:
        server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise ConfigError(f"http.grpc_port {settings.grpc_port} on {settings.host} cannot be used") from error
    server.start()
    follow_health(servicer, health).start()
    return partial(calls.stop, server)


def _bounds(settings: HttpSettings) -> list[tuple[str, int]]:
    """gRPC checks the length of a message after unpacking it as well: 200 MB in 200 kB of gzip take it no memory."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_concurrent_streams", settings.max_calls),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_connection_idle_ms", settings.idle_seconds * 1000),
        ("grpc.server_handshake_timeout_ms", round(settings.header_seconds * 1000)),
        # A peer that is gone without a word is found out by a ping.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def follow_health(servicer: Any, health: Health) -> Worker:
    """Tells gRPC's health service what `health` says; for as long as the process lives."""

    def tell() -> None:
        ready, _ = health.report()
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        servicer.set("", status)

    return Worker("grpc-health", tell, every_seconds=0.5)


def watch(health: Health, checks: dict[str, Callable[[], None]], every_seconds: float = 2.0) -> Worker:
    """Run readiness checks in the background, until the returned worker is closed."""

    def run() -> None:
        for name, check in checks.items():
            try:
                check()
                health.ready(name)
            except Unavailable as error:
                health.not_ready(name, str(error))

    for name in checks:
        health.not_ready(name, "not checked yet")
    worker = Worker("readiness", run, every_seconds=every_seconds)
    worker.start()
    return worker


def serve(
    app: FastAPI, settings: HttpSettings, health: Health, stop_grpc: Callable[[float], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way, over HTTP and gRPC. Raises ConfigError."""
    stopping: list[Future[None]] = []

    def stop() -> None:
        # Beside HTTP's own end, which runs on the event loop that calls this.
        if stop_grpc is not None:
            stopping.append(pool.submit(stop_grpc, settings.drain_seconds))

    with ThreadPoolExecutor(1, thread_name_prefix="stop-grpc") as pool:
        HttpServer(app, settings, health, stop).serve_forever()
    for stopped in stopping:
        stopped.result()
