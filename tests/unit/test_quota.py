"""How fast one tenant may write."""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
import pytest

from driftline.ingest.quota import Quotas
from tests.build import a_change, a_collection
from tests.world import World

SHARED = a_collection(name="shared", tenancy=True)
DOCS = "/v1/collections/shared/documents"


@pytest.fixture
def world() -> Iterator[World]:
    made = World(tenant_pace=10, max_pending=1_000)
    yield made
    made.close()


def test_a_pace_is_kept_over_time_and_a_second_of_it_may_come_at_once() -> None:
    now = 0.0
    quotas = Quotas(10, lambda: now)
    one = [a_change(tenant="acme", collection=SHARED)]
    quotas.charge(one * 10)
    assert quotas.ahead_seconds(one) == 0
    quotas.charge(one * 10)
    assert quotas.ahead_seconds(one) == pytest.approx(1.0)
    assert quotas.ahead_seconds([a_change(tenant="other", collection=SHARED)]) == 0
    now = 1.5
    assert quotas.ahead_seconds(one) == 0
    now = 100.0
    quotas.charge(one * 10)
    assert quotas.ahead_seconds(one) == 0


def test_a_collection_without_tenants_has_no_quota() -> None:
    quotas = Quotas(1, lambda: 0.0)
    quotas.charge([a_change()] * 1_000)
    assert quotas.ahead_seconds([a_change()]) == 0


def test_single_writes_beyond_the_pace_are_told_when_to_come_back(world: World) -> None:
    body = {"fields": {"title": "x"}}
    answers = [world.ingest.put(f"{DOCS}/{i}?tenant=acme", json=body) for i in range(60)]
    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert all(a.status_code == 202 for a in answers[:10])
    assert refused[0].json()["code"] == "overloaded"
    assert int(refused[0].headers["retry-after"]) >= 1
    assert world.ingest.put(f"{DOCS}/1?tenant=other", json=body).status_code == 202


def test_a_bulk_request_is_read_at_the_pace_and_loses_no_line(world: World) -> None:
    lines = b"".join(orjson.dumps({"id": f"d{i}", "fields": {"title": "x"}}) + b"\n" for i in range(30))
    begun = time.monotonic()
    answer = world.ingest.post("/v1/collections/shared/bulk?tenant=acme", content=lines)
    assert orjson.loads(answer.content.splitlines()[-1])["summary"]["accepted"] == 30
    # 30 documents at 10 a second, of which a second's worth may come at once and the last group is not waited for.
    assert time.monotonic() - begun > 1.0
