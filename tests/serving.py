"""A service over the in-memory twins in a process of its own, served as the real ones are: for tests of the servers.

`python -m tests.serving ingest|query '{"port": 1, "grpc_port": 2, ...HttpSettings}' SECONDS_OF_A_WRITE`
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from driftline.adapters.memory import MemoryPublisher
from driftline.core.records import Outgoing
from driftline.core.settings import HttpSettings
from driftline.core.topics import CHANGES
from driftline.ingest import rpc as ingest_rpc
from driftline.ingest.settings import IngestSection
from driftline.query import rpc as query_rpc
from driftline.web.serve import serve, start_grpc
from tests.world import World


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rss(self) -> int:
        """MiB."""
        return int(psutil.Process(self.process.pid).memory_info().rss) >> 20

    def alive_within(self, seconds: float) -> bool:
        return httpx.get(f"{self.url}/livez", timeout=seconds).status_code == 200

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def served(service: str, write_seconds: float = 0.0, **http: Any) -> Iterator[Served]:
    port, grpc_port = _free_ports(2)
    settings = json.dumps({"port": port, "grpc_port": grpc_port, **http})
    process = subprocess.Popen([sys.executable, "-m", "tests.serving", service, settings, str(write_seconds)])
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the service ended"
            assert time.monotonic() < deadline, "the service did not start"
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield Served(process, port, grpc_port)
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class _Endless:
    """A publisher whose changes take their time and are not kept: the log would be what takes memory."""

    def __init__(self, inner: MemoryPublisher, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds
        self._offsets = [itertools.count(), itertools.count()]

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        if records[0].topic != CHANGES.name:
            return self._inner.publish(records, timeout_seconds)
        time.sleep(self._seconds)
        return [(i % 2, next(self._offsets[i % 2])) for i in range(len(records))]

    def close(self) -> None:
        self._inner.close()


def main(service: str, http: str, write_seconds: str) -> None:
    settings = HttpSettings.model_validate_json(http)
    world = World(max_pending=20_000, http=settings, ingest_section=IngestSection())
    world.acceptor._publisher = _Endless(world.publisher, float(write_seconds))
    world.store_text("a", "red shoes")
    world.health.ready("memory")
    if service == "ingest":
        writer = ingest_rpc.IngestRpc(world.keys, world.view, world.acceptor, 60)
        rpc = (ingest_rpc.SERVICE, lambda server: ingest_rpc.register(writer, server))
        app = world.ingest_app
    else:
        searcher = query_rpc.SearchRpc(world.keys, world.searcher, 64)
        rpc = (query_rpc.SERVICE, lambda server: query_rpc.register(searcher, server))
        app = world.query_app
    serve(app, settings, world.health, start_grpc(settings, [rpc], world.health))
    world.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
