"""Schemathesis against each service's OpenAPI document: requests fit it, or nearly; the answers must be as it says.

DRIFTLINE_SEED repeats a run, DRIFTLINE_EXAMPLES (of each operation, fitting and not) widens it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from driftline.core.health import Health
from driftline.core.settings import AuthSettings
from driftline.upgrade.server import create_app as create_upgrade
from driftline.upgrade.settings import UpgradeSettings
from driftline.web.auth import Keys
from tests.unit import upgrading
from tests.world import World

SEED = int(os.environ.get("DRIFTLINE_SEED", time.time() // 86_400))
EXAMPLES = int(os.environ.get("DRIFTLINE_EXAMPLES", "40"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: schemathesis.SerializationContext, value: object) -> bytes:
    del context
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def of_lines(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> object:
    del context
    return [json.loads(line) for line in response.content.splitlines()]


@contextmanager
def ingest() -> Iterator[FastAPI]:
    world = World(max_pending=20_000)
    world.health.ready("memory")
    yield world.ingest_app
    world.close()


@contextmanager
def query() -> Iterator[FastAPI]:
    world = World()
    world.health.ready("memory")
    world.store_text("a", "red shoes", kind="shoe")
    yield world.query_app
    world.close()


@contextmanager
def upgrade() -> Iterator[FastAPI]:
    world = upgrading.World()
    health, off = Health(), AuthSettings(mode="off")
    health.ready("memory")
    yield create_upgrade(UpgradeSettings(auth=off), Keys(off), health, world.controller)
    world.close()


def can_be_wrong(operation: schemathesis.APIOperation) -> bool:
    """A path is text, and any text fits."""
    return any(len(list(taken)) for taken in (operation.query, operation.body))


def known_names(case: schemathesis.Case) -> None:
    """Half of the requests are about what exists: a random name is nothing but a 404."""
    if len(repr(case.body)) % 2:
        for name in ("collection", "name"):
            if name in case.path_parameters:
                case.path_parameters[name] = "things"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "not"])
@pytest.mark.parametrize("service", [ingest, query, upgrade])
def test_the_answers_are_as_the_openapi_document_says(
    service: Callable[[], AbstractContextManager[FastAPI]], mode: GenerationMode, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    with service() as app:
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        for found in schema.get_all_operations():
            operation = found.ok()
            if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
                continue

            @seed(SEED)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(operation.as_strategy(generation_mode=mode))
            def answers_fit(case: schemathesis.Case) -> None:
                nonlocal tried
                tried += 1
                known_names(case)
                case.call_and_validate(checks=CHECKS)

            answers_fit()
    with capsys.disabled():
        print(f"\n{service.__name__}: {tried} requests, DRIFTLINE_SEED={SEED}")
