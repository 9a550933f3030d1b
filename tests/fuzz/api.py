"""Requests: HTTP, gRPC, and each of their parsers alone."""

from __future__ import annotations

import contextlib
import re
import string
from functools import partial
from urllib.parse import quote

import numpy as np
import orjson

from driftline.adapters.milvus.filter import expression
from driftline.core import codec, jsons
from driftline.core.collections import parse_definition
from driftline.core.control import encode_definition
from driftline.core.errors import Denied, InvalidRequest
from driftline.core.filters import matches
from driftline.core.limits import MAX_JSON_DEPTH
from driftline.core.records import Position
from driftline.core.schema import validated
from driftline.ingest import validate
from driftline.ingest.rpc import IngestRpc
from driftline.query import request, rpc
from driftline.retrieval import filters
from driftline.retrieval.lexical import Bm25
from driftline.retrieval.plan import check_profiles, indexes_of, parse_plan
from driftline.upgrade.server import StartBody
from driftline.web.auth import Keys
from driftline.wire.v1 import ingest_pb2, search_pb2
from tests.fuzz.documents import fields, follow, make_json, message_of, utf8, values
from tests.fuzz.grammar import Grammar, Make
from tests.fuzz.target import Target
from tests.fuzz.world import changed_world, world

_METHODS = ("GET", "PUT", "POST", "DELETE")
_KINDS = ("text", "keyword", "integer", "float", "boolean", "datetime", "keyword_list", "integer_list", "json")


def make_put(g: Grammar) -> bytes:
    members: dict[str, Make] = {"fields": partial(fields, g)}
    if g.wild():
        members["version"] = g.number
    return utf8(g.object(members))


def make_bulk_line(g: Grammar) -> bytes:
    members: dict[str, Make] = {
        "id": lambda: g.string("a", "b"),
        "fields": partial(fields, g),
        "operation": lambda: g.string("upsert", "delete"),
        "version": g.number,
        "tenant": lambda: g.string("t"),
    }
    if not g.wild():
        del members["tenant"], members["version"], members[g.rng.choice(("operation", "fields"))]
    return utf8(g.object(members))


def a_condition(g: Grammar) -> str:
    makes = values(g)
    name = g.rng.choice(("kind", "year", "price", "sold", "seen", "tags", "codes"))
    value = makes[name]
    if name in ("tags", "codes"):
        value = g.string if name == "tags" else g.number
    field = f'"field":{g.string(name)}'
    match g.rng.randrange(6):
        case 0 | 1 if name not in ("tags", "codes") or g.wild():
            return f'{{{field},"eq":{value()}}}'
        case 2 if name not in ("tags", "codes") or g.wild():
            return f'{{{field},"in":{g.list(value, 4, 1)}}}'
        case 3 if name in ("year", "price", "seen") or g.wild():
            return f'{{{field},"{g.rng.choice(("gt", "gte", "lt", "lte"))}":{value()},"lt":{value()}}}'
        case 4 if name in ("tags", "codes") or g.wild():
            return f'{{{field},"contains":{value()}}}'
    return f"{{{field},{g.string('exists')}:{g.rng.choice(('true', 'false'))}}}"


def a_filter(g: Grammar, levels: int = 4) -> str:
    if g.wild() and g.one_in(20):
        return '{"not":' * g.rng.choice((15, 16, 17, 63, 64, 400)) + a_condition(g) + "}" * g.rng.choice((15, 16, 64))
    if levels == 0 or g.one_in(2):
        return g.json() if g.wild() and g.one_in(4) else a_condition(g)
    if g.one_in(3):
        return f'{{"not":{a_filter(g, levels - 1)}}}'
    return f"{{{g.string('and', 'or')}:{g.list(lambda: a_filter(g, levels - 1), 3, 1)}}}"


def make_filter(g: Grammar) -> bytes:
    return utf8(a_filter(g))


def a_vector(g: Grammar) -> str:
    return g.object({"values": lambda: g.list(g.number, 40, 1), "space": g.string})


