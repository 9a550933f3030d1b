"""The tests' own TCP proxy does to connections what it says."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import FAIR, Proxy, Weather


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while content := self.request.recv(4096):
            self.request.sendall(content)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made = Proxy(lambda: ("127.0.0.1", int(server.server_address[1])))
        yield made
        made.close()
        server.shutdown()
        thread.join()


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 5)


def said(client: socket.socket, text: bytes = b"hello") -> bytes:
    client.sendall(text)
    return client.recv(4096)


def test_in_fair_weather_everything_passes(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert said(client) == b"hello"


def test_a_drop_closes_what_is_open_and_what_comes(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert said(client) == b"hello"
        proxy.suffer(Weather(drop=True))
        assert client.recv(10) == b""
    with connected(proxy) as client:
        assert client.recv(10) == b""
    proxy.suffer(FAIR)
    with connected(proxy) as client:
        assert said(client) == b"hello"


def test_a_reset_is_an_error_on_the_other_side(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert said(client) == b"hello"
        proxy.suffer(Weather(reset=True))
        with pytest.raises(ConnectionResetError):
            client.recv(10)


def test_a_held_connection_is_silent_and_then_gone(proxy: Proxy) -> None:
    with connected(proxy) as client, connected(proxy) as late:
        assert said(client) == b"hello"
        proxy.suffer(Weather(hold=True))
        client.settimeout(0.3)
        client.sendall(b"anybody?")
        with pytest.raises(TimeoutError):
            client.recv(10)
        late.sendall(b"me too")
        proxy.suffer(FAIR)
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(10)


def test_latency_and_bandwidth_slow_what_passes(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.suffer(Weather(latency_seconds=0.15))
        begun = time.monotonic()
        assert said(client) == b"hello"
        # One delay on the way there, one on the way back.
        assert time.monotonic() - begun >= 0.3
        proxy.suffer(Weather(bytes_per_second=10_000))
        begun = time.monotonic()
        client.sendall(b"x" * 2_000)
        received = 0
        while received < 2_000:
            received += len(client.recv(4096))
        assert time.monotonic() - begun >= 0.4
