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
from driftline.core.topics import BACKFILL, CHANGES, CONTROL, DEAD_LETTERS, DOCUMENTS, QUERIES, RECEIPTS, VECTORS
from driftline.local.stack import Stack
from driftline.wire.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc
from tests.client import User, until
from tests.oracle import POISON


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
    name = user.create(versions="external")
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


@pytest.mark.brokers
def test_a_cached_result_is_never_older_than_a_searchable_write(user: User) -> None:
    name = user.create()
    for i in range(6):
        user.put(name, f"d{i}", title="same query")
        assert len(user.search(name, "same query")) == i + 1
        assert len(user.search(name, "same query")) == i + 1


def test_filters_and_pages(user: User) -> None:
    name = user.create()
    user.bulk(
        name,
        [
            {
                "id": f"d{i}",
                "fields": {"title": "thing " + "more " * i, "kind": "even" if i % 2 == 0 else "odd", "year": i},
            }
            for i in range(20)
        ],
    )
    until(lambda: user.count(name) == 20, 30)
    found = user.ids(
        name, "thing", limit=20, filter={"and": [{"field": "kind", "eq": "even"}, {"field": "year", "gte": 10}]}
    )
    assert sorted(found) == ["d10", "d12", "d14", "d16", "d18"]
    answer = user.query.post(f"/v1/collections/{name}/search", json={"text": "thing", "limit": 7}).json()
    seen = [h["id"] for h in answer["hits"]]
    while "next_cursor" in answer:
        body = {"text": "thing", "limit": 7, "cursor": answer["next_cursor"]}
        answer = user.query.post(f"/v1/collections/{name}/search", json=body).json()
        seen += [h["id"] for h in answer["hits"]]
    assert sorted(seen) == sorted(f"d{i}" for i in range(20))


def test_tenants_are_apart(user: User) -> None:
    name = f"t{uuid.uuid4().hex[:8]}"
    definition = {"fields": {"title": {"type": "text"}}, "embedding": {"encoder": "hashing", "fields": ["title"]}}
    assert user.ingest.put(f"/v1/collections/{name}", json=definition | {"tenancy": True}).status_code == 201
    for tenant in ("one", "two"):
        url = f"/v1/collections/{name}/documents/a?tenant={tenant}&wait=searchable&timeout_seconds=30"
        assert user.ingest.put(url, json={"fields": {"title": f"of {tenant}"}}).status_code == 201
    for tenant in ("one", "two"):
        (hit,) = user.search(name, "of", tenant=tenant)
        assert hit["fields"] == {"title": f"of {tenant}"}


@pytest.mark.brokers
def test_a_deleted_collection_is_gone_and_its_successor_is_empty(user: User) -> None:
    name = user.create()
    user.put(name, "a", title="old life")
    definition = user.ingest.get(f"/v1/collections/{name}").json()["definition"]
    assert user.ingest.delete(f"/v1/collections/{name}").status_code == 204
    until(lambda: user.query.post(f"/v1/collections/{name}/search", json={"text": "x"}).status_code == 404, 20)
    assert user.ingest.put(f"/v1/collections/{name}", json=definition).status_code == 201
    assert user.put(name, "b", title="new life")["state"] == "searchable"
    assert user.ids(name, "life") == ["b"]


