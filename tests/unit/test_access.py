"""Whatever the APIs offer needs a key: held to their routes as they are, so a new route cannot be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from driftline.core.settings import AuthSettings
from driftline.upgrade.controller import Controller
from driftline.upgrade.server import create_app as create_upgrade
from driftline.upgrade.settings import UpgradeSettings
from tests.world import World

OPEN = {"/livez", "/readyz", "/metrics"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    keys = tmp_path / "keys"
    keys.write_text("reader search aaaaaaaaaaaaaaaa\n")
    made = World(AuthSettings(mode="api_key", keys_file=keys))
    yield made
    made.close()


def calls(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of every route that is not open, with something in place of its parameters."""
    return [
        (method, re.sub(r"{[^}]*}", "things", route.path))
        for route in app.routes
        if isinstance(route, APIRoute) and route.path not in OPEN
        for method in route.methods
    ]


def test_every_route_but_health_and_documentation_needs_a_key(world: World) -> None:
    settings = UpgradeSettings(auth=AuthSettings(mode="off"))
    # No controller: a route that reached it without a key would answer 500.
    upgrade_app = create_upgrade(settings, world.keys, world.health, cast(Controller, None))
    for app in (world.ingest_app, world.query_app, upgrade_app):
        client = TestClient(app, raise_server_exceptions=False)
        assert calls(app)
        for method, path in calls(app):
            assert client.request(method, path).status_code == 401, (method, path)
