"""Under load, every part of the system is killed, frozen, cut off, slowed and fed with rubbish; the end must equal the
oracle: nothing accepted is lost, nothing deleted comes back, nothing is stale, every accepted event has its receipt.

Accepted is what ingest answered for, and nothing else. No process may end but those that a fault killed. Parameters:
DRIFTLINE_FAULTS (100) and DRIFTLINE_SEED (the day). What was struck when is in `faults.jsonl` beside the logs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import httpx
import pytest

from tests.client import User, until
from tests.faults.arena import Arena
from tests.faults.schedule import SERVERS, SERVICES, faults_wanted, schedule, seed_wanted
from tests.faults.strike import Striker
from tests.load import Load, Searches
from tests.oracle import FOURTH, HYBRID, VERSIONED, Oracle, check

# Three faults run at once and take some seconds each: this gives about one in four seconds.
PAUSE_SECONDS = 3.0


def add_index(user: User, collection: str) -> None:
    """A fourth index, while faults are struck: until somebody answers that it is being filled, or is there."""
    while True:
        try:
            definition = user.ingest.get(f"/v1/collections/{collection}").json()["definition"]
            if "fourth" in definition["indexes"]:
                return
            definition["indexes"]["fourth"] = FOURTH
            user.upgrade.put(f"/v1/upgrades/{collection}/definition", json=definition)
        except (httpx.HTTPError, KeyError):
            pass  # somebody is down just now
        time.sleep(0.5)


@pytest.mark.timeout(1_500)
def test_faults_of_every_part_lose_resurrect_and_stale_nothing(arena: Arena) -> None:
    seed, count = seed_wanted(), faults_wanted(100)
    print(f"\nDRIFTLINE_SEED={seed} DRIFTLINE_FAULTS={count}")
    user = User(arena.stack)
    # In one collection, of three indexes, the producers give versions; in the other the log does.
    given, assigned = user.create(**HYBRID), user.create(embedding=VERSIONED["embedding"])
    oracles = {given: Oracle(), assigned: Oracle()}
    producers = [Load(arena.stack, given, oracles[given], n, seed, pause_seconds=0.4) for n in (1, 2)]
    producers += [Load(arena.stack, assigned, oracles[assigned], n, seed, False, 0.4) for n in (3, 4)]
    searches = Searches(arena.stack, given)
    striker = Striker(arena)
    for thread in (*producers, searches):
        thread.start()
    added = threading.Timer(count * PAUSE_SECONDS / 4, add_index, (user, given))
    added.start()
    try:
        striker.run(schedule(seed, count), PAUSE_SECONDS)
    finally:
        journal = arena.stack.home / "faults.jsonl"
        striker.write_journal(journal)
        arena.calm()
        for thread in (*producers, searches):
            thread.halt.set()
    for name in (*SERVERS, *SERVICES):
        until(lambda n=name: arena.serving(n), 90, every=0.5)  # type: ignore[misc]
    for producer in producers:
        producer.join(120)
        assert producer.error is None, producer.error
        assert not producer.is_alive(), "ingest accepts nothing any more"
    searches.join(30)
    kinds = Counter(entry["kind"] for entry in striker.journal)
    events = sum(len(oracle.tokens) for oracle in oracles.values())
    print(f"{dict(kinds)}; {events} events, {sum(p.refused for p in producers)} answers lost; {journal}")
    assert arena.died == []
    begun = time.monotonic()
    added.join(60)
    until(lambda: user.ingest.get(f"/v1/collections/{given}").json()["indexes"]["fourth"]["finished"], 240, every=1)
    print(f"the fourth index is filled {time.monotonic() - begun:.0f} s after the last fault")
    for collection, oracle in oracles.items():
        check(arena.stack, user, collection, oracle, timeout_seconds=240)
    print(f"equal to the oracle {time.monotonic() - begun:.0f} s after the last fault")
    assert searches.answered > 0
    until(lambda: user.query.post(f"/v1/collections/{given}/search", json={"text": "says"}).status_code == 200, 60)
