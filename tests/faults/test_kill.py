"""Under load, encode and index replicas are killed and frozen at random moments; the end must equal the oracle.

DRIFTLINE_FAULTS (50) and DRIFTLINE_SEED (random, printed) are the parameters.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from driftline.local.processes import StartError
from driftline.local.stack import Stack
from tests.client import User, until
from tests.conftest import options
from tests.load import Load
from tests.oracle import VERSIONED, Oracle, check

FAULTS = int(os.environ.get("DRIFTLINE_FAULTS", "50"))
SEED = int(os.environ.get("DRIFTLINE_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
VICTIMS = ("encode", "encode-2", "index", "index-2")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("fleet"))
    stack.up(options(models=("hashing",), replicas={"encode": 2, "index": 2}), report=lambda _: None)
    yield stack
    stack.down()


def strike(stack: Stack, rng: random.Random) -> str:
    """One fault: kill -9 and start again, or freeze for up to two sessions and let go on."""
    victim = rng.choice(VICTIMS)
    if rng.random() < 0.5:
        stack.kill(victim, signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.5))
        stack.restart(victim)
        return f"kill {victim}"
    seconds = rng.choice([0.2, 0.5, 1.0, 2.0, 8.0])
    stack.kill(victim, signal.SIGSTOP)
    time.sleep(seconds)
    stack.kill(victim, signal.SIGCONT)
    return f"freeze {victim} {seconds} s"


@pytest.mark.timeout(1_500)
def test_kills_and_freezes_lose_resurrect_and_stale_nothing(fleet: Stack) -> None:
    print(f"seed {SEED}, {FAULTS} faults")
    user, rng, oracle = User(fleet), random.Random(SEED), Oracle()
    collection = user.create(**VERSIONED)
    producers = [Load(fleet, collection, oracle, number, SEED) for number in range(1, 4)]
    for producer in producers:
        producer.start()
    struck = []
    for _ in range(FAULTS):
        struck.append(strike(fleet, rng))
        time.sleep(rng.uniform(0.2, 1.5))
    for producer in producers:
        producer.halt.set()
        producer.join(60)
        assert producer.error is None, producer.error
    for victim in VICTIMS:
        until(lambda v=victim: ready(fleet, v), 90)  # type: ignore[misc]
    print(f"{len(oracle.tokens)} events, {len(oracle.newest)} documents, faults: {struck}")
    check(fleet, user, collection, oracle, timeout_seconds=300)


def ready(stack: Stack, name: str) -> bool:
    """The process lives. (A member that got no partition yet is alive and not ready.)"""
    try:
        process = stack.process(name)
        return process.running() and httpx.get(stack.addresses[name] + "/livez", trust_env=False).status_code == 200
    except (StartError, httpx.HTTPError):
        return False
