"""Which servers an address of Triton stands for, and that each of them is asked."""

from __future__ import annotations

import socket
from typing import Any, ClassVar

import pytest

from driftline.adapters import triton_servers
from driftline.core.errors import Unavailable


def resolving(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, str]) -> None:
    def answer(host: str, port: int, **_: Any) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_headless_service_stands_for_every_pod_once(monkeypatch: pytest.MonkeyPatch) -> None:
    four, six = socket.AF_INET, socket.AF_INET6
    resolving(
        monkeypatch, (six, "fd00::2"), (four, "10.0.0.2"), (four, "10.0.0.1"), (six, "fd00::1"), (four, "10.0.0.1")
    )
    assert triton_servers.addresses("triton:8001") == ["10.0.0.1:8001", "10.0.0.2:8001"]
    resolving(monkeypatch, (six, "fd00::2"), (six, "fd00::1"))
    assert triton_servers.addresses("triton:8001") == ["[fd00::1]:8001", "[fd00::2]:8001"]


def test_a_name_that_is_not_known_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unavailable, match="triton:8001"):
        triton_servers.addresses("triton:8001")


class Server:
    """Stands for a client of one server."""

    asked: ClassVar[list[str]] = []

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None: ...

    def load(self) -> str:
        Server.asked.append(self.address)
        if self.address.startswith("10.0.0.2"):
            raise RuntimeError(self.address)
        return self.address


def test_one_server_that_fails_fails_the_whole_and_the_others_were_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_servers.triton, "InferenceServerClient", Server)
    monkeypatch.setattr(Server, "asked", [])
    monkeypatch.setattr(triton_servers, "addresses", lambda url: [f"10.0.0.{n}:8001" for n in (1, 2, 3)])
    with pytest.raises(RuntimeError, match=r"10\.0\.0\.2"):
        triton_servers.on_every_server("triton:8001", lambda server: server.load())
    assert sorted(Server.asked) == ["10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"]
