"""Changing the embedding model under load, on real servers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from driftline.local.stack import Stack
from tests.client import User, until
from tests.e2e.test_service import run_cli
from tests.load import Freshness, Load, Searches
from tests.oracle import VERSIONED, Oracle, check, stored


@pytest.mark.brokers
@pytest.mark.timeout(400)
def test_an_upgrade_under_load_loses_nothing_fails_no_search_and_can_be_undone(stack: Stack) -> None:
    user, oracle = User(stack), Oracle()
    collection = user.create(**VERSIONED)
    producers = [Load(stack, collection, oracle, number, 7) for number in (1, 2)]
    searches, freshness = Searches(stack, collection), Freshness(stack, collection)
    for thread in (*producers, searches, freshness):
        thread.start()
    try:
        time.sleep(8)
        # Of fewer than 60 nothing is fitted, and a slow machine has not taken that many by now.
        until(lambda: user.count(collection) >= 90, 120)
        before = len(freshness.seconds)
        answer = user.upgrade.post(f"/v1/upgrades/{collection}", json={"encoder": "hashing-64", "pairs": 100})
        assert answer.status_code == 201, answer.text
        until(lambda: state(user, collection)["phase"] == "complete", 180, every=0.5)
        time.sleep(3)
    finally:
        for thread in (*producers, searches, freshness):
            thread.halt.set()
            thread.join(60)
    assert [p.error for p in producers] == [None, None]
    assert searches.failed == []
    assert searches.answered > 50
    old, new = (np.quantile(part, 0.99) for part in (freshness.seconds[:before], freshness.seconds[before:]))
    print(f"freshness p99 {old:.2f} s before, {new:.2f} s during; {searches.answered} searches, none failed")
    check(stack, user, collection, oracle)
    assert stored(stack, user, collection, 1) == stored(stack, user, collection, 2) == oracle.expected()
    told = state(user, collection)
    assert told["fraction"] == 1.0
    assert told["curve"], (told["decision"], told["reason"])

    begun = time.monotonic()
    assert user.upgrade.post(f"/v1/upgrades/{collection}/rollback").status_code == 200
    until(lambda: generation_of(user, collection) == 1, 30, every=0.05)
    took = time.monotonic() - begun
    print(f"rolled back in {took:.2f} s")
    assert took < 5
    check(stack, user, collection, oracle)
    assert user.ingest.get(f"/v1/collections/{collection}").json()["generations"][-1]["number"] == 1
    user.put(collection, "after", version=10**9, body="after the rollback")
    found = user.query.post(f"/v1/collections/{collection}/search", json={"text": "after the rollback"}).json()
    assert found["hits"][0]["id"] == "after"


def test_a_finished_upgrade_leaves_the_new_generation_alone(stack: Stack, tmp_path: Path) -> None:
    user = User(stack)
    collection = user.create("hashing-64")
    lines = [{"id": f"d{i}", "fields": {"title": f"title number {i} of things"}} for i in range(200)]
    user.bulk(collection, lines)
    until(lambda: user.count(collection) == 200, 60)
    assert user.upgrade.post(f"/v1/upgrades/{collection}/finish").status_code == 404
    refused = user.upgrade.post(f"/v1/upgrades/{collection}", json={"encoder": "no-such-model"})
    assert (refused.status_code, refused.json()["field"]) == (422, "encoder")
    judged = [{"text": f"title number {i}", "relevant": {f"d{i}": 1}} for i in range(40)]
    body = {"encoder": "hashing", "queries": judged, "margin": 0.5}
    assert user.upgrade.post(f"/v1/upgrades/{collection}", json=body).status_code == 201
    assert user.upgrade.post(f"/v1/upgrades/{collection}", json=body).status_code == 409
    until(lambda: state(user, collection)["phase"] == "complete", 120, every=0.5)
    told = run_cli(stack, "upgrade", "status", collection)
    for words in ("complete", "against doing nothing", "200 of 200 documents", f"upgrade rollback {collection}"):
        assert words in told
    run_cli(stack, "upgrade", "report", collection, "-o", str(tmp_path / "report.html"))
    assert "<svg" in (tmp_path / "report.html").read_text()
    run_cli(stack, "verify", collection)
    assert user.upgrade.post(f"/v1/upgrades/{collection}/finish", params={"force": True}).status_code == 200
    until(lambda: generation_of(user, collection) == 2, 30, every=0.1)
    shown = user.ingest.get(f"/v1/collections/{collection}").json()
    assert [g["number"] for g in shown["generations"]] == [2]
    assert shown["documents"] == 200
    assert user.search(collection, "title number 17 of things")[0]["id"] == "d17"
    page = user.upgrade.get(f"/v1/upgrades/{collection}/report")
    assert "<svg" in page.text


def state(user: User, collection: str) -> dict:  # type: ignore[type-arg]
    told: dict = user.upgrade.get(f"/v1/upgrades/{collection}").json()  # type: ignore[type-arg]
    return told


def generation_of(user: User, collection: str) -> int:
    """The generation whose encoder takes the queries now."""
    body = {"text": "anything", "explain": True}
    answer = user.query.post(f"/v1/collections/{collection}/search", json=body).json()
    return int(answer["explain"]["steps"][0]["of"][0]["generation"])
