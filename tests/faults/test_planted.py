"""The oracle of the fault tests, tested: with a bug planted in a running service it must not be satisfied.

Most planted bugs are caught faster and with certainty by `make test-mutants`; these few go the whole way once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.client import User, until
from tests.faults.arena import Arena
from tests.faults.schedule import Fault
from tests.faults.strike import Striker
from tests.load import Load
from tests.oracle import VERSIONED, Oracle, check, text_of

INDEXES = ("index", "index-2")
LATE = 20


def nothing(arena: Arena, user: User, collection: str, oracle: Oracle) -> None:
    """No fault: the load alone shows the bug."""


def late_after_a_kill(arena: Arena, user: User, collection: str, oracle: Oracle) -> None:
    """Deletes, then a kill of all who may remember them, then older upserts of the same documents."""
    send(user, collection, oracle, 10)
    for number in range(LATE):
        answer = user.delete(collection, f"late{number}", version=20)
        assert answer["state"] == "searchable", answer
        oracle.accepted(answer["id"], 20, 0, answer["token"])
    for name in INDEXES:
        Striker(arena).strike(Fault("kill", name, seconds=0.2))
    send(user, collection, oracle, 15)


def send(user: User, collection: str, oracle: Oracle, version: int) -> None:
    names = [f"late{number}" for number in range(LATE)]
    lines = [{"id": name, "version": version, "fields": {"body": text_of(name, version, 1)}} for name in names]
    for answer in user.bulk(collection, lines):
        oracle.accepted(answer["id"], answer["version"], 1, answer["token"])


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "mutant, faults",
    [
        ("late-wins", nothing),
        ("no-trims", nothing),
        ("no-tombstones", late_after_a_kill),
        ("", late_after_a_kill),
    ],
    ids=["late-wins", "no-trims", "no-tombstones", "sound and late"],
)
def test_the_oracle_notices_a_planted_bug(
    arena: Arena, mutant: str, faults: Callable[[Arena, User, str, Oracle], None]
) -> None:
    user, oracle = User(arena.stack), Oracle()
    collection = user.create(**VERSIONED)
    arena.plant("index", mutant)
    producers = [Load(arena.stack, collection, oracle, n, 11, pause_seconds=0.2) for n in (1, 2)]
    for producer in producers:
        producer.start()
    time.sleep(5)
    faults(arena, user, collection, oracle)
    time.sleep(3)
    for producer in producers:
        producer.halt.set()
        producer.join(60)
        assert producer.error is None, producer.error
    try:
        for name in INDEXES:
            until(lambda n=name: arena.serving(n), 60)  # type: ignore[misc]
        if mutant:
            with pytest.raises(AssertionError, match=r"documents differ|have no receipt|chunks|Receipt"):
                check(arena.stack, user, collection, oracle, timeout_seconds=30)
        else:
            check(arena.stack, user, collection, oracle, timeout_seconds=60)
    finally:
        arena.plant("index", "")
