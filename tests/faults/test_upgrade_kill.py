"""An upgrade under load while every service is killed in every state; the end must equal the oracle.

DRIFTLINE_SEED (random, printed) and DRIFTLINE_UPGRADES (5, one for each service; fewer take services at random) are
the parameters. One upgrade per service: it is killed with SIGKILL the moment that
a new state is seen in the control topic, and started again. All upgrades but the last are rolled back when they are
complete, so every one begins anew.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from driftline.adapters.kafka import KafkaLogReader
from driftline.core.control import ControlFollower, ControlView
from driftline.core.settings import KafkaSettings
from driftline.local.stack import SERVICES, Stack
from driftline.upgrade.state import UpgradeState, read_state
from tests.client import User, until
from tests.conftest import options
from tests.load import Load, Searches
from tests.oracle import VERSIONED, Oracle, check, stored

SEED = int(os.environ.get("DRIFTLINE_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
VICTIMS = random.Random(SEED).sample(SERVICES, int(os.environ.get("DRIFTLINE_UPGRADES", len(SERVICES))))
STATES = ["registered", "sampling", "fitted", "serving", "backfilling", "complete"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("upgrades"))
    stack.up(options(models=("hashing", "hashing-64")), report=lambda _: None)
    yield stack
    stack.down()


class Upgrades:
    """The states as the control topic tells them, whoever is dead."""

    def __init__(self, stack: Stack, user: User, collection: str) -> None:
        settings = KafkaSettings(bootstrap_servers=stack.addresses["kafka"], fetch_wait_ms=50)
        self.view = ControlView()
        self.follower = ControlFollower(KafkaLogReader(settings), self.view)
        self.follower.start()
        self.user = user
        self.collection = collection
        self.uid = user.ingest.get(f"/v1/collections/{collection}").json()["uid"]

    def state(self) -> UpgradeState | None:
        found = [read_state(r) for r in self.view.upgrades() if r.collection_uid == self.uid]
        return found[0] if found else None

    def command(self, path: str, **body: object) -> None:
        """Until it is answered: the service may be coming up, or not lead yet."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self.user.upgrade.post(f"/v1/upgrades/{self.collection}{path}", json=body or None)
                if answer.status_code in (200, 201):
                    return
                # The command before was done, and its answer lost with the process.
                if answer.status_code == 409:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, path
            time.sleep(0.2)


@pytest.mark.timeout(1_200)
def test_killing_every_service_in_every_state_of_an_upgrade_loses_nothing(fleet: Stack) -> None:
    print(f"seed {SEED}")
    user, oracle = User(fleet), Oracle()
    collection = user.create(**VERSIONED)
    upgrades = Upgrades(fleet, user, collection)
    producers = [Load(fleet, collection, oracle, number, SEED) for number in (1, 2)]
    searches = Searches(fleet, collection)
    for thread in (*producers, searches):
        thread.start()
    time.sleep(3)
    killed: list[str] = []
    for victim in VICTIMS:
        before = upgrades.state()
        upgrades.command("", encoder="hashing-64", pairs=80, margin=0.5)
        until(lambda b=before: upgrades.state() is not None and (b is None or upgrades.state().id != b.id), 60)  # type: ignore[misc, union-attr]
        seen: list[str] = []
        deadline = time.monotonic() + 200
        while "complete" not in seen:
            current = upgrades.state()
            assert current is not None
            if current.phase not in seen:
                seen.append(current.phase)
                fleet.kill(victim, signal.SIGKILL)
                fleet.restart(victim)
                killed.append(f"{victim} while {current.phase}")
            assert time.monotonic() < deadline, f"{victim}: {current}"
            time.sleep(0.02)
        fleet.wait_ready(victim)
        assert seen == STATES[STATES.index(seen[0]) :], seen
        if victim != VICTIMS[-1]:
            upgrades.command("/rollback")
            until(lambda: upgrades.state().phase == "rolled_back", 30)  # type: ignore[union-attr]
    for thread in (*producers, searches):
        thread.halt.set()
        thread.join(60)
    assert [p.error for p in producers] == [None, None]
    print(f"{len(oracle.tokens)} events, {searches.answered} searches, {len(searches.failed)} failed; killed: {killed}")
    # Nobody answers while query itself is dead; nothing else makes a search fail.
    dead = ("ConnectError", "ReadError", "RemoteProtocolError")
    assert [f for f in searches.failed if not f.startswith(dead)] == []
    check(fleet, user, collection, oracle, timeout_seconds=300)
    numbers = [g["number"] for g in user.ingest.get(f"/v1/collections/{collection}").json()["generations"]]
    assert len(numbers) == 2
    for number in numbers:
        until(lambda n=number: stored(fleet, user, collection, n) == oracle.expected(), 120, every=2)  # type: ignore[misc]
    begun = time.monotonic()
    upgrades.command("/rollback")
    print(f"rolled back in {time.monotonic() - begun:.2f} s")
    check(fleet, user, collection, oracle)
    assert [g["number"] for g in user.ingest.get(f"/v1/collections/{collection}").json()["generations"]] == [1]
