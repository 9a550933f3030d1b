"""The REST API of ingest."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from driftline.core import jsons, metrics
from driftline.core.collections import Collection, check_tenant
from driftline.core.control import ControlView
from driftline.core.errors import DriftlineError, InvalidRequest
from driftline.core.health import Health
from driftline.core.ports import VectorStore
from driftline.core.records import ChangeEvent, Clock, Position, document_key, now_us
from driftline.core.values import check_id
from driftline.ingest import validate
from driftline.ingest.accept import Accepted, Acceptor
from driftline.ingest.collections import Collections, as_json
from driftline.ingest.settings import IngestSettings
from driftline.web import app as web
from driftline.web.auth import Keys
from driftline.web.problems import problem_of

_DESCRIPTION = """
Write documents into collections. An answer of 202 means that Kafka has the change on all in-sync replicas: it will
be searchable, whatever is killed. Pass `wait=searchable` to be told when it is; pass the `token` of an answer to a
search as `after` to read your own write.
"""

_Id = Annotated[str, Path(description="document id, at most 512 bytes of UTF-8")]
_Tenant = Annotated[str | None, Query(description="required by collections with tenancy")]
_Wait = Annotated[Literal["none", "searchable"], Query(description="when to answer")]
_Timeout = Annotated[float, Query(gt=0, description="longest wait, in seconds; then the answer is 202 and `accepted`")]
_Version = Annotated[
    int | None, Query(description="external version, 1 to 2^53 - 1, where the collection has external versions")
]

_PUT_BODY = {"fields": {"title": "Red shoes", "price": 49.9}, "version": 7}


def create_app(
    settings: IngestSettings,
    keys: Keys,
    health: Health,
    view: ControlView,
    acceptor: Acceptor,
    collections: Collections,
    store: VectorStore,
    clock: Clock = now_us,
) -> FastAPI:
    app = web.create("Driftline ingest", _DESCRIPTION, health)
    _add_collections(app, keys, view, collections, settings.http.max_body_bytes)
    _add_documents(app, settings, keys, view, acceptor, clock)
    _add_status(app, keys, view, acceptor, store)
    _add_bulk(app, settings, keys, view, acceptor, clock)
    return app


def _add_collections(app: FastAPI, keys: Keys, view: ControlView, collections: Collections, limit: int) -> None:
    @app.put("/v1/collections/{name}", tags=["collections"], dependencies=[web.require(keys, "admin")])
    async def create_collection(name: str, request: Request) -> Response:
        """Create a collection from its definition. The same definition again answers 200."""
        raw = await web.read_json(request, limit)
        if isinstance(raw, dict) and raw.setdefault("name", name) != name:
            raise InvalidRequest("invalid_definition", f"expected {name!r}, as in the path", "name")
        collection, created = await run_in_threadpool(collections.create, raw)
        return web.json_response(as_json(collection), 201 if created else 200)

    @app.get("/v1/collections", tags=["collections"], dependencies=[web.require(keys, "search")])
    def list_collections() -> Response:
        return web.json_response({"collections": [as_json(c) for c in view.collections()]})

    @app.get("/v1/collections/{name}", tags=["collections"], dependencies=[web.require(keys, "search")])
    def show_collection(name: str) -> Response:
        """The definition, the generations with their spaces, and how many documents are searchable."""
        collection = view.collection(name)
        return web.json_response(as_json(collection, collections.count(collection)))

    @app.delete("/v1/collections/{name}", tags=["collections"], dependencies=[web.require(keys, "admin")])
    def delete_collection(name: str) -> Response:
        """Delete a collection with everything in it."""
        collections.delete(name)
        return Response(status_code=204)


def _answer(accepted: Accepted, document_id: str) -> Response:
    """201 for what is searchable, 200 for superseded, 422 for rejected, 202 while it is on its way."""
    body = accepted.as_json(document_id)
    status = {"searchable": 201, "superseded": 200, "rejected": 422}.get(body["state"], 202)
    return web.json_response(body, status)


def _add_documents(
    app: FastAPI, settings: IngestSettings, keys: Keys, view: ControlView, acceptor: Acceptor, clock: Clock
) -> None:
    longest = settings.ingest.max_wait_seconds

    def take(event: ChangeEvent, wait: str, timeout_seconds: float) -> Response:
        accepted = acceptor.accept([event])[0]
        if wait == "searchable":
            accepted = acceptor.wait(accepted, min(timeout_seconds, longest))
        return _answer(accepted, event.id)

    path = "/v1/collections/{collection}/documents/{document_id:path}"
    body_schema = {"requestBody": {"required": True, "content": {"application/json": {"example": _PUT_BODY}}}}

    @app.put(path, tags=["documents"], dependencies=[web.require(keys, "write")], openapi_extra=body_schema)
    async def put_document(
        request: Request, collection: str, document_id: _Id, tenant: _Tenant = None,
        wait: _Wait = "none", timeout_seconds: _Timeout = 10.0,
    ) -> Response:  # fmt: skip
        """Insert or replace one document as a whole."""
        body = await web.read_json(request, settings.http.max_body_bytes)
        fields, version = validate.put_body(body)
        known = view.collection(collection)
        event = validate.upsert(known, document_id, fields, version, tenant, clock(), "http")
        return await run_in_threadpool(take, event, wait, timeout_seconds)

    @app.delete(path, tags=["documents"], dependencies=[web.require(keys, "write")])
    def delete_document(
        collection: str, document_id: _Id, tenant: _Tenant = None, version: _Version = None,
        wait: _Wait = "none", timeout_seconds: _Timeout = 10.0,
    ) -> Response:  # fmt: skip
        """Delete one document. Deleting what does not exist is no error: the delete is a change like any other."""
        event = validate.delete(view.collection(collection), document_id, version, tenant, clock(), "http")
        return take(event, wait, timeout_seconds)


def _add_status(app: FastAPI, keys: Keys, view: ControlView, acceptor: Acceptor, store: VectorStore) -> None:
    @app.get("/v1/status/{collection}/{document_id:path}", tags=["documents"],
             dependencies=[web.require(keys, "search")])  # fmt: skip
    def document_status(
        collection: str, document_id: _Id, tenant: _Tenant = None,
        token: Annotated[str | None, Query(description="also tell the outcome of this event")] = None,
    ) -> Response:  # fmt: skip
        """What is stored of a document: its version and chunks, deleted or unknown; and, with a token, the receipt."""
        known = view.collection(collection)
        key = document_key(check_tenant(known.definition, tenant), check_id(document_id))
        body: dict[str, Any] = {"id": document_id, **_stored_state(known, view, store, key)}
        if token is not None:
            try:
                receipt = acceptor.receipt(Position.parse(token))
            except ValueError as error:
                raise InvalidRequest("invalid_token", "expected the token of an accepted change", "token") from error
            body["event"] = {"token": token, "state": receipt.outcome.name.lower() if receipt else "unknown"}
            if receipt is not None:
                names = ("version", "reason", "detail", "accepted_at_us", "read_at_us", "encoded_at_us",
                         "written_at_us", "searchable_at_us")  # fmt: skip
                body["event"] |= {n: getattr(receipt, n) for n in names if getattr(receipt, n)}
        return web.json_response(body)


def _stored_state(collection: Collection, view: ControlView, store: VectorStore, key: str) -> dict[str, Any]:
    target = collection.target(collection.complete, view.space(collection.complete.space).dimension)
    stored = store.versions(target, [key], None).get(key)
    if stored is None:
        return {"state": "unknown"}
    return {
        "state": "deleted" if stored.deleted else "searchable",
        "version": stored.version,
        "chunks": stored.chunks,
    }


def _add_bulk(
    app: FastAPI, settings: IngestSettings, keys: Keys, view: ControlView, acceptor: Acceptor, clock: Clock
) -> None:
    example = {"application/x-ndjson": {"example": '{"id": "a", "fields": {"title": "Red shoes"}}\n'}}
    body_schema = {"requestBody": {"required": True, "content": example}}

    @app.post("/v1/collections/{collection}/bulk", tags=["documents"], dependencies=[web.require(keys, "write")],
              openapi_extra=body_schema)  # fmt: skip
    async def bulk(request: Request, collection: str, tenant: _Tenant = None) -> Response:
        """NDJSON in, NDJSON out: one result per line, in order; a wrong line does not stop the others.

        The body is read as a stream of any length; results are held on disk above 1 MB until it ends, so a client
        may send everything before it reads anything.
        """
        known = view.collection(collection)
        results: Any = tempfile.SpooledTemporaryFile(max_size=1_000_000)  # noqa: SIM115 - closed by the stream
        number = 0
        async for lines in _line_groups(request, settings.ingest.bulk_lines, settings.ingest.max_line_bytes):
            take = partial(_take_lines, known, tenant, acceptor, clock, settings.ingest.max_line_bytes)
            answers = await run_in_threadpool(take, lines, number)
            number += len(lines)
            await run_in_threadpool(results.write, b"".join(orjson.dumps(a) + b"\n" for a in answers))
        return StreamingResponse(_spooled(results), media_type="application/x-ndjson")


def _spooled(results: Any) -> Iterator[bytes]:
    with results:
        results.seek(0)
        while part := results.read(65_536):
            yield part


async def _line_groups(request: Request, lines: int, longest: int) -> AsyncIterator[list[bytes]]:
    """The body's lines in groups. A line over `longest` bytes is cut there, and refused by the one who parses it."""
    group: list[bytes] = []
    rest = bytearray()
    async for part in request.stream():
        rest += part
        *whole, tail = rest.split(b"\n")
        # Keep one byte over the limit of an endless line, so that it is known to be too long.
        rest = tail if len(tail) <= longest else tail[: longest + 1]
        for line in whole:
            if line.strip():
                group.append(bytes(line[: longest + 1]))
            if len(group) >= lines:
                yield group
                group = []
    if rest.strip():
        group.append(bytes(rest))
    if group:
        yield group


def _take_lines(
    collection: Collection,
    tenant: str | None,
    acceptor: Acceptor,
    clock: Clock,
    longest: int,
    lines: list[bytes],
    first: int,
) -> list[dict[str, Any]]:
    """One answer per line: what was accepted, or the problem with its line number."""
    answers: list[dict[str, Any]] = []
    events: list[ChangeEvent] = []
    places: list[int] = []
    for i, line in enumerate(lines):
        answers.append({})
        try:
            if len(line) > longest:
                raise InvalidRequest("line_too_long", f"expected at most {longest} bytes", "line", 413)
            parsed = jsons.parse(line, "line")
            events.append(validate.bulk_line(collection, parsed, tenant, clock()))
            places.append(i)
        except InvalidRequest as error:
            metrics.EVENTS_REFUSED.labels(error.code).inc()
            answers[i] = {"line": first + i + 1, "problem": problem_of(error)}
    try:
        accepted = acceptor.accept(events) if events else []
        for i, event, result in zip(places, events, accepted, strict=True):
            answers[i] = {"line": first + i + 1, **result.as_json(event.id)}
    except DriftlineError as error:
        for i in places:
            answers[i] = {"line": first + i + 1, "problem": problem_of(error)}
    return answers
