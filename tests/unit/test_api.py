"""The HTTP APIs on in-memory adapters: every kind of bad input with its exact answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from driftline.cli.client import each_line
from driftline.core import codec, keys
from driftline.core.errors import Overloaded, Unavailable
from driftline.core.records import Operation as Op
from driftline.core.records import Outcome, Outgoing, Position, Receipt
from driftline.core.settings import AuthSettings, HttpSettings
from driftline.core.topics import CHANGES, RECEIPTS
from driftline.ingest.bulk import BulkGate
from driftline.ingest.settings import IngestSection
from tests.build import BASE
from tests.client import until
from tests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


DOC = "/v1/collections/things/documents/a"
# Of a collection with external versions.
REV = "/v1/collections/revisions/documents/a"


@pytest.mark.parametrize(
    "path, body, status, code, field",
    [
        (DOC, b"{", 400, "malformed_json", "body"),
        (DOC, b'{"fields": {"title": "\xff"}}', 400, "invalid_utf8", "body"),
        (DOC, b'{"fields": {"price": NaN, "title": "x"}}', 400, "malformed_json", "body"),
        (DOC, b"[]", 422, "wrong_type", "body"),
        (DOC, b"{}", 422, "missing_field", "fields"),
        (DOC, b'{"fields": [1]}', 422, "wrong_type", "fields"),
        (DOC, b'{"fields": {"title": "x"}, "extra": 1}', 422, "unknown_key", "extra"),
        (DOC, b'{"fields": {"title": 3}}', 422, "wrong_type", "title"),
        (DOC, b'{"fields": {"title": "x", "year": "2020"}}', 422, "wrong_type", "year"),
        (DOC, b'{"fields": {"title": "x", "year": 1e30}}', 422, "wrong_type", "year"),
        (DOC, b'{"fields": {"title": "x", "year": true}}', 422, "wrong_type", "year"),
        (DOC, b'{"fields": {"title": "x", "seen": "yesterday"}}', 422, "wrong_type", "seen"),
        (DOC, b'{"fields": {"title": "x", "tags": "a"}}', 422, "wrong_type", "tags"),
        (DOC, b'{"fields": {"title": "x", "color": "red"}}', 422, "unknown_field", "color"),
        (DOC, b'{"fields": {"title": ' + b"[" * 1_000 + b"]" * 1_000 + b"}}", 400, "too_deep", "body"),
        (DOC, b'{"fields": {"title": ' + b"[" * 60 + b"]" * 60 + b"}}", 422, "wrong_type", "title"),
        (DOC, b'{"fields": {"kind": "x"}}', 422, "empty_text", "title, body"),
        (DOC, b'{"fields": {"title": "  "}}', 422, "empty_text", "title, body"),
        (DOC, b'{"fields": {"title": "x"}, "version": 7}', 422, "version_unexpected", "version"),
        (REV, b'{"fields": {"title": "x"}}', 422, "version_required", "version"),
        (REV, b'{"fields": {"title": "x"}, "version": false}', 422, "invalid_version", "version"),
        (REV, b'{"fields": {"title": "x"}, "version": -1}', 422, "invalid_version", "version"),
        (REV, b'{"fields": {"title": "x"}, "version": 9999999999999999}', 422, "invalid_version", "version"),
        (DOC, b'{"fields": {"title": "%s"}}' % (b"x" * 61_000), 413, "document_too_large", "fields"),
        (DOC, b'{"fields": {"title": "%s"}}' % (b"x" * 200_000), 413, "body_too_large", "body"),
        (DOC + "?tenant=t", b'{"fields": {"title": "x"}}', 422, "tenancy_off", "tenant"),
        ("/v1/collections/shared/documents/a", b'{"fields": {"title": "x"}}', 422, "tenant_required", "tenant"),
        ("/v1/collections/nope/documents/a", b'{"fields": {"title": "x"}}', 404, "unknown_collection", "collection"),
        ("/v1/collections/things/documents/" + "i" * 600, b'{"fields": {"title": "x"}}', 422, "invalid_id", "id"),
        ("/v1/collections/things/documents/" + "i" * 60_000, b'{"fields": {"title": "x"}}', 422, "invalid_id", "id"),
        (DOC + "?wait=maybe", b'{"fields": {"title": "x"}}', 422, "invalid_parameter", "wait"),
        (DOC + "?timeout_seconds=0", b'{"fields": {"title": "x"}}', 422, "invalid_parameter", "timeout_seconds"),
        ("/v1/nothing", b"{}", 404, "unknown_path", None),
    ],
)
def test_bad_put(world: World, path: str, body: bytes, status: int, code: str, field: str | None) -> None:
    answer = world.ingest.put(path, content=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field)
    assert answer.headers["content-type"] == "application/problem+json"
    assert world.log.all(CHANGES.name) == []


def test_put_answers_with_token_and_assigned_version(world: World) -> None:
    answer = world.ingest.put(DOC, json={"fields": {"title": "x"}})
    assert answer.status_code == 202
    position = Position.parse(answer.json()["token"])
    assert answer.json() == {
        "id": "a",
        "token": position.token(),
        "version": BASE + position.offset,
        "state": "accepted",
    }
    (record,) = world.log.all(CHANGES.name)
    assert codec.decode_change(record.value).version == 0


def test_put_waits_for_its_receipt(world: World) -> None:
    first = world.ingest.put(DOC, json={"fields": {"title": "x"}}).json()
    position = Position.parse(first["token"])
    following = Position(position.partition, position.offset + 1)
    receipt = Receipt(following, "things", "", "a", Op.UPSERT, 4, Outcome.REJECTED, "empty_text", "told so")
    world.log.append(Outgoing(RECEIPTS.name, b"", codec.encode_receipts([receipt]), position.partition))
    answer = world.ingest.put(DOC + "?wait=searchable", json={"fields": {"title": "y"}})
    assert answer.status_code == 422
    assert (answer.json()["state"], answer.json()["reason"]) == ("rejected", "empty_text")


def test_a_wait_that_ends_early_says_accepted(world: World) -> None:
    answer = world.ingest.put(DOC + "?wait=searchable&timeout_seconds=0.05", json={"fields": {"title": "x"}})
    assert (answer.status_code, answer.json()["state"]) == (202, "accepted")


def test_over_the_bound_is_429_and_nothing_is_taken() -> None:
    world = World(max_pending=1)
    world.acceptor._pending = 1
    answer = world.ingest.put(DOC, json={"fields": {"title": "x"}})
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert world.log.all(CHANGES.name) == []
    world.close()


def test_kafka_down_is_503_with_retry_after(world: World) -> None:
    world.publisher.failing = Unavailable("kafka", "no broker", 2)
    answer = world.ingest.delete(DOC)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "2")


def test_bulk_answers_every_line_in_order(world: World) -> None:
    lines = [
        b'{"id": "a", "fields": {"title": "one"}}',
        b"{not json",
        b"",
        b'{"id": "b", "operation": "delete"}',
        b'{"id": "c", "fields": {"title": 1}}',
        b'{"id": "d", "fields": {"title": "%s"}}' % (b"x" * 3_000),
        b'{"id": "e", "operation": "upgrade"}',
        b'{"id": "f", "fields": {"title": "\xff"}}',
        b'{"id": 7, "fields": {"title": "x"}}',
        b'{"id": "g", "fields": {"title": "x"}, "color": "red"}',
        b'{"id": "h", "operation": "delete", "fields": {}}',
        b'{"id": "i", "fields": {"title": "last"}}',
    ]
    answer = world.ingest.post("/v1/collections/things/bulk", content=b"\n".join(lines))
    *results, last = [json.loads(line) for line in answer.content.splitlines()]
    codes = [r.get("problem", {}).get("code", r.get("state")) for r in results]
    assert codes == [
        "accepted", "malformed_json", "accepted", "wrong_type", "line_too_long", "invalid_operation", "invalid_utf8",
        "invalid_id", "unknown_key", "unknown_key", "accepted",
    ]  # fmt: skip
    assert [r["line"] for r in results] == list(range(1, 12))
    assert len(world.log.all(CHANGES.name)) == 3
    summary = last["summary"]
    assert (summary["lines"], summary["accepted"], summary["refused"], summary["told"]) == (11, 3, 8, 11)
    assert summary["refused_by_code"]["unknown_key"] == 2
    ends = {result["token"].split(".")[0]: result["token"] for result in results if "token" in result}
    assert sorted(summary["tokens"]) == sorted(ends.values())


def test_bulk_tells_lines_with_an_equal_problem_together(world: World) -> None:
    lines = b"x\n" * 20_000 + b'{"id": "a", "operation": "delete"}\n' + b"x\n"
    answer = world.ingest.post("/v1/collections/things/bulk", content=lines)
    first, accepted, second, last = [json.loads(line) for line in answer.content.splitlines()]
    assert (first["line"], first["last_line"], first["problem"]["code"]) == (1, 20_000, "malformed_json")
    assert (accepted["line"], accepted["state"]) == (20_001, "accepted")
    assert second == {"line": 20_002, "problem": first["problem"]}
    assert last["summary"]["refused_by_code"] == {"malformed_json": 20_001}
    assert [r["line"] for r in each_line(answer.content)] == list(range(1, 20_003))


def test_bulk_may_leave_out_what_was_accepted(world: World) -> None:
    lines = b'{"id": "a", "operation": "delete"}\n{"id": 7}\n'
    answer = world.ingest.post("/v1/collections/things/bulk?answer=errors", content=lines)
    refused, last = [json.loads(line) for line in answer.content.splitlines()]
    assert (refused["line"], refused["problem"]["code"]) == (2, "invalid_id")
    assert (last["summary"]["accepted"], len(last["summary"]["tokens"])) == (1, 1)


def test_a_bulk_answer_is_never_much_longer_than_its_request(world: World) -> None:
    lines = b"x\n[]\n" * 20_000
    answer = world.ingest.post("/v1/collections/things/bulk", content=lines)
    *told, last = [json.loads(line) for line in answer.content.splitlines()]
    assert len(answer.content) < 262_144 + 8 * len(lines) + 10_000
    assert last["summary"]["refused"] == last["summary"]["lines"] == 40_000
    assert last["summary"]["told"] == len(told) < 40_000
    with pytest.raises(ValueError, match="tells"):
        each_line(answer.content)


def test_a_problem_tells_little_of_what_was_sent(world: World) -> None:
    lines = b'{"id": "a", "%s": 1}\n' % (b"k" * 1_500)
    answer = world.ingest.post("/v1/collections/things/bulk", content=lines)
    assert len(answer.content.splitlines()[0]) < 600


def test_bulk_requests_are_bounded_in_number() -> None:
    world = World(ingest_section=IngestSection(max_bulks=1))
    gate, url = BulkGate(1), "/v1/collections/things/bulk"
    with gate.enter(), pytest.raises(Overloaded), gate.enter():
        pass
    assert [world.ingest.post(url, content=b"x\n").status_code for _ in range(3)] == [200, 200, 200]
    world.close()


@pytest.mark.parametrize("path", [DOC, "/v1/collections/things/bulk", "/v1/collections/new"])
def test_a_compressed_body_is_refused(world: World, path: str) -> None:
    method = "POST" if path.endswith("bulk") else "PUT"
    answer = world.ingest.request(method, path, content=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert (
        world.ingest.request(method, path, content=b"{}", headers={"Content-Encoding": "identity"}).status_code != 415
    )


def test_more_requests_than_the_bound_are_429_but_for_health() -> None:
    world = World(http=HttpSettings(max_requests=1))
    world.ingest_app.state.intake.enter()
    answer = world.ingest.put(DOC, json={"fields": {"title": "x"}})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "overloaded", "1")
    assert [world.ingest.get(path).status_code for path in ("/livez", "/metrics")] == [200, 200]
    world.ingest_app.state.intake.leave({})
    assert world.ingest.put(DOC, json={"fields": {"title": "x"}}).status_code == 202
    world.close()


def test_the_bodies_of_all_requests_together_are_bounded() -> None:
    world = World(http=HttpSettings(max_buffered_bytes=1_000))
    body = {"fields": {"title": "x" * 600}}
    assert world.ingest.put(DOC, json=body).status_code == 202
    world.ingest_app.state.intake._bytes += 600
    assert world.ingest.put(DOC, json=body).json()["code"] == "overloaded"
    assert world.ingest_app.state.intake._bytes == 600
    world.close()


@pytest.mark.parametrize("path", ["/v1/collections/things/documents/%fe", DOC + "?tenant=%ff"])
def test_an_address_that_is_not_utf8_is_refused(world: World, path: str) -> None:
    """Decoded leniently, %FE and %FF would be the same document."""
    answer = world.ingest.put(path, json={"fields": {"title": "x"}})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_utf8")


def test_waiting_writers_take_no_thread_from_others(world: World) -> None:
    """The pool for work that is over soon has 40 threads."""
    with ThreadPoolExecutor(60) as clients:
        url = DOC + "?wait=searchable&timeout_seconds=3"
        waiting = [clients.submit(world.ingest.put, url, json={"fields": {"title": "x"}}) for _ in range(60)]
        until(lambda: len(world.log.all(CHANGES.name)) == 60, 10)
        assert not any(answer.done() for answer in waiting)
        assert {answer.result().status_code for answer in waiting} == {202}


@pytest.mark.parametrize(
    "change, field",
    [
        ({"name": "Bad Name"}, "name"),
        ({"fields": {}}, "fields"),
        ({"fields": {"title": {"type": "vector"}}}, "fields.title.type"),
        ({"fields": {"title": {"type": "text", "filter": True}}}, "fields.title"),
        ({"embedding": {"encoder": "hashing", "fields": ["nope"]}}, "body"),
        ({"embedding": {"encoder": "nope", "fields": ["title"]}}, "embedding.encoder"),
        ({"surprise": 1}, "surprise"),
        ({"metric": "dot"}, "metric"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_place(world: World, change: dict[str, Any], field: str) -> None:
    good = {
        "name": "new",
        "fields": {"title": {"type": "text"}},
        "embedding": {"encoder": "hashing", "fields": ["title"]},
    }
    answer = world.ingest.put("/v1/collections/new", json=good | change)
    assert answer.status_code == 422
    assert answer.json().get("field", "") == field


def test_a_collection_is_created_shown_listed_and_deleted(world: World) -> None:
    good = {"fields": {"title": {"type": "text"}}, "embedding": {"encoder": "hashing", "fields": ["title"]}}
    assert world.ingest.put("/v1/collections/new", json=good).status_code == 201
    assert world.ingest.put("/v1/collections/new", json=good).status_code == 200
    other = good | {"metric": "ip"}
    assert world.ingest.put("/v1/collections/new", json=other).json()["code"] == "collection_exists"
    names = [c["name"] for c in world.ingest.get("/v1/collections").json()["collections"]]
    assert names == ["new", "revisions", "shared", "things"]
    assert world.ingest.get("/v1/collections/new").json()["documents"] == 0
    assert world.ingest.delete("/v1/collections/new").status_code == 204
    assert world.ingest.get("/v1/collections/new").status_code == 404


@pytest.mark.parametrize(
    "body, status, code, field",
    [
        (b"{", 400, "malformed_json", "body"),
        (b"{}", 422, "invalid_search", "text"),
        (b'{"text": "x", "document": "a"}', 422, "invalid_search", "text"),
        (b'{"text": " "}', 422, "empty_text", "text"),
        (b'{"text": 3}', 422, "invalid_search", "text"),
        (b'{"text": "x", "limit": 0}', 422, "invalid_search", "limit"),
        (b'{"text": "x", "limit": 5000}', 422, "invalid_search", "limit"),
        (b'{"text": "x", "limit": "5"}', 422, "invalid_search", "limit"),
        (b'{"text": "x", "offset": 9999}', 422, "invalid_search", "offset"),
        (b'{"text": "x", "surprise": 1}', 422, "invalid_search", "surprise"),
        (b'{"text": "x", "filter": {"field": "nope", "eq": 1}}', 422, "invalid_filter", "filter.field"),
        (b'{"text": "x", "output_fields": ["nope"]}', 422, "unknown_field", "output_fields"),
        (b'{"text": "x", "cursor": "!!"}', 422, "invalid_cursor", "cursor"),
        (b'{"text": "x", "after": "zzz"}', 422, "invalid_token", "after"),
        (b'{"text": "x", "after": "99.0"}', 422, "invalid_token", "after"),
        (b'{"text": "x", "after": "' + b"9" * 5_000 + b'.0"}', 422, "invalid_search", "after"),
        (b'{"text": "x", "filter": ' + b'{"not": ' * 400 + b"{}" + b"}" * 400 + b"}", 400, "too_deep", "body"),
        (
            b'{"text": "x", "cursor": "YQ", "filter": {"a": ' + b"[" * 60 + b"]" * 60 + b"}}",
            422,
            "invalid_filter",
            "filter",
        ),
        (b'{"text": "x", "tenant": "t"}', 422, "tenancy_off", "tenant"),
        (b'{"vector": {"values": [1, 2]}}', 422, "wrong_dimension", "vector.values"),
        (b'{"vector": {"values": [NaN]}}', 400, "malformed_json", "body"),
        (b'{"vector": {"values": [1], "space": "other"}}', 422, "space_mismatch", "vector.space"),
        (b'{"document": "missing"}', 404, "unknown_document", "document"),
    ],
)
def test_bad_search(world: World, body: bytes, status: int, code: str, field: str) -> None:
    answer = world.query.post("/v1/collections/things/search", content=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field)


def test_search_by_text_vector_and_document(world: World) -> None:
    world.store_text("a", "red shoes", kind="shoe")
    world.store_text("b", "red hat", kind="hat")
    world.store_text("c", "green tea", kind="drink")
    url = "/v1/collections/things/search"
    hits = world.query.post(url, json={"text": "red shoes", "limit": 2}).json()["hits"]
    assert [h["id"] for h in hits] == ["a", "b"]
    assert hits[0]["fields"] == {"title": "red shoes", "kind": "shoe"}
    values = world.embedder._one("green tea").tolist()
    answer = world.query.post(url, json={"vector": {"values": values, "space": world.embedder.space.fingerprint}})
    assert answer.json()["hits"][0]["id"] == "c"
    like = world.query.post(url, json={"document": "a", "limit": 1, "output_fields": ["kind"]}).json()["hits"]
    assert [(h["id"], h["fields"]) for h in like] == [("b", {"kind": "hat"})]
    filtered = world.query.post(url, json={"text": "red", "filter": {"field": "kind", "eq": "hat"}}).json()
    assert [h["id"] for h in filtered["hits"]] == ["b"]
    assert world.query.post(url, json={"text": "red shoes", "min_score": 0.9}).json()["hits"][0]["id"] == "a"


def test_pages_follow_the_cursor_without_gaps(world: World) -> None:
    for i in range(7):
        world.store_text(f"d{i}", "same words")
    url = "/v1/collections/things/search"
    seen: list[str] = []
    body: dict[str, Any] = {"text": "same words", "limit": 3}
    while True:
        answer = world.query.post(url, json=body).json()
        seen += [h["id"] for h in answer["hits"]]
        if "next_cursor" not in answer:
            break
        body["cursor"] = answer["next_cursor"]
    assert sorted(seen) == [f"d{i}" for i in range(7)]
    other = world.query.post(url, json={"text": "other", "cursor": body["cursor"]}).json()
    assert other["code"] == "invalid_cursor"


def test_a_result_is_cached_until_the_collection_changes(world: World) -> None:
    world.store_text("a", "red shoes")
    world.cache.increment(keys.epoch(world.collection.uid))
    url, body = "/v1/collections/things/search", {"text": "red shoes"}
    assert world.query.post(url, json=body).json()["cached"] is False
    until(lambda: any(key.startswith("p:") for key in world.cache.items), 5)
    assert world.query.post(url, json=body).json()["cached"] is True
    world.store_text("b", "red shoes too")
    world.cache.increment(keys.epoch(world.collection.uid))
    fresh = world.query.post(url, json=body).json()
    assert (fresh["cached"], len(fresh["hits"])) == (False, 2)


def test_a_receipt_alone_outdates_a_cached_result(world: World) -> None:
    """As when Redis lost the count of writes."""
    world.store_text("a", "red shoes")
    world.cache.increment(keys.epoch(world.collection.uid))
    url, body = "/v1/collections/things/search", {"text": "red shoes"}
    world.query.post(url, json=body)
    world.store_text("b", "red shoes too")
    receipt = Receipt(Position(0, 0), "things", "", "b", Op.UPSERT, 1, Outcome.SEARCHABLE)
    world.log.append(Outgoing(RECEIPTS.name, b"", codec.encode_receipts([receipt]), 0))
    assert world.tail.wait(Position(0, 0), 5) is not None
    assert len(world.query.post(url, json=body).json()["hits"]) == 2


def test_after_waits_for_the_write_or_says_so(world: World) -> None:
    world.store_text("a", "x")
    url = "/v1/collections/things/search"
    late = world.query.post(url, json={"text": "x", "after": "0.5", "timeout_seconds": 0.05})
    assert (late.status_code, late.json()["code"]) == (503, "unavailable")
    for offset in (6, 5):
        # That of a later event says nothing: this one may have been put off.
        assert world.query.post(url, json={"text": "x", "after": "0.5", "timeout_seconds": 0.05}).status_code == 503
        receipt = Receipt(Position(0, offset), "things", "", "b", Op.UPSERT, 1, Outcome.SEARCHABLE)
        world.log.append(Outgoing(RECEIPTS.name, b"", codec.encode_receipts([receipt]), 0))
    assert world.query.post(url, json={"text": "x", "after": "0.5"}).status_code == 200


def test_redis_down_never_fails_a_search(world: World) -> None:
    world.store_text("a", "red shoes")
    world.cache.down = True
    assert world.query.post("/v1/collections/things/search", json={"text": "red"}).status_code == 200


def test_batch_search_answers_each(world: World) -> None:
    world.store_text("a", "red shoes")
    url = "/v1/collections/things/search/batch"
    searches = [{"text": "red"}, {"document": "missing"}, {"text": "shoes", "explain": True}]
    results = world.query.post(url, json={"searches": searches}).json()["results"]
    assert [h["id"] for h in results[0]["hits"]] == ["a"]
    assert results[1]["problem"]["code"] == "unknown_document"
    assert results[2]["explain"]["steps"][0]["of"][0]["encoder"] == "hashing@1"
    bad = world.query.post(url, json={"searches": [{"text": "x"}, {"limit": 1}]}).json()
    assert bad["field"] == "searches[1]"


def test_api_keys_decide_who_may_do_what(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# comment\nreader search aaaaaaaaaaaaaaaa\nloader write bbbbbbbbbbbbbbbb\n")
    world = World(AuthSettings(mode="api_key", keys_file=keys))
    body = {"fields": {"title": "x"}}
    assert world.ingest.put(DOC, json=body).status_code == 401
    assert world.ingest.put(DOC, json=body, headers={"X-API-Key": "wrong"}).status_code == 401
    reader = {"Authorization": "Bearer aaaaaaaaaaaaaaaa"}
    assert world.ingest.put(DOC, json=body, headers=reader).status_code == 403
    loader = {"Authorization": "Bearer bbbbbbbbbbbbbbbb"}
    assert world.ingest.put(DOC, json=body, headers=loader).status_code == 202
    assert world.ingest.delete("/v1/collections/things", headers=loader).status_code == 403
    assert world.query.post("/v1/collections/things/search", json={"text": "x"}, headers=reader).status_code == 200
    assert world.ingest.get("/livez").status_code == 200
    world.close()


def test_the_openapi_describes_bodies_and_tags(world: World) -> None:
    spec = world.query.get("/openapi.json").json()
    search = spec["paths"]["/v1/collections/{collection}/search"]["post"]
    assert "text" in search["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert world.ingest.get("/metrics").text.count("driftline_") > 10


def test_document_and_status(world: World) -> None:
    world.store_text("a/b c", "red")
    got = world.query.get("/v1/collections/things/documents/a%2Fb%20c").json()
    assert (got["id"], got["fields"]) == ("a/b c", {"title": "red"})
    assert world.query.get("/v1/collections/things/documents/zzz").status_code == 404
    status = world.ingest.get("/v1/status/things/a%2Fb%20c").json()
    assert status == {"id": "a/b c", "state": "searchable", "version": 1, "chunks": 1}
    assert world.ingest.get("/v1/status/things/zzz").json()["state"] == "unknown"
