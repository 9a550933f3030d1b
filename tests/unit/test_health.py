"""The health server of services without an API: what it answers, and what it takes."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from driftline.core.health import Health, HealthServer, serve


@pytest.fixture
def server() -> Iterator[HealthServer]:
    health = Health()
    health.not_ready("kafka", "no broker")
    made = serve("127.0.0.1", 0, health, lambda: True)
    yield made
    made.close()


def get(server: HealthServer, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.port}{path}", timeout=20, trust_env=False)


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def test_it_answers_probes_and_prometheus(server: HealthServer) -> None:
    assert get(server, "/livez").json() == {"alive": True}
    ready = get(server, "/readyz")
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "checks": {"kafka": "no broker"}})
    assert "driftline_ready" in get(server, "/metrics").text
    assert get(server, "/nothing").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{server.port}/livez", trust_env=False).status_code == 405


def test_a_header_without_end_is_refused(server: HealthServer) -> None:
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nx: " + b"a" * 20_000)
        assert client.recv(100).startswith(b"HTTP/1.1 431")
    assert get(server, "/livez").status_code == 200


def test_a_header_that_does_not_come_is_not_waited_for(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HealthServer, "_SECONDS", 0.2)
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert client.recv(100) == b""


def test_open_connections_take_no_threads_and_keep_nobody_out(server: HealthServer) -> None:
    before = threading.active_count()
    clients = [connect(server) for _ in range(300)]
    assert get(server, "/livez").status_code == 200
    assert threading.active_count() == before
    for client in clients:
        client.close()


def test_it_ends_cleanly_with_connections_open(caplog: pytest.LogCaptureFixture) -> None:
    server = serve("127.0.0.1", 0, Health(), lambda: True)
    with connect(server) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert get(server, "/livez").status_code == 200
        server.close()
        assert client.recv(100) == b""
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []
