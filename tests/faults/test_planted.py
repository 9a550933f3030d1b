"""The oracle of the fault tests, tested: with a bug planted in a running service it must not be satisfied.

The bugs that no kill is needed for are caught faster by `make test-mutants`; these few go the whole way once.
"""

from __future__ import annotations

import time

import pytest

from tests.client import User, until
from tests.faults.arena import Arena
from tests.faults.schedule import Fault
from tests.faults.strike import Striker
from tests.load import Load
from tests.oracle import VERSIONED, Oracle, check

KILLS = [Fault("kill", name, seconds=0.2) for name in ("index", "index-2") * 3]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "mutant, faults",
    [("late-wins", []), ("no-trims", []), ("no-tombstones", KILLS), ("commit-first", KILLS), ("", KILLS)],
    ids=["late-wins", "no-trims", "no-tombstones", "commit-first", "none"],
)
def test_the_oracle_notices_a_planted_bug(arena: Arena, mutant: str, faults: list[Fault]) -> None:
    user, oracle = User(arena.stack), Oracle()
    collection = user.create(**VERSIONED)
    arena.plant("index", mutant)
    producers = [Load(arena.stack, collection, oracle, n, 11, pause_seconds=0.2) for n in (1, 2)]
    for producer in producers:
        producer.start()
    time.sleep(5)
    Striker(arena).run(faults, 2.0)
    time.sleep(3)
    for producer in producers:
        producer.halt.set()
        producer.join(60)
        assert producer.error is None, producer.error
    try:
        for name in ("index", "index-2"):
            until(lambda n=name: arena.serving(n), 60)  # type: ignore[misc]
        if mutant:
            with pytest.raises(AssertionError, match=r"documents differ|have no receipt|chunks|Receipt"):
                check(arena.stack, user, collection, oracle, timeout_seconds=30)
        else:
            check(arena.stack, user, collection, oracle, timeout_seconds=60)
    finally:
        arena.plant("index", "")