def a_plan(g: Grammar) -> str:
    fuse: dict[str, Make] = {
        "kind": lambda: g.string("rrf", "minmax", "dbsf", "calibrated"),
        "k": g.number,
        "of": lambda: g.object({"default": lambda: g.object({"slope": g.number, "intercept": g.number})}),
    }
    part: dict[str, Make] = {
        "index": lambda: g.string("default"),
        "weight": lambda: g.number() if g.wild() else "2",
        "depth": lambda: g.number() if g.wild() else "20",
        "filter": partial(a_filter, g, 2),
        "text": lambda: g.string("blue"),
    }

    def a_part() -> str:
        chosen = {name: make for name, make in part.items() if name == "index" or g.one_in(4)}
        return g.object(chosen)

    def a_fusion() -> str:
        return g.string("rrf", "minmax") if g.one_in(2) else g.object({n: m for n, m in fuse.items() if g.one_in(2)})

    def step() -> str:
        members: dict[str, Make] = {"of": lambda: g.list(a_part, 3, 1)}
        return g.object({"search": lambda: g.object(members | ({"fuse": a_fusion} if g.one_in(2) else {}))})

    return g.list(step, 2, 1)


def a_search(g: Grammar) -> str:
    query: dict[str, Make] = {
        "text": lambda: g.string("red shoes"),
        "vector": partial(a_vector, g),
        "document": lambda: g.string("a"),
    }
    kind = g.rng.choice(tuple(query))
    others: dict[str, Make] = {
        "limit": lambda: g.number() if g.wild() else "10",
        "offset": lambda: g.number() if g.wild() else "5",
        "cursor": lambda: g.string("YQ", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3OjEw"),
        "filter": partial(a_filter, g),
        "output_fields": lambda: g.list(lambda: g.string("title", "kind")),
        "min_score": g.number,
        "tenant": lambda: g.string("t"),
        "rerank": lambda: g.number() if g.wild() else "5",
        "after": lambda: g.string("0.0", "1.5", "99.1"),
        "timeout_seconds": lambda: g.number() if g.wild() else "0.5",
        "explain": lambda: g.rng.choice(("true", "false")),
        "explain_document": lambda: g.string("a"),
        "index": lambda: g.string("default", "nope"),
        "profile": lambda: g.string("default"),
        "plan": partial(a_plan, g),
        "passages": lambda: g.number() if g.wild() else "3",
        "budget_ms": lambda: g.number() if g.wild() else "500",
    }
    chosen = {name: make for name, make in others.items() if g.one_in(4)}
    return g.object({kind: query[kind], **chosen})


def make_search(g: Grammar) -> bytes:
    return utf8(a_search(g))


def make_token(g: Grammar) -> bytes:
    parts = [str(g.rng.randrange(20)) if g.one_in(2) else g.text() for _ in range(g.rng.choice((1, 2, 2, 2, 3)))]
    return utf8(".".join(parts))


def a_definition(g: Grammar) -> str:
    def field(*kinds: str) -> str:
        return g.object({"type": lambda: g.string(*kinds), "required": lambda: "false"})

    names = ["title", "kind"] + ([g.text()] if g.wild() else [])
    if g.wild() and g.one_in(20):
        names = [f"f{i}" for i in range(300)]
    chunking: dict[str, Make] = {
        "mode": lambda: g.string("whole", "sentences"),
        "max_tokens": lambda: g.number() if g.wild() else "100",
        "overlap_tokens": lambda: g.number() if g.wild() else "20",
        "max_chunks": lambda: "9",
    }
    embedding: dict[str, Make] = {
        "encoder": lambda: g.string("hashing", "nope"),
        "fields": lambda: g.list(lambda: g.string("title"), 2, 1),
        "chunking": lambda: g.object(chunking) if g.one_in(2) else "{}",
    }
    analyzer: dict[str, Make] = {
        "language": lambda: g.string("english", "none", "german"),
        "ngrams": lambda: g.number() if g.wild() else "3",
        "average_length": g.number,
        "k1": g.number,
    }

    def indexes() -> str:
        lexical: dict[str, Make] = {
            "analyzer": lambda: g.string("english") if g.one_in(2) else g.object(analyzer),
            "fields": embedding["fields"],
        }
        return g.object({"default": lambda: g.object(embedding), "words": lambda: g.object(lexical)})

    members: dict[str, Make] = {
        "name": lambda: g.string("things", "new", "a-b_c"),
        "description": g.string,
        "fields": lambda: g.object(
            {name: partial(field, *(_KINDS if i else ("text",))) for i, name in enumerate(names)}
        ),
        **(
            {"embedding": lambda: g.object(embedding)}
            if g.one_in(2)
            else {"indexes": indexes, "profiles": lambda: g.object({"default": partial(a_plan, g)})}
        ),
        "metric": lambda: g.string("cosine", "ip", "l2"),
        "tenancy": lambda: g.rng.choice(("true", "false")),
    }
    return g.object(members)


def make_definition(g: Grammar) -> bytes:
    return utf8(a_definition(g))


def make_start(g: Grammar) -> bytes:
    def query() -> str:
        return g.object({"text": g.string, "relevant": lambda: g.object({"a": g.number}), "tenant": g.string})

    members: dict[str, Make] = {
        "encoder": lambda: g.string("hashing"),
        "margin": lambda: g.number() if g.wild() else "0.1",
        "pairs": lambda: "500",
        "per_second": g.number,
        "queries": lambda: g.list(query, 30, 12),
    }
    return utf8(g.object(members))


def make_http(g: Grammar) -> bytes:
    """`METHOD target`, a line feed, and the body."""

    def part(likely: str) -> str:
        return likely if not g.wild() else quote(g.text().encode("utf-8", "surrogatepass"), safe="")

    def parameters(**likely: str) -> str:
        chosen = [f"{name}={part(value)}" for name, value in likely.items() if name == "tenant" or g.one_in(3)]
        return "?" + "&".join(chosen) if chosen else ""

    name = part(g.rng.choice(("things", "shared")))
    document = f"/v1/collections/{name}/documents/{part('a')}"
    tenant = {"tenant": "t"} if name == "shared" else {}
    own = parameters(**tenant, wait="searchable", timeout_seconds="0.001", version="7")
    method, target, body = g.rng.choice(
        (
            ("PUT", document + own, make_put),
            ("DELETE", document + own, make_json),
            ("GET", document + parameters(**tenant), make_json),
            ("GET", f"/v1/status/{name}/{part('a')}{parameters(**tenant, token='0.5')}", make_json),
            ("POST", f"/v1/collections/{name}/bulk{parameters(**tenant)}", a_bulk_body),
            ("POST", f"/v1/collections/{name}/search", make_search),
            ("POST", f"/v1/collections/{name}/search/batch", a_batch_body),
            ("PUT", f"/v1/collections/{part('new')}", make_definition),
            (g.rng.choice(("GET", "PATCH", "POST")), f"/v1/collections/{name}{part('')}", make_json),
        )
    )
    return f"{method} {target}\n".encode() + body(g)


def a_bulk_body(g: Grammar) -> bytes:
    return b"\n".join(make_bulk_line(g) for _ in range(g.rng.randrange(4)))


def a_batch_body(g: Grammar) -> bytes:
    return utf8(g.object({"searches": lambda: g.list(lambda: a_search(g), 5)}))


def run_parse(content: bytes) -> str:
    value = jsons.parse(content)
    assert jsons.depth(content) <= MAX_JSON_DEPTH
    orjson.dumps(value)
    repr(value)
    return type(value).__name__


def run_put(content: bytes) -> str:
    fields, version = validate.put_body(jsons.parse(content))
    follow(codec.encode_change(validate.upsert(world().things, "a", fields, version, None, 0, "http")))
    return "accepted"


def run_bulk(content: bytes) -> str:
    line = jsons.parse(content, "line")
    for collection, tenant in ((world().revisions, "t"), (world().shared, "t")):
        with contextlib.suppress(InvalidRequest):
            follow(codec.encode_change(validate.bulk_line(collection, line, tenant, 0)))
    validate.bulk_line(world().things, line, None, 0)
    return "accepted"


_INTEGER = re.compile(r"[=<>,] (-?[0-9]+)(?=[ )])")


def run_filter(content: bytes) -> str:
    filter_ = filters.parse(world().things.definition, jsons.parse(content))
    if filter_ is None:
        return "none"
    for number in _INTEGER.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression(filter_))):
        assert -(2**63) < int(number) < 2**63, number
    matches(filter_, {"kind": "a", "year": 3, "price": 1.5, "tags": ["a"], "codes": [1], "seen": 0})
    return type(filter_).__name__


