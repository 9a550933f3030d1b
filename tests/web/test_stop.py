"""SIGTERM under load fails no request, over HTTP and gRPC."""

from __future__ import annotations

import signal
import socket
import threading
import time

import grpc
import httpx
import pytest

from driftline.web.server import _refuse_handshakes
from driftline.wire.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc
from tests.client import until
from tests.serving import Served, served

CLIENTS = 24


class Client(threading.Thread):
    """Asks again and again until the service refuses the connection; whatever else goes wrong is a failed request."""

    def __init__(self, service: Served, number: int) -> None:
        super().__init__(name=f"client-{number}")
        self.service = service
        self.number = number
        self.answered = 0
        self.failed: list[str] = []

    def run(self) -> None:
        try:
            self.ask_for_ever()
        except httpx.ConnectError:
            pass
        except (httpx.HTTPError, AssertionError) as error:
            self.failed.append(repr(error))

    def ask_for_ever(self) -> None:
        with httpx.Client(base_url=self.service.url, timeout=30, trust_env=False) as http:
            while True:
                path = f"/v1/collections/things/documents/{self.number}-{self.answered}"
                answer = http.put(path, json={"fields": {"title": "x"}})
                assert answer.status_code == 202, answer.text
                self.answered += 1


class NewConnections(Client):
    """A connection for each request: one of them is always just being made."""

    def ask_for_ever(self) -> None:
        while True:
            answer = httpx.get(self.service.url + "/v1/collections", timeout=30, trust_env=False)
            assert answer.status_code == 200, answer.text
            self.answered += 1


class Bulks(Client):
    def ask_for_ever(self) -> None:
        with httpx.Client(base_url=self.service.url, timeout=30, trust_env=False) as http:
            while True:
                lines = (b'{"id": "d%d", "operation": "delete"}\n' % i for i in range(2_000))
                answer = http.post("/v1/collections/things/bulk", content=lines)
                assert answer.status_code == 200, answer.text
                assert b'"lines":2000,"accepted":2000' in answer.content
                self.answered += 1


class Searches(Client):
    def ask_for_ever(self) -> None:
        with httpx.Client(base_url=self.service.url, timeout=30, trust_env=False) as http:
            while True:
                answer = http.post("/v1/collections/things/search", json={"text": f"red {self.answered}"})
                assert answer.status_code == 200, answer.text
                self.answered += 1


class Calls(Client):
    """Over gRPC, until no connection can be made any more."""

    def run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(f"127.0.0.1:{self.service.grpc_port}", options=options) as channel:
            while True:
                try:
                    self.call(channel)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE or self.accepts():
                        self.failed.append(f"{error.code()}: {error.details()}")
                    elif "failed to connect" not in str(error.details()).lower():
                        self.failed.append(f"while connections were refused: {error.details()}")
                    return
                self.answered += 1

    def accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.service.grpc_port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    def call(self, channel: grpc.Channel) -> None:
        put = ingest_pb2.PutDocumentRequest(collection="things", id="a", fields_json=b'{"title": "x"}')
        ingest_pb2_grpc.IngestServiceStub(channel).PutDocument(put, timeout=30)


class SearchCalls(Calls):
    def call(self, channel: grpc.Channel) -> None:
        search = search_pb2.SearchRequest(collection="things", text=f"red {self.answered}")
        search_pb2_grpc.SearchServiceStub(channel).Search(search, timeout=30)


@pytest.mark.parametrize(
    ("service", "kinds"),
    [("ingest", (Client, NewConnections, Bulks, Calls)), ("query", (Searches, SearchCalls))],
)
def test_sigterm_under_load_fails_no_request(service: str, kinds: tuple[type[Client], ...]) -> None:
    with served(service, write_seconds=0.05) as running:
        clients = [kinds[i % len(kinds)](running, i) for i in range(CLIENTS)]
        for client in clients:
            client.start()
        until(lambda: all(client.answered >= 5 for client in clients), 60)
        running.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        assert running.process.wait(60) == 0
    print(f"{service}: {sum(client.answered for client in clients)} requests answered")
    assert [client.failed for client in clients] == [[]] * CLIENTS


def test_readiness_goes_first_and_each_answer_closes_its_connection() -> None:
    with served("ingest") as running, httpx.Client(base_url=running.url, trust_env=False) as http:
        assert "connection" not in http.get("/livez").headers
        running.process.send_signal(signal.SIGTERM)
        until(lambda: http.get("/readyz").status_code == 503, 5, every=0.02)
        answer = http.put("/v1/collections/things/documents/a", json={"fields": {"title": "x"}})
        assert (answer.status_code, answer.headers["connection"]) == (202, "close")
        assert running.process.wait(30) == 0


def test_a_request_under_way_has_its_answer_before_the_end() -> None:
    with served("ingest", write_seconds=4) as running:
        answers: list[int] = []

        def put() -> None:
            body = {"fields": {"title": "x"}}
            answer = httpx.put(f"{running.url}/v1/collections/things/documents/a", json=body, timeout=30)
            answers.append(answer.status_code)

        putting = threading.Thread(target=put)
        putting.start()
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        putting.join()
        assert answers == [202]
        assert running.process.wait(30) == 0


def test_who_connects_at_the_very_end_is_refused_and_not_reset() -> None:
    """A listener that closes resets whom the kernel has connected to it; those had sent their request by then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=5) as before:
            assert _refuse_handshakes(listener)
            late: list[BaseException] = []

            def connect() -> None:
                try:
                    with socket.create_connection(address, timeout=30) as connection:
                        connection.recv(1)
                except OSError as error:
                    late.append(error)

            connecting = threading.Thread(target=connect)
            connecting.start()
            taken, _ = listener.accept()
            with taken:
                before.sendall(b"x")
                assert taken.recv(1) == b"x"
            time.sleep(0.2)
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
    connecting.join()
    assert [type(error) for error in late] == [ConnectionRefusedError]
