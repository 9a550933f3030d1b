"""The REST API of upgrade."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.concurrency import run_in_threadpool

from driftline.core.collections import CollectionDefinition, parse_definition
from driftline.core.errors import InvalidRequest
from driftline.core.health import Health
from driftline.core.schema import validated
from driftline.upgrade.controller import Controller
from driftline.upgrade.report import page
from driftline.upgrade.sample import LEAST_QUERIES
from driftline.upgrade.settings import UpgradeSettings
from driftline.upgrade.state import ShadowQuery, UpgradeState
from driftline.upgrade.view import view_of
from driftline.web import app as web
from driftline.web.auth import Keys
from driftline.web.openapi import BODY, answers, json_body

_DESCRIPTION = """
Change the embedding model of a collection while it is written and searched. docs/upgrade.md tells what happens, what
it costs, and how to go back.
"""


class StartBody(BaseModel):
    """Which collection to carry to which encoder; what is left out comes from the service's settings."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"encoder": "minilm-l6"}]})

    encoder: str = Field(min_length=1, max_length=128, description="a loaded encoder of another embedding space")
    index: str | None = Field(None, max_length=128, description="which index; left out: the collection's first")
    margin: float | None = Field(None, ge=0, le=0.5, description="how far quality may fall, relative to the status quo")
    pairs: int | None = Field(None, ge=50, le=50_000, description="documents embedded by both models")
    per_second: float | None = Field(None, ge=0, description="most documents backfilled per second; 0: no limit")
    queries: tuple[ShadowQuery, ...] = Field(
        (),
        max_length=1_000,
        description="queries with their relevant documents (id to grade) to judge by; left out: made from documents",
    )

    @field_validator("queries")
    @classmethod
    def _enough(cls, value: tuple[ShadowQuery, ...]) -> tuple[ShadowQuery, ...]:
        if value and len(value) < LEAST_QUERIES:
            raise ValueError(f"expected none, or at least {LEAST_QUERIES}: fewer tell nothing")
        return value


def _body(state: UpgradeState) -> dict[str, Any]:
    return view_of(state).model_dump(mode="json")


def create_app(settings: UpgradeSettings, keys: Keys, health: Health, controller: Controller) -> FastAPI:
    app = web.create("Driftline upgrade", _DESCRIPTION, health, settings.http)
    path = "/v1/upgrades/{collection}"
    changed = answers({}, 404, 409)

    @app.post(
        path,
        tags=["upgrades"],
        dependencies=[web.require(keys, "admin")],
        status_code=201,
        openapi_extra=json_body(StartBody),
        responses=answers({}, 404, 409, *BODY),
    )
    async def start(collection: str, request: Request) -> Response:
        """Start an upgrade. Refused with the reason when the model cannot be loaded, is the same, or does not fit."""
        body = validated(StartBody, await web.read_json(request), "invalid_upgrade")
        options = body.model_dump(exclude={"encoder", "queries"}, exclude_none=True)
        state = await run_in_threadpool(controller.start, collection, body.encoder, options, body.queries)
        return web.json_response(_body(state), 201)

    @app.put(
        "/v1/upgrades/{collection}/definition",
        tags=["upgrades"],
        dependencies=[web.require(keys, "admin")],
        openapi_extra=json_body(CollectionDefinition),
        responses=answers({}, 404, 409, *BODY),
    )
    async def apply(collection: str, request: Request) -> Response:
        """Change a live collection to this definition, the whole of it: fields, profiles, the description, and which
        indexes there are. An index that is added is filled in the background, and searched once it holds everything."""
        definition = parse_definition(await web.read_json(request))
        if definition.name != collection:
            raise InvalidRequest("invalid_definition", f"expected {collection!r}, found {definition.name!r}", "name")
        done = await run_in_threadpool(controller.apply, collection, definition)
        filling = None if done.added is None else done.added[0]
        return web.json_response({"name": collection, "changes": list(done.told), "filling": filling})

    @app.get("/v1/upgrades", tags=["upgrades"], dependencies=[web.require(keys, "search")], responses=answers({}))
    def list_upgrades() -> Response:
        """The last upgrade of every collection."""
        return web.json_response({"upgrades": [_body(state) for state in controller.states()]})

    @app.get(path, tags=["upgrades"], dependencies=[web.require(keys, "search")], responses=answers({}, 404))
    def show(collection: str) -> Response:
        """What is served, how good it is against doing nothing, what it has cost, and how long it takes."""
        return web.json_response(_body(controller.state(collection)))

    @app.get(
        path + "/report",
        tags=["upgrades"],
        dependencies=[web.require(keys, "search")],
        response_class=HTMLResponse,
        responses=answers({}, 404),
    )
    def report(collection: str) -> Response:
        """The upgrade as a page, with the curve as a plot."""
        return HTMLResponse(page(view_of(controller.state(collection))))

    @app.post(path + "/pause", tags=["upgrades"], dependencies=[web.require(keys, "admin")], responses=changed)
    def pause(collection: str) -> Response:
        """Stop the backfill where it is. What is served stays as it is."""
        return web.json_response(_body(controller.pause(collection, True)))

    @app.post(path + "/resume", tags=["upgrades"], dependencies=[web.require(keys, "admin")], responses=changed)
    def resume(collection: str) -> Response:
        return web.json_response(_body(controller.pause(collection, False)))

    @app.post(path + "/rollback", tags=["upgrades"], dependencies=[web.require(keys, "admin")], responses=changed)
    def rollback(collection: str) -> Response:
        """Serve the older generation again, at once, and drop the new one."""
        return web.json_response(_body(controller.rollback(collection)))

    @app.post(path + "/finish", tags=["upgrades"], dependencies=[web.require(keys, "admin")], responses=changed)
    def finish(
        collection: str,
        force: Annotated[bool, Query(description="also when the shadow queries find it worse")] = False,
    ) -> Response:
        """Drop the older generation. There is no way back afterwards."""
        return web.json_response(_body(controller.finish(collection, force)))

    return app