def run_search(content: bytes) -> str:
    body = request.parse(jsons.parse(content))
    filters.parse(world().things.definition, body.filter)
    if body.plan is not None:
        plan = parse_plan(world().things.definition, body.plan, "plan")
        assert indexes_of(plan) <= {"default"}
    offset, _ = request.place_of(body)
    again = body.model_copy(update={"cursor": request.make_cursor(body, offset, 100)})
    assert request.place_of(again) == (offset, 100)
    if body.after is not None:
        run_token(body.after.encode())
    if body.vector is not None:
        assert np.isfinite(np.square(np.array(body.vector.values, dtype=np.float32)).sum())
    return "accepted"


def run_token(content: bytes) -> str:
    with contextlib.suppress(ValueError):
        position = Position.parse(content.decode("utf-8", "surrogateescape"))
        assert position.partition >= 0 <= position.offset
        return "accepted"
    return "refused"


def run_definition(content: bytes) -> str:
    definition = parse_definition(jsons.parse(content))
    assert parse_definition(jsons.parse(encode_definition(definition))) == definition
    assert re.fullmatch("[a-z0-9_-]+", definition.name)
    check_profiles(definition)
    for index in definition.named_indexes.values():
        if index.analyzer is not None:
            Bm25(index.analyzer).document_weights(["red shoes"])
    return "accepted"


