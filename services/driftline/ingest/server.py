"""The REST API of ingest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from driftline.core.collections import Collection, CollectionDefinition, check_tenant
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRequest, PartlyUnavailable
from driftline.core.health import Health
from driftline.core.limits import MAX_VERSION
from driftline.core.ports import VectorStore
from driftline.core.records import ChangeEvent, Clock, Position, document_key, now_us
from driftline.core.store import StoredVersion
from driftline.core.values import check_id
from driftline.ingest import validate
from driftline.ingest.accept import Accepted, Acceptor
from driftline.ingest.bulk import BulkAnswer, BulkGate, Lines, Which
from driftline.ingest.collections import Collections, as_json
from driftline.ingest.settings import IngestSettings
from driftline.web import app as web
from driftline.web.auth import Keys
from driftline.web.openapi import BODY, answers, json_body

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

_Answer = Annotated[Which, Query(description="errors: leave out the lines that were accepted")]

_PUT_BODY = {
    "type": "object",
    "required": ["fields"],
    "additionalProperties": False,
    "properties": {
        "fields": {"type": "object", "description": "as the collection defines them"},
        "version": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_VERSION,
            "description": "of collections with external versions",
        },
    },
    "example": {"fields": {"title": "Red shoes", "price": 49.9}, "version": 7},
}
_BULK_BODY = {
    "schema": {"type": "string", "description": "a JSON object per line: id, fields, operation, version, tenant"},
    "example": '{"id": "a", "fields": {"title": "Red shoes"}}\n{"id": "b", "operation": "delete"}\n',
}
_WRITTEN = {
    200: "a newer version is stored already (wait=searchable)",
    201: "searchable (wait=searchable)",
    202: "accepted: Kafka has it",
    422: "wrong, or (wait=searchable) refused by a later stage",
}


def _definition_schema() -> dict[str, Any]:
    """A definition without its name is one too: the path has it."""
    schema = json_body(CollectionDefinition)
    body = schema["requestBody"]["content"]["application/json"]["schema"]
    body["required"] = [name for name in body["required"] if name != "name"]
    return schema


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
    app = web.create("Driftline ingest", _DESCRIPTION, health, settings.http)
    _add_collections(app, keys, view, collections)
    _add_documents(app, settings, keys, view, acceptor, clock)
    _add_status(app, keys, view, acceptor, store)
    _add_bulk(app, settings, keys, view, acceptor, clock)
    return app


def _add_collections(app: FastAPI, keys: Keys, view: ControlView, collections: Collections) -> None:
    @app.put(
        "/v1/collections/{name}",
        tags=["collections"],
        dependencies=[web.require(keys, "admin")],
        openapi_extra=_definition_schema(),
        responses=answers({200: "it exists, with this definition", 201: "created"}, 409, *BODY),
    )
    async def create_collection(name: str, request: Request) -> Response:
        """Create a collection from its definition; it can be searched when this answers, or soon after
        `ingest.create_wait_seconds`. The same definition again answers 200."""
        raw = await web.read_json(request)
        if isinstance(raw, dict) and raw.setdefault("name", name) != name:
            raise InvalidRequest("invalid_definition", f"expected {name!r}, as in the path", "name")
        collection, created = await run_in_threadpool(collections.create, raw)
        return web.json_response(as_json(collection), 201 if created else 200)

    @app.get("/v1/collections", tags=["collections"], dependencies=[web.require(keys, "search")], responses=answers({}))
    def list_collections() -> Response:
        return web.json_response({"collections": [as_json(c) for c in view.collections()]})

    @app.get(
        "/v1/collections/{name}",
        tags=["collections"],
        dependencies=[web.require(keys, "search")],
        responses=answers({}, 404),
    )
    def show_collection(name: str) -> Response:
        """The definition, the generations with their spaces, and how many documents are searchable."""
        collection = view.collection(name)
        return web.json_response(as_json(collection, collections.counts(collection)))

    @app.delete(
        "/v1/collections/{name}",
        tags=["collections"],
        dependencies=[web.require(keys, "admin")],
        status_code=204,
        responses=answers({}, 404),
    )
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
    # As many as there are requests: who waits takes no thread from those that write.
    waiting = ThreadPoolExecutor(settings.http.max_requests, thread_name_prefix="wait")

    async def take(event: ChangeEvent, wait: str, timeout_seconds: float) -> Response:
        accepted = (await run_in_threadpool(acceptor.accept, [event]))[0]
        if wait == "searchable":
            accepted = await web.in_thread(waiting, acceptor.wait, accepted, min(timeout_seconds, longest))
        return _answer(accepted, event.id)

    path = "/v1/collections/{collection}/documents/{document_id:path}"

    @app.put(
        path,
        tags=["documents"],
        dependencies=[web.require(keys, "write")],
        status_code=202,
        openapi_extra=json_body(_PUT_BODY),
        responses=answers(_WRITTEN, 404, *BODY),
    )
    async def put_document(
        request: Request,
        collection: str,
        document_id: _Id,
        tenant: _Tenant = None,
        wait: _Wait = "none",
        timeout_seconds: _Timeout = 10.0,
    ) -> Response:
        """Insert or replace one document as a whole."""
        fields, version = validate.put_body(await web.read_json(request))
        known = view.collection(collection)
        event = validate.upsert(known, document_id, fields, version, tenant, clock(), "http")
        return await take(event, wait, timeout_seconds)

    @app.delete(
        path,
        tags=["documents"],
        dependencies=[web.require(keys, "write")],
        status_code=202,
        responses=answers(_WRITTEN, 404),
    )
    async def delete_document(
        collection: str,
        document_id: _Id,
        tenant: _Tenant = None,
        version: _Version = None,
        wait: _Wait = "none",
        timeout_seconds: _Timeout = 10.0,
    ) -> Response:
        """Delete one document. Deleting what does not exist is no error: the delete is a change like any other."""
        event = validate.delete(view.collection(collection), document_id, version, tenant, clock(), "http")
        return await take(event, wait, timeout_seconds)


def _add_status(app: FastAPI, keys: Keys, view: ControlView, acceptor: Acceptor, store: VectorStore) -> None:
    @app.get(
        "/v1/status/{collection}/{document_id:path}",
        tags=["documents"],
        dependencies=[web.require(keys, "search")],
        responses=answers({}, 404),
    )
    def document_status(
        collection: str,
        document_id: _Id,
        tenant: _Tenant = None,
        token: Annotated[str | None, Query(description="also tell the outcome of this event")] = None,
    ) -> Response:
        """What is stored of a document: its version and chunks, deleted or unknown; and, with a token, the receipt."""
        known = view.collection(collection)
        owner = check_tenant(known.definition, tenant)
        key = document_key(owner, check_id(document_id))
        body: dict[str, Any] = {"id": document_id, **_stored_state(known, view, store, key)}
        if token is not None:
            try:
                receipt = acceptor.receipt(Position.parse(token))
            except ValueError as error:
                raise InvalidRequest("invalid_token", "expected the token of an accepted change", "token") from error
            # A token can be guessed, being a place in the log: it tells of the document that is asked for, or nothing.
            if receipt and (receipt.collection, receipt.tenant, receipt.id) != (known.name, owner, document_id):
                receipt = None
            body["event"] = {"token": token, "state": receipt.outcome.name.lower() if receipt else "unknown"}
            if receipt is not None:
                names = (
                    "version",
                    "reason",
                    "detail",
                    "accepted_at_us",
                    "read_at_us",
                    "encoded_at_us",
                    "written_at_us",
                    "searchable_at_us",
                )
                body["event"] |= {n: getattr(receipt, n) for n in names if getattr(receipt, n)}
        return web.json_response(body)


def _stored_state(collection: Collection, view: ControlView, store: VectorStore, key: str) -> dict[str, Any]:
    held: list[StoredVersion] = []
    for index in collection.finished:
        target = collection.target(index.complete, view.space(index.complete.space))
        try:
            held += store.versions(target, [key], None).values()
        except PartlyUnavailable:
            # Right after a collection was created, index has not made its store yet.
            if store.count(target) is not None:
                raise
    if not held:
        return {"state": "unknown"}
    stored = max(held, key=lambda version: (version.version, version.deleted))
    return {
        "state": "deleted" if stored.deleted else "searchable",
        "version": stored.version,
        "chunks": stored.chunks,
    }


def _add_bulk(
    app: FastAPI, settings: IngestSettings, keys: Keys, view: ControlView, acceptor: Acceptor, clock: Clock
) -> None:
    gate = BulkGate(settings.ingest.max_bulks)

    @app.post(
        "/v1/collections/{collection}/bulk",
        tags=["documents"],
        dependencies=[web.require(keys, "write")],
        openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": _BULK_BODY}}},
        responses=answers({200: "results, line by line"}, 404, *BODY, kind="application/x-ndjson"),
    )
    async def bulk(request: Request, collection: str, tenant: _Tenant = None, answer: _Answer = "all") -> Response:
        """NDJSON in, NDJSON out: a result per accepted line, one per run of lines with an equal problem, a summary.

        The body is read as a stream of any length, and answered while it is read. A client may also send everything
        before it reads anything: results that nobody reads are kept up to 2 MB, and the lines after that (as those
        of an answer more than eight times as long as its request) are only counted; `told` of the summary says
        which line was the last to be told. A wrong line does not stop the others.
        """
        lines = Lines(view.collection(collection), tenant, acceptor, clock, settings.ingest)
        return BulkAnswer(gate, lines, app.state.intake.parts(request), answer)