def test_grpc_does_what_rest_does(user: User, stack: Stack) -> None:
    name = user.create()
    with grpc.insecure_channel(stack.addresses["ingest_grpc"]) as channel:
        writer = ingest_pb2_grpc.IngestServiceStub(channel)  # type: ignore[no-untyped-call]
        put = ingest_pb2.PutDocumentRequest(
            collection=name, id="a", fields_json=orjson.dumps({"title": "over grpc"}), wait_seconds=30
        )
        accepted = writer.PutDocument(put).accepted
        assert accepted.state == "searchable"
        bad = ingest_pb2.PutDocumentRequest(collection=name, id="b", fields_json=b"{")
        changes = [ingest_pb2.BulkRequest(put=put), ingest_pb2.BulkRequest(put=bad)]
        answers = list(writer.Bulk(iter(changes)))
        assert [a.problem.code for a in answers] == ["", "malformed_json"]
        with pytest.raises(grpc.RpcError) as caught:
            writer.PutDocument(bad)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    with grpc.insecure_channel(stack.addresses["query_grpc"]) as channel:
        reader = search_pb2_grpc.SearchServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = reader.Search(search_pb2.SearchRequest(collection=name, text="over grpc", after=accepted.token))
        assert [h.id for h in answer.hits] == ["a"]
        got = reader.GetDocument(search_pb2.GetDocumentRequest(collection=name, id="a"))
        assert orjson.loads(got.fields_json) == {"title": "over grpc"}
        with pytest.raises(grpc.RpcError) as caught:
            reader.Search(search_pb2.SearchRequest(collection="nope", text="x"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
        listing = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {s.name for s in next(iter(listing)).list_services_response.service}
        assert "driftline.v1.SearchService" in names


@pytest.mark.brokers
@pytest.mark.parametrize("topic, reason", [(t, "undecodable") for t in (CHANGES.name, VECTORS.name, BACKFILL.name)])
def test_poison_in_a_topic_is_set_aside_alone_and_can_be_replayed(
    user: User, pipeline_kafka: KafkaSettings, topic: str, reason: str
) -> None:
    name = user.create()
    poison = b"\xff\xfe poison " + uuid.uuid4().bytes
    publisher = KafkaPublisher(pipeline_kafka)
    publisher.publish([Outgoing(topic, b"k", poison, 0), Outgoing(topic, b"k", b"", 0)])
    assert user.put(name, "after", title="life goes on")["state"] == "searchable"

    def letters() -> list[str]:
        return [x.reason for _, x in read_letters(pipeline_kafka) if x.value == poison and x.topic == topic]

    until(lambda: letters() == [reason], 20)
    (letter,) = [x for _, x in read_letters(pipeline_kafka) if x.value == poison]
    publisher.publish([original(letter, 0)])
    until(lambda: letters() == [reason, reason], 20)
    publisher.close()


@pytest.mark.brokers
def test_poison_in_the_other_topics_stops_nobody(user: User, pipeline_kafka: KafkaSettings, stack: Stack) -> None:
    """Control and receipts are followed by services, documents and dead letters are read by the command line."""
    publisher = KafkaPublisher(pipeline_kafka)
    others = (CONTROL.name, RECEIPTS.name, DOCUMENTS.name, DEAD_LETTERS.name, QUERIES.name)
    publisher.publish([Outgoing(topic, b"x", POISON, 0) for topic in others])
    publisher.close()
    name = user.create()
    assert user.put(name, "a", title="still here")["state"] == "searchable"
    uid = user.ingest.get(f"/v1/collections/{name}").json()["uid"]
    assert {e.id for e in accepted_documents(KafkaLogReader(pipeline_kafka), uid)[0].values()} == {"a"}
    assert "not a DeadLetter" in run_cli(stack, "dead-letters", "list")
    assert "unreadable record documents/0/" in run_cli(stack, "verify", name)


@pytest.mark.brokers
def test_the_documents_topic_is_the_source_of_truth(user: User, pipeline_kafka: KafkaSettings) -> None:
    name = user.create(versions="external")
    uid = user.ingest.get(f"/v1/collections/{name}").json()["uid"]
    user.put(name, "a", title="one", version=2)
    user.put(name, "a", title="late", version=1)
    user.put(name, "b", title="two", version=5)
    user.delete(name, "b", version=5)
    found = {
        e.id: (e.operation.name, e.fields_json)
        for e in accepted_documents(KafkaLogReader(pipeline_kafka), uid)[0].values()
    }
    assert found == {"a": ("UPSERT", b'{"title":"one"}'), "b": ("DELETE", b"")}


@pytest.mark.brokers
def test_a_users_own_topic_flows_in(user: User, stack: Stack, tmp_path: Path) -> None:
    name = user.create()
    plain, debezium = f"orders-{name}", f"rows-{name}"
    raw = KafkaSettings(bootstrap_servers=stack.addresses["kafka"], topic_prefix="")
    admin = KafkaTopicAdmin(raw)
    for topic in (plain, debezium):
        admin.create(topic, 2, 1, {})
    admin.close()
    publisher = KafkaPublisher(raw)
    row = {"payload": {"op": "c", "after": {"pk": 7, "name": "from a database"}}}
    publisher.publish(
        [
            Outgoing(plain, b"p1", b'{"text": {"headline": "from a topic"}, "n": 3}'),
            Outgoing(plain, b"p2", b'{"text": {"headline": "soon gone"}}'),
            Outgoing(plain, b"p2", None),
            Outgoing(plain, b"p3", b"{broken"),
            Outgoing(debezium, b'{"pk": 7}', orjson.dumps(row)),
        ]
    )
    sources = tmp_path / "sources.yaml"
    sources.write_text(
        f"""sources:
  - {{topic: {plain}, collection: {name}, fields: {{title: text.headline, year: n}}}}
  - {{topic: {debezium}, collection: {name}, format: debezium, id: $key.pk, fields: {{title: name}}}}
"""
    )
    env = dict(stack.env)
    stack.env |= {"DRIFTLINE_INGEST__SOURCES_FILE": str(sources), "DRIFTLINE_INGEST__SOURCES_GROUP": f"g-{name}"}
    stack.start_service("ingest", 9)
    try:
        stack.wait_ready("ingest-9")
        until(lambda: sorted(user.ids(name, "from")) == ["7", "p1"], 40)
        publisher.publish([Outgoing(debezium, b'{"pk": 7}', orjson.dumps({"payload": {"op": "d"}}))])
        until(lambda: user.ids(name, "from") == ["p1"], 30)
        assert user.search(name, "from a topic")[0]["fields"] == {"title": "from a topic", "year": 3}
        reasons = [
            x.reason
            for _, x in read_letters(KafkaSettings(bootstrap_servers=stack.addresses["kafka"]))
            if x.topic == plain
        ]
        assert reasons == ["malformed_json"]
    finally:
        stack.remove("ingest-9")
        stack.env = env
        publisher.close()


def run_cli(stack: Stack, *arguments: str, code: int = 0) -> str:
    env = {"DRIFTLINE_HOME": str(stack.home), "PATH": "/usr/bin:/bin", "COLUMNS": "200", "HOME": str(stack.home)}
    done = subprocess.run(
        [sys.executable, "-m", "driftline.cli", *arguments],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_from_definition_to_search(user: User, stack: Stack, tmp_path: Path) -> None:
    name = f"cli{uuid.uuid4().hex[:6]}"
    definition = tmp_path / "c.yaml"
    definition.write_text(
        f"name: {name}\nfields: {{title: {{type: text}}, kind: {{type: keyword, filter: true}}}}\n"
        "embedding: {encoder: hashing, fields: [title]}\n"
    )
    run_cli(stack, "collections", "create", "-f", str(definition))
    documents = tmp_path / "d.csv"
    documents.write_text("id,title,kind\na,red shoes,shoe\nb,blue hat,hat\n")
    loaded = orjson.loads(run_cli(stack, "load", name, str(documents), "--json"))
    assert (loaded["accepted"], loaded["refused"], loaded["searchable"]) == (2, 0, True)
    answer = orjson.loads(
        run_cli(stack, "search", name, "red shoes", "--filter", '{"field":"kind","eq":"shoe"}', "--json")
    )
    assert [h["id"] for h in answer["hits"]] == ["a"]
    assert "red shoes" in run_cli(stack, "document", "get", name, "a")
    run_cli(stack, "verify", name)
    run_cli(stack, "document", "delete", name, "a")
    assert orjson.loads(run_cli(stack, "collections", "show", name, "--json"))["documents"] == 1
    run_cli(stack, "topics", "create")
    assert "hashing" in run_cli(stack, "models", "list")
    assert "ingest" in run_cli(stack, "status", "--json")
    run_cli(stack, "doctor")
    assert "DRIFTLINE_KAFKA__PARTITIONS" in run_cli(stack, "settings", "encode")
    run_cli(stack, "search", "nope", "x", code=1)
    run_cli(stack, "collections", "delete", name, "--yes")


def test_every_service_has_metrics(stack: Stack) -> None:
    import httpx

    for service in ("ingest", "encode", "index", "query"):
        text = httpx.get(stack.addresses[service] + "/metrics", trust_env=False).text
        assert f'service="{service}"' in text
    index = httpx.get(stack.addresses["index"] + "/metrics", trust_env=False).text
    assert "driftline_freshness_seconds_count" in index
