"""The REST API of query."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from driftline.core.errors import DriftlineError, InvalidRequest
from driftline.core.health import Health
from driftline.query import request as requests
from driftline.query.request import BatchBody, SearchBody
from driftline.query.search import Searcher
from driftline.query.settings import QuerySettings
from driftline.web import app as web
from driftline.web.auth import Keys
from driftline.web.openapi import BODY, answers, json_body
from driftline.web.problems import problem_of

_DESCRIPTION = """
Search collections by text, by a vector of the collection's space, or by a stored document. Higher scores are nearer.
Filters are a small typed JSON language (docs/search.md).
"""


def create_app(settings: QuerySettings, keys: Keys, health: Health, searcher: Searcher) -> FastAPI:
    app = web.create("Driftline query", _DESCRIPTION, health, settings.http)
    # Two pools: a batch waits for its searches, and must not take the threads that they need.
    pool = ThreadPoolExecutor(40, thread_name_prefix="search")
    batches = ThreadPoolExecutor(8, thread_name_prefix="batch")
    # As many as there are requests: who waits for a write takes no thread from those that search.
    waiting = ThreadPoolExecutor(settings.http.max_requests, thread_name_prefix="wait")

    async def search(request: Request, collection: str) -> Response:
        """The nearest documents, best first."""
        body = requests.parse(await web.read_json(request))
        threads = pool if body.after is None else waiting
        return web.json_response((await web.in_thread(threads, searcher.search, collection, body)).body())

    app.router.add_api_route(
        "/v1/collections/{collection}/search",
        search,
        methods=["POST"],
        tags=["search"],
        dependencies=[web.require(keys, "search")],
        openapi_extra=json_body(SearchBody),
        responses=answers({}, 404, *BODY),
        route_class_override=web.PlainRoute,
    )

    @app.post(
        "/v1/collections/{collection}/search/batch",
        tags=["search"],
        dependencies=[web.require(keys, "search")],
        openapi_extra=json_body(BatchBody),
        responses=answers({}, 404, *BODY),
    )
    async def batch_search(request: Request, collection: str) -> Response:
        """Several searches at once. One that fails has a `problem` in its place; the others are answered."""
        raw = await web.read_json(request)
        searches = raw.get("searches") if isinstance(raw, dict) else None
        if not isinstance(searches, list) or not 1 <= len(searches) <= settings.query.max_batch:
            raise InvalidRequest("invalid_search", f"expected a list of 1 to {settings.query.max_batch}", "searches")
        bodies = [requests.parse(item, f"searches[{i}]") for i, item in enumerate(searches)]

        def one(body: SearchBody) -> dict[str, Any]:
            try:
                return searcher.search(collection, body).body()
            except DriftlineError as error:
                return {"problem": problem_of(error)}

        answers = await web.in_thread(pool, lambda: list(batches.map(one, bodies)))
        return web.json_response({"results": answers})

    @app.get(
        "/v1/collections/{collection}/documents/{document_id:path}",
        tags=["documents"],
        dependencies=[web.require(keys, "search")],
        responses=answers({}, 404),
    )
    def get_document(collection: str, document_id: str, tenant: Annotated[str | None, Query()] = None) -> Response:
        """One stored document, read strongly: every acknowledged write is seen."""
        found = searcher.document(collection, document_id, tenant)
        body = {
            "id": found.id,
            "version": found.version,
            "fields": orjson.loads(found.fields_json),
            "chunks": list(found.chunks),
        }
        return web.json_response(body)

    return app