def run_http(content: bytes) -> str:
    head, _, body = content.partition(b"\n")
    method, _, target = head.decode("latin-1").partition(" ")
    if not target.startswith("/") or not target.isascii() or any(c not in string.printable for c in target):
        return "no request"
    if method == "DELETE" and "/documents/" not in target:
        return "left out: later inputs need the collections"
    app = (
        changed_world().query
        if "/search" in target or (method == "GET" and "/documents" in target)
        else changed_world().ingest
    )
    status = changed_world().call(app, method, target, body)
    # 503 is what a search is told whose `after` is not indexed in the time it gives.
    assert status < 500 or (status == 503 and b'"after"' in body), f"status {status}"
    return f"{method if method in _METHODS else 'other'} {target.count('/')} {status}"


def run_search_rpc(content: bytes) -> str:
    try:
        message = search_pb2.SearchRequest.FromString(content)
    except Exception:  # what does not parse never gets to us
        return "no message"
    body = rpc._body(message)
    filters.parse(world().things.definition, body.filter)
    request.place_of(body)
    return "accepted"


def run_ingest_rpc(content: bytes) -> str:
    try:
        message = ingest_pb2.PutDocumentRequest.FromString(content)
    except Exception:  # what does not parse never gets to us
        return "no message"
    servicer = IngestRpc.__new__(IngestRpc)
    servicer._view, servicer._clock = world().view, lambda: 0
    follow(codec.encode_change(servicer._put_event(message)))
    return "accepted"


def run_start(content: bytes) -> str:
    validated(StartBody, jsons.parse(content), "invalid_upgrade")
    return "accepted"


def run_keys(content: bytes) -> str:
    authorization, _, api_key = content.decode("latin-1").partition("\n")
    Keys(world().guarded).check(authorization, api_key, "write")
    return "let in"


def make_keys(g: Grammar) -> bytes:
    given = g.rng.choice(("Bearer 0123456789abcdef", "Bearer ", "0123456789abcdef", "Basic x")) + (g.text() * g.wild())
    return utf8(given if g.one_in(2) else f"\n{given}")


_REQUEST = (InvalidRequest,)
TARGETS = (
    Target("json", 80, make_json, run_parse, _REQUEST),
    Target("put", 80, make_put, run_put, _REQUEST),
    Target("bulk", 60, make_bulk_line, run_bulk, _REQUEST),
    Target("filter", 90, make_filter, run_filter, _REQUEST),
    Target("search", 80, make_search, run_search, _REQUEST),
    Target("token", 30, make_token, run_token, ()),
    Target("definition", 60, make_definition, run_definition, _REQUEST),
    Target("http", 150, make_http, run_http, ()),
    Target("search-rpc", 30, message_of(search_pb2.SearchRequest), run_search_rpc, _REQUEST),
    Target("ingest-rpc", 30, message_of(ingest_pb2.PutDocumentRequest), run_ingest_rpc, _REQUEST),
    Target("start", 20, make_start, run_start, _REQUEST),
    Target("keys", 10, make_keys, run_keys, (Denied,)),
)
