"""Which faults a run strikes, in which order: a pure function of the seed and the count, so that a run can be repeated.

What a fault is, in words, is in docs/testing.md.
"""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
SERVICES = ("ingest", "encode", "encode-2", "index", "index-2", "query", "upgrade")
SERVERS = ("kafka", "redis", "milvus", "triton")
# Which servers a service speaks to: each of these connections can be cut and slowed alone.
SPEAKS = {
    "ingest": ("kafka", "milvus", "triton"),
    "encode": ("kafka", "redis", "triton"),
    "index": ("kafka", "redis", "milvus"),
    "query": SERVERS,
    "upgrade": ("kafka", "milvus", "triton"),
}
TOPICS = ("changes", "vectors", "documents", "receipts", "backfill", "control", "queries", "dead-letters")
# How often each kind is drawn, of 100. Those that cost much (a server that starts again) are rare.
WEIGHTS: Mapping[str, int] = {
    "kill": 30,
    "freeze": 20,
    "cut": 20,
    "slow": 10,
    "poison": 8,
    "clock": 6,
    "memory": 3,
    "disk": 3,
}
SESSION_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`victim` is a process or a topic, `server` the other end of a connection, `how` and `amount` the variant."""

    kind: str
    victim: str
    server: str = ""
    how: str = ""
    amount: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        said = [f"{self.kind} {self.victim}"]
        if self.server:
            said.append(f"to {self.server}")
        if self.how:
            said.append(self.how)
        if self.amount:
            said.append(f"{self.amount:g}")
        return " ".join(said) + (f" for {self.seconds:g} s" if self.seconds else "")

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def faults_wanted(otherwise: int) -> int:
    """DRIFTLINE_FAULTS."""
    return int(os.environ.get("DRIFTLINE_FAULTS", "") or otherwise)


def seed_wanted() -> int:
    """DRIFTLINE_SEED, else today's date: every run of a day does the same, and every day something else."""
    return int(os.environ.get("DRIFTLINE_SEED", "") or datetime.datetime.now(datetime.UTC).strftime("%Y%m%d"))


class _Deck(Generic[T]):
    """Draws every item once before any comes again, so that a run reaches them all."""

    def __init__(self, rng: random.Random, items: Sequence[T]) -> None:
        self._rng = rng
        self._items = items
        self._left: list[T] = []

    def draw(self) -> T:
        if not self._left:
            self._left = self._rng.sample(self._items, len(self._items))
        return self._left.pop()


def schedule(seed: int, count: int, weights: Mapping[str, int] = WEIGHTS) -> list[Fault]:
    """`count` faults. Where they are enough, every kind comes once before chance decides."""
    rng = random.Random(seed)
    kinds = [kind for kind, weight in weights.items() if weight]
    rng.shuffle(kinds)
    shares = [weights[kind] for kind in kinds]
    drawn = kinds[:count] + rng.choices(kinds, shares, k=max(0, count - len(kinds)))
    # A server costs more to start again than a service: it comes half as often.
    processes = (*SERVICES, *SERVICES, *SERVERS)
    connections = [(name, server) for name in SERVICES for server in SPEAKS[name.partition("-")[0]]]
    dealer = _Dealer(
        rng,
        _Deck(rng, processes),
        _Deck(rng, processes),
        _Deck(rng, connections),
        _Deck(rng, TOPICS),
        _Deck(rng, SERVICES),
    )
    return [dealer.fault(kind) for kind in drawn]


@dataclass(frozen=True, slots=True)
class _Dealer:
    rng: random.Random
    killed: _Deck[str]
    frozen: _Deck[str]
    connections: _Deck[tuple[str, str]]
    topics: _Deck[str]
    clocks: _Deck[str]

    def fault(self, kind: str) -> Fault:
        rng = self.rng
        match kind:
            case "kill":
                return Fault(kind, self.killed.draw(), seconds=round(rng.uniform(0.1, 2.0), 1))
            case "freeze":
                # Up to two sessions: the group has given the member up when it goes on.
                seconds = rng.choice([0.3, 1, 2, SESSION_SECONDS + 2, 2 * SESSION_SECONDS])
                return Fault(kind, self.frozen.draw(), seconds=seconds)
            case "cut":
                how = rng.choice(["drop", "reset", "hold"])
                return Fault(kind, *self.connections.draw(), how, seconds=rng.choice([0.5, 3, 8]))
            case "slow":
                how, amounts = rng.choice([("latency", [0.05, 0.3]), ("bandwidth", [20_000, 200_000])])
                return Fault(kind, *self.connections.draw(), how, rng.choice(amounts), rng.choice([3, 8]))
            case "poison":
                return Fault(kind, self.topics.draw(), how=rng.choice(["garbage", "empty", "null"]))
            case "clock":
                # Apache Kafka takes no record from more than an hour ahead.
                amount = rng.choice([-86_400, -1_800, -0.5, 0.5, 60, 3_000])
                return Fault(kind, self.clocks.draw(), amount=amount, seconds=rng.choice([2, 8]))
            case "memory":
                return Fault(kind, "redis", seconds=rng.choice([2, 8]))
            case "disk":
                return Fault(kind, "kafka", seconds=rng.choice([1, 4]))
        raise ValueError(kind)
