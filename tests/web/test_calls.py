"""The gRPC servers in process: batches as REST answers them, errors as statuses, streams that nobody feeds."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from driftline.core.records import Outgoing
from driftline.core.settings import AuthSettings, HttpSettings
from driftline.ingest import rpc as ingest_rpc
from driftline.query import rpc as query_rpc
from driftline.web.serve import start_grpc
from driftline.wire.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc
from tests.world import World

MOST = 3


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.store_text("a", "red shoes")
    yield made
    made.close()


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with served(world) as made:
        yield made


@contextmanager
def served(world: World) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    writer = ingest_rpc.IngestRpc(world.keys, world.view, world.acceptor, 60)
    searcher = query_rpc.SearchRpc(world.keys, world.searcher, MOST)
    services: list[tuple[str, Any]] = [
        (ingest_rpc.SERVICE, lambda server: ingest_rpc.register(writer, server)),
        (query_rpc.SERVICE, lambda server: query_rpc.register(searcher, server)),
    ]
    settings = HttpSettings(grpc_port=port, max_calls=4, body_seconds=1)
    stop = start_grpc(settings, services, world.health)
    assert stop is not None
    yield f"127.0.0.1:{port}"
    stop(0)


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as made:
        yield made


def batch(channel: grpc.Channel, *searches: search_pb2.SearchRequest) -> list[search_pb2.SearchResponse]:
    request = search_pb2.BatchSearchRequest(searches=searches)
    return list(search_pb2_grpc.SearchServiceStub(channel).BatchSearch(request).results)


def a_search(**fields: Any) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(collection="things", **({"text": "red"} | fields))


def test_every_method_needs_a_key(tmp_path: Path) -> None:
    """Of the services as they are described, so a new method cannot be forgotten."""
    keys = tmp_path / "keys"
    keys.write_text("reader search aaaaaaaaaaaaaaaa\n")
    world = World(AuthSettings(mode="api_key", keys_file=keys))
    services = [s for pb in (ingest_pb2, search_pb2) for s in pb.DESCRIPTOR.services_by_name.values()]
    with served(world) as address, grpc.insecure_channel(address) as channel:
        for service in services:
            assert service.methods
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                # An empty message of any kind has no bytes.
                call = channel.stream_stream(path)(iter([b""]))
                with pytest.raises(grpc.RpcError) as refused:
                    list(call)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED, path
    world.close()


def test_a_batch_answers_each_search(channel: grpc.Channel) -> None:
    missing = search_pb2.SearchRequest(collection="things", document=search_pb2.DocumentInput(id="missing"))
    nowhere = search_pb2.SearchRequest(collection="nowhere", text="red")
    first, second, third = batch(channel, a_search(), missing, nowhere)
    assert ([hit.id for hit in first.hits], first.HasField("problem")) == (["a"], False)
    assert (second.problem.code, second.problem.status) == ("unknown_document", 404)
    assert (third.problem.code, third.problem.field) == ("unknown_collection", "collection")


@pytest.mark.parametrize("count", [0, MOST + 1])
def test_a_batch_is_bounded(channel: grpc.Channel, count: int) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        batch(channel, *[a_search()] * count)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == f"searches: expected a list of 1 to {MOST}"


def test_a_malformed_search_refuses_the_batch_with_its_place(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        batch(channel, a_search(), a_search(limit=-1))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "searches[1].limit" in refused.value.details()


def test_a_bug_is_not_told_to_the_caller(world: World, channel: grpc.Channel) -> None:
    def broken(records: list[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        raise RuntimeError("a secret")

    world.publisher.publish = broken  # type: ignore[method-assign,assignment]
    put = ingest_pb2.PutDocumentRequest(collection="things", id="a", fields_json=b'{"title": "x"}')
    stub = ingest_pb2_grpc.IngestServiceStub(channel)
    with pytest.raises(grpc.RpcError) as failed:
        stub.PutDocument(put)
    assert (failed.value.code(), "secret" in failed.value.details()) == (grpc.StatusCode.INTERNAL, False)
    with pytest.raises(grpc.RpcError) as failed:
        list(stub.Bulk(iter([ingest_pb2.BulkRequest(put=put)])))
    assert (failed.value.code(), "secret" in failed.value.details()) == (grpc.StatusCode.INTERNAL, False)


def test_streams_that_nobody_feeds_end_and_let_others_in(channel: grpc.Channel) -> None:
    stub = ingest_pb2_grpc.IngestServiceStub(channel)
    idle = [stub.Bulk(_never()) for _ in range(4)]
    refused = None
    for answers in idle:
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        refused = ended.value.code()
    assert refused is grpc.StatusCode.CANCELLED
    assert [hit.id for hit in batch(channel, a_search())[0].hits] == ["a"]


def _never() -> Iterator[ingest_pb2.BulkRequest]:
    threading.Event().wait(20)
    yield from ()


def test_more_calls_than_the_bound_are_refused_at_once(channel: grpc.Channel, address: str) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]  # one connection has no more streams than there may be calls
    with grpc.insecure_channel(address, options=options) as other:
        grpc.channel_ready_future(channel).result(20)
        grpc.channel_ready_future(other).result(20)
        stubs = [ingest_pb2_grpc.IngestServiceStub(made) for made in (channel, other)]
        calls = [stub.Bulk(_never()) for stub in stubs for _ in range(3)]
        codes = Counter(call.code() for call in calls)  # waits for the end of each
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED: 2, grpc.StatusCode.CANCELLED: 4}
