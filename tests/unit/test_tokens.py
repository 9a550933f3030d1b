"""Tokens of accepted changes: what is one, and what it tells to whom."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.core import codec
from driftline.core.records import Operation, Outcome, Outgoing, Position, Receipt
from driftline.core.topics import RECEIPTS
from tests.unit.test_api import World


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_a_token_is_read_as_it_was_written(partition: int, offset: int) -> None:
    position = Position(partition, offset)
    assert Position.parse(position.token()) == position


WRONG = [
    "", ".", "1", "1.", ".1", "1.2.3", "a.b", "-1.2", "1.-2", "+1.2", " 1.2", "1.2 ", "1.2\n", "1_0.5", "1.0_5", "01.2",
    "1.02", "0x1.2", "1e3.2", "\u0661.2", "\u00b2.2", "\uff11.2", "2147483648.0", "0.9223372036854775808",
    "9" * 5_000 + ".1", "1." + "9" * 5_000,
]  # fmt: skip


@pytest.mark.parametrize("token", WRONG)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(token)


@given(st.text(max_size=40))
def test_whatever_is_taken_for_a_token_is_one(text: str) -> None:
    try:
        position = Position.parse(text)
    except ValueError:
        return
    assert position.token() == text


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def receive(world: World, partition: int, *receipts: Receipt) -> None:
    world.log.append(Outgoing(RECEIPTS.name, b"", codec.encode_receipts(list(receipts)), partition))
    assert world.tail.wait(receipts[-1].position, 5) is not None


def a_receipt(offset: int, collection: str, tenant: str, document: str) -> Receipt:
    return Receipt(
        Position(0, offset), collection, tenant, document, Operation.UPSERT, 41 + offset, Outcome.REJECTED,
        "empty_text", f"the title of {tenant}'s {document} is empty",
    )  # fmt: skip


def event(world: World, collection: str, document: str, token: str, tenant: str = "") -> dict[str, object]:
    parameters = {"token": token} | ({"tenant": tenant} if tenant else {})
    answer = world.ingest.get(f"/v1/status/{collection}/{document}", params=parameters)
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()["event"]
    return found


def test_a_token_tells_of_the_document_that_is_asked_for_and_of_no_other(world: World) -> None:
    receive(world, 0, a_receipt(0, "shared", "acme", "secret"), a_receipt(1, "things", "", "a"))
    mine = event(world, "shared", "secret", "0.0", "acme")
    assert (mine["state"], mine["version"], mine["reason"]) == ("rejected", 41, "empty_text")
    assert event(world, "things", "a", "0.1")["state"] == "rejected"
    unknown = {"token": "0.0", "state": "unknown"}
    assert event(world, "shared", "secret", "0.0", "rival") == unknown, "another tenant"
    assert event(world, "shared", "other", "0.0", "acme") == unknown, "another document"
    assert event(world, "things", "secret", "0.0") == unknown, "another collection"
    assert event(world, "things", "a", "0.7") == {"token": "0.7", "state": "unknown"}, "no event"


@pytest.mark.parametrize("token", ["1_0.5", " 1.2", "9" * 30 + ".1", "2.0", "2147483647.0"])
def test_a_token_that_none_can_be_is_the_callers_fault_everywhere(world: World, token: str) -> None:
    """The changes of this world have the partitions 0 and 1."""
    status = world.ingest.get("/v1/status/things/a", params={"token": token})
    assert (status.status_code, status.json()["code"], status.json()["field"]) == (422, "invalid_token", "token")
    search = world.query.post("/v1/collections/things/search", json={"text": "x", "after": token})
    assert (search.status_code, search.json()["code"], search.json()["field"]) == (422, "invalid_token", "after")


def test_a_document_of_a_collection_whose_store_is_not_made_yet_is_unknown(world: World) -> None:
    world.store.drop(world.collection.target(world.collection.primary.complete, world.embedder.space))
    answer = world.ingest.get("/v1/status/things/a")
    assert (answer.status_code, answer.json()) == (200, {"id": "a", "state": "unknown"})
