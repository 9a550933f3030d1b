"""Several indexes of one collection on real servers: written, searched, one more added, one given another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.local.stack import Stack
from tests.client import User, until
from tests.e2e.test_service import run_cli
from tests.load import Load, Searches
from tests.oracle import FOURTH, HYBRID, Oracle, check


def shown(user: User, collection: str) -> dict[str, Any]:
    found: dict[str, Any] = user.ingest.get(f"/v1/collections/{collection}").json()
    return found


def answer(user: User, collection: str, **body: Any) -> dict[str, Any]:
    told = user.query.post(f"/v1/collections/{collection}/search", json=body)
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()
    return found


@pytest.mark.brokers
def test_a_document_is_found_by_meaning_and_by_words_and_gone_from_both_at_once(stack: Stack) -> None:
    user = User(stack)
    indexes = {
        "dense": {"encoder": "hashing", "fields": ["title", "body"]},
        "words": {"analyzer": "english", "fields": ["body"]},
    }
    plan = [{"search": {"of": [{"index": "dense"}, {"index": "words", "weight": 2}], "fuse": "rrf"}}]
    collection = user.create(embedding=None, indexes=indexes, profiles={"both": plan})
    user.put(collection, "a", title="shoes", body="The runners were running in the rain.")
    user.put(collection, "b", title="hats", body="A hat for every head.")
    user.put(collection, "c", title="only a title about coats")
    assert {name: index["documents"] for name, index in shown(user, collection)["indexes"].items()} == {
        "dense": 3,
        "words": 2,
    }
    found = answer(user, collection, text="run", index="words")
    assert ([hit["id"] for hit in found["hits"]], found["score_kind"]) == (["a"], "bm25")
    found = answer(user, collection, text="hats for heads", profile="both", explain=True)
    assert found["hits"][0]["id"] == "b"
    assert found["hits"][0]["indexes"]["words"]["rank"] == 1
    assert [of["index"] for of in found["explain"]["steps"][0]["of"]] == ["dense", "words"]
    stored = user.query.get(f"/v1/collections/{collection}/documents/c").json()
    assert stored["fields"] == {"title": "only a title about coats"}
    user.delete(collection, "b")
    assert "b" not in [hit["id"] for hit in answer(user, collection, text="hats for heads", profile="both")["hits"]]
    assert answer(user, collection, text="hats", index="words")["hits"] == []


@pytest.mark.timeout(300)
def test_an_index_is_added_under_load_by_the_command_line(stack: Stack, tmp_path: Path) -> None:
    user, oracle = User(stack), Oracle()
    collection = user.create(**HYBRID)
    producers = [Load(stack, collection, oracle, number, 11) for number in (1, 2)]
    searches = Searches(stack, collection)
    for thread in (*producers, searches):
        thread.start()
    try:
        until(lambda: user.count(collection) >= 60, 120)
        definition = shown(user, collection)["definition"]
        definition["indexes"]["fourth"] = FOURTH
        file = tmp_path / "definition.yaml"
        file.write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
        told = run_cli(stack, "collections", "apply", "-f", str(file))
        assert "index fourth is being filled" in told
        until(lambda: shown(user, collection)["indexes"].get("fourth", {}).get("finished", False), 120)
    finally:
        for thread in (*producers, searches):
            thread.halt.set()
            thread.join(60)
    assert [p.error for p in producers] == [None, None]
    assert searches.failed == []
    check(stack, user, collection, oracle)
    assert "nothing changed" in run_cli(stack, "collections", "apply", "-f", str(file))
    assert " 0 differences" in run_cli(stack, "verify", collection)


@pytest.mark.timeout(400)
def test_the_model_of_the_dense_index_changes_under_a_hybrid_profile(stack: Stack) -> None:
    user, oracle = User(stack), Oracle()
    collection = user.create(**HYBRID)
    producer, searches = Load(stack, collection, oracle, 1, 13), Searches(stack, collection)
    for thread in (producer, searches):
        thread.start()
    try:
        until(lambda: user.count(collection) >= 90, 120)
        body = {"encoder": "hashing-64", "pairs": 100, "index": "dense"}
        assert user.upgrade.post(f"/v1/upgrades/{collection}", json=body).status_code == 201
        until(lambda: user.upgrade.get(f"/v1/upgrades/{collection}").json()["phase"] == "complete", 180, every=0.5)
    finally:
        for thread in (producer, searches):
            thread.halt.set()
            thread.join(60)
    assert producer.error is None
    assert searches.failed == []
    state = user.upgrade.get(f"/v1/upgrades/{collection}").json()
    assert state["curve"], (state["decision"], state["reason"])
    check(stack, user, collection, oracle)
    assert user.upgrade.post(f"/v1/upgrades/{collection}/finish", params={"force": True}).status_code == 200
    until(lambda: len(shown(user, collection)["generations"]) == 3, 30)
    check(stack, user, collection, oracle)
