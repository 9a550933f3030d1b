"""Schemathesis against each service's OpenAPI document: what is sent fits the document or nearly, so must the answers.

DRIFTLINE_SEED repeats a run, DRIFTLINE_EXAMPLES widens it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.world import World

SEED = int(os.environ.get("DRIFTLINE_SEED", time.time() // 86_400))
print(f"DRIFTLINE_SEED={SEED}")
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    unsupported_method,
]  # fmt: skip
bounded = settings(
    max_examples=int(os.environ.get("DRIFTLINE_EXAMPLES", "50")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    database=None,
)


@pytest.fixture
def ingest_schema() -> Iterator[Any]:
    world = World()
    yield schemathesis.openapi.from_asgi("/openapi.json", world.ingest_app)
    world.close()


ingest = schemathesis.pytest.from_fixture("ingest_schema")


@ingest.parametrize()
@seed(SEED)
@bounded
def test_ingest(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)
