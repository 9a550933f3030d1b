"""Clients that take without end, against the servers as they run: memory stays, the answer is clear, others are served.

No server is needed: the services run over the in-memory twins, each test in a process of its own or one shared.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import httpx
import pytest

from driftline.wire.v1 import search_pb2, search_pb2_grpc
from tests.client import until
from tests.serving import Served, served

MB = 1_000_000
DOC = "/v1/collections/things/documents/a"
BULK = "/v1/collections/things/bulk"


@pytest.fixture(scope="module")
def ingest() -> Iterator[Served]:
    with served("ingest", header_seconds=2, body_seconds=4, max_connections=3_000) as service:
        yield service


@pytest.fixture
def memory(ingest: Served) -> Iterator[None]:
    """What a test may cost: a generous 60 MiB, of the gigabytes that it sends."""
    before = ingest.rss
    peak = [before]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], ingest.rss)

    looking = threading.Thread(target=look)
    looking.start()
    yield
    done.set()
    looking.join()
    print(f"memory: {before} MiB before, {peak[0]} at most")
    assert peak[0] < before + 60


def answer_of(client: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and JSON of the one answer; (0, {}) where the connection ends without."""
    received = b""
    while part := _received(client):
        received += part
    if not received:
        return 0, {}
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(65_536)
    except ConnectionResetError:
        return b""


def send(client: socket.socket, head: bytes, part: bytes, times: int) -> int:
    """Parts after a head until the server will have no more; the bytes that it took."""
    sent = 0
    try:
        client.sendall(head)
        for _ in range(times):
            client.sendall(part)
            sent += len(part)
    except OSError:
        pass
    return sent


def a_put(*headers: str) -> bytes:
    return "\r\n".join([f"PUT {DOC} HTTP/1.1", "Host: a", *headers, "", ""]).encode()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET /livez?",
        b"",
        a_put("Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nX: ",
        a_put("Transfer-Encoding: chunked") + b"2;",
    ],
    ids=["header", "address", "method", "trailer", "chunk extension"],
)
def test_38_mb_that_end_nowhere(ingest: Served, head: bytes) -> None:
    with ingest.connect() as client:
        assert send(client, head, b"a" * MB, 38) < 10 * MB
        assert ingest.alive_within(5)


def test_a_header_too_large_is_told_so(ingest: Served) -> None:
    with ingest.connect() as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n")
        status, problem = answer_of(client)
    assert (status, problem["code"]) == (431, "header_too_large")
    fits = httpx.get(f"{ingest.url}/livez", headers={"X": "a" * 30_000})
    assert fits.status_code == 200


def test_what_is_no_http_is_told_so(ingest: Served) -> None:
    with ingest.connect() as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, problem = answer_of(client)
    assert (status, problem["code"]) == (400, "malformed_request")


