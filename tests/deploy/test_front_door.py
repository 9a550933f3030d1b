"""Every route of the APIs is reached through the front door: a real nginx for the Ingress, rules for the HTTPRoute."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import unquote

import pytest

from tests.deploy.front_door import Call, applications, backends, calls, proxying, recording, serving
from tests.deploy.manifests import by_kind, render

HOSTS = {s: f"{s}.example.com" for s in ("ingest", "query", "upgrade")}
INGRESS = {"enabled": True, "hosts": HOSTS}
GATEWAY = {"gateway": {"enabled": True, "parentRefs": [{"name": "edge"}]}}
APPS = applications()
CALLS = calls(APPS)


def ids(call: Call) -> str:
    return f"{call.method} {call.path}"


def ask(port: int, method: str, path: str, host: str) -> tuple[int, str]:
    """Status and body. By hand: a client would tidy the path, and the path is what is tested."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: wire.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body.decode()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (ingress,) = by_kind(render({"ingress": INGRESS}), "Ingress").values()
    with ExitStack() as stack:
        ports = {f"dl-driftline-{s}": stack.enter_context(serving(recording(s, app))) for s, app in APPS.items()}
        yield stack.enter_context(proxying(ingress, ports, tmp_path_factory.mktemp("nginx")))


@pytest.mark.parametrize("call", CALLS, ids=ids)
def test_every_route_answers_through_the_proxy(edge: int, call: Call) -> None:
    status, body = ask(edge, call.method, call.path, HOSTS[call.service])
    assert status == 200, body
    assert json.loads(body) == {"service": call.service, "route": call.route, "document": call.document}


def test_a_document_is_read_written_and_deleted() -> None:
    """The routes come from the APIs: were these gone, the test above would have nothing to say of them."""
    path = "/v1/collections/{collection}/documents/{document_id:path}"
    assert {(c.service, c.method) for c in CALLS if c.route == path} >= {
        ("query", "GET"), ("ingest", "PUT"), ("ingest", "DELETE"),
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/docs", "/openapi.json", "/v12", "/"])
def test_what_is_not_api_stays_inside(edge: int, path: str) -> None:
    for host in HOSTS.values():
        status, body = ask(edge, "GET", path, host)
        assert status == 404 and "service" not in body, "the proxy refuses it, not the service"


def test_another_host_leads_nowhere(edge: int) -> None:
    status, body = ask(edge, "GET", "/v1/collections", "elsewhere.example.com")
    assert status == 404 and "service" not in body


@pytest.mark.parametrize("call", CALLS, ids=ids)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "part"])
@pytest.mark.parametrize("decoded", [False, True], ids=["escaped", "decoded"])
def test_every_route_matches_one_rule_of_the_http_route(call: Call, whole: bool, decoded: bool) -> None:
    """One alone, so that the order in which an implementation asks its rules decides nothing; nor does it whether the
    implementation looks at the path as it is sent or decodes it first."""
    (route,) = by_kind(render(GATEWAY), "HTTPRoute").values()
    seen = replace(call, path=unquote(call.path)) if decoded else call
    assert backends(route, seen, whole) == [f"dl-driftline-{call.service}"], "ingress.yaml lacks a rule for it"


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/docs", "/v1", "/v1/collectionsx", "/v2/collections"])
def test_the_http_route_leads_to_nothing_else(path: str) -> None:
    (route,) = by_kind(render(GATEWAY), "HTTPRoute").values()
    for whole in (True, False):
        assert backends(route, Call("", "GET", "", path), whole) == []


def test_what_is_switched_off_is_not_routed_to() -> None:
    text = str(render({"ingress": INGRESS, **GATEWAY, "upgrade": {"enabled": False}}))
    assert "dl-driftline-upgrade" not in text and HOSTS["upgrade"] not in text