@pytest.mark.usefixtures("memory")
def test_100_clients_that_never_finish_their_header(ingest: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(ingest.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(b"GET /livez HTTP/1.1\r\n")
        served_meanwhile = 0
        closed = [False] * len(clients)
        while not all(closed):
            for i, client in enumerate(clients):
                # A byte now and then is no progress.
                closed[i] = closed[i] or not _sent(client, b"a")
            assert httpx.put(ingest.url + DOC, json={"fields": {"title": "x"}}).status_code == 202
            served_meanwhile += 1
            time.sleep(0.1)
    assert served_meanwhile > 5


def _sent(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
        client.setblocking(False)
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.setblocking(True)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("path", [DOC, BULK])
def test_100_clients_that_never_finish_their_body(ingest: Served, path: str) -> None:
    method = "PUT" if path == DOC else "POST"
    with ExitStack() as stack:
        clients = [stack.enter_context(ingest.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode())
        assert ingest.alive_within(5)
        assert httpx.put(ingest.url + DOC, json={"fields": {"title": "x"}}).status_code == 202
        answers = [answer_of(client) for client in clients]
    # Bulk requests beyond 16 at once are refused, and need not send anything first.
    expected = {(408, "body_too_slow")} | ({(429, "overloaded")} if path == BULK else set())
    assert {(status, problem["code"]) for status, problem in answers} == expected


@pytest.mark.usefixtures("memory")
def test_2000_idle_connections(ingest: Served) -> None:
    with ExitStack() as stack:
        for _ in range(2_000):
            stack.enter_context(ingest.connect())
        assert ingest.alive_within(5)
        assert httpx.put(ingest.url + DOC, json={"fields": {"title": "x"}}).status_code == 202


def test_more_connections_than_the_bound_cost_the_idlest_its_own() -> None:
    with served("ingest", max_connections=20) as service, ExitStack() as stack:
        clients = [stack.enter_context(service.connect()) for _ in range(60)]
        assert service.alive_within(5)
        assert answer_of(clients[0]) == (0, {})
        clients[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer_of(clients[-1])[0] == 200


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("declared", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_a_body_of_1_gb_is_refused_unread(ingest: Served, declared: str) -> None:
    chunk = b"a" * MB
    if "chunked" in declared:
        chunk = b"%x\r\n%s\r\n" % (len(chunk), chunk)
    with ingest.connect() as client:
        assert send(client, a_put(declared), chunk, 1_000) < 20 * MB
        status, problem = answer_of(client)
    assert (status, problem["code"]) == (413, "body_too_large")
    assert ingest.alive_within(5)


def test_a_client_that_asks_first_need_not_send_its_body(ingest: Served) -> None:
    with ingest.connect() as client:
        client.sendall(a_put("Content-Length: 1000000000", "Expect: 100-continue"))
        status, problem = answer_of(client)
    assert (status, problem["code"]) == (413, "body_too_large")


@pytest.mark.usefixtures("memory")
def test_a_body_of_1_gb_that_nobody_reads(ingest: Served) -> None:
    with ingest.connect() as client:
        head = b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
        assert send(client, head, b"a" * MB, 1_000) < 20 * MB
        status, body = answer_of(client)
    assert (status, body) == (200, {"alive": True})


@pytest.mark.usefixtures("memory")
def test_a_compressed_bomb_is_not_unpacked(ingest: Served) -> None:
    bomb = gzip.compress(b"\0" * 100 * MB)
    answer = httpx.put(ingest.url + DOC, content=bomb, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")


@pytest.mark.usefixtures("memory")
def test_a_bulk_request_of_1_gb_in_one_line(ingest: Served) -> None:
    parts = (b"a" * MB for _ in range(1_000))
    answer = httpx.post(ingest.url + BULK, content=parts, timeout=120)
    refused, last = [json.loads(line) for line in answer.content.splitlines()]
    assert refused["problem"]["code"] == "line_too_long"
    assert last["summary"]["lines"] == 1


@pytest.mark.usefixtures("memory")
def test_a_bulk_client_that_sends_everything_before_it_reads(ingest: Served) -> None:
    """300,000 deletes make an answer of 29 MB: more than sockets hold and than the service keeps unread."""
    lines = 300_000
    with ingest.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        body = b"".join(b'{"id": "d%d", "operation": "delete"}\n' % i for i in range(lines))
        client.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" % BULK.encode())
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        while part := client.recv(65_536):
            answer += part
    told = answer.count(b'"state":"accepted"')
    summary = json.loads(answer[answer.rindex(b'{"summary"') :].splitlines()[0])["summary"]
    assert (summary["lines"], summary["accepted"]) == (lines, lines)
    assert 1_000 < summary["told"] == told < lines
    offsets = [int(token.partition(".")[2]) for token in summary["tokens"]]
    assert len(offsets) == 2 and sum(offsets) >= lines - 2


def test_bulk_is_answered_while_it_is_sent(ingest: Served) -> None:
    line = b'{"id": "a", "operation": "delete"}\n' * 500
    with ingest.connect() as client:
        client.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % BULK.encode())
        client.sendall(b"%x\r\n%s\r\n" % (len(line), line))
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        client.sendall(b"0\r\n\r\n")
        until(lambda: b'"summary"' in client.recv(65_536), 10)


def test_a_client_that_does_not_read_its_answer_is_cut_off(ingest: Served) -> None:
    with ingest.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(30)
        # Refused by the connection's end, not by the timeout of 30 s, which would be a TimeoutError.
        with pytest.raises(ConnectionError):
            _send_for_ever(client, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")


def _send_for_ever(client: socket.socket, request: bytes) -> None:
    while True:
        client.sendall(request)


@pytest.fixture
def query() -> Iterator[Served]:
    with served("query", max_calls=8, body_seconds=2) as service:
        yield service


def test_grpc_bounds_messages_metadata_and_what_they_unpack_to(query: Served) -> None:
    options = [("grpc.max_send_message_length", -1)]
    before = query.rss
    with grpc.insecure_channel(f"127.0.0.1:{query.grpc_port}", options=options) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        large = search_pb2.SearchRequest(collection="things", text="a" * 200 * MB)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Search(large, compression=compression)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as refused:
            stub.Search(search_pb2.SearchRequest(), metadata=[("x", "a" * 100_000)])
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = stub.Search(search_pb2.SearchRequest(collection="things", text="red"))
    assert [hit.id for hit in found.hits] == ["a"]
    print(f"memory: {before} MiB before, {query.rss} after")
    assert query.rss < before + 60
