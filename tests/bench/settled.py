"""What became of millions of events, in memory that does not grow with their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from driftline.adapters.kafka import KafkaLogReader
from driftline.core import codec
from driftline.core.records import Outcome, Receipt
from driftline.core.settings import KafkaSettings
from driftline.core.topics import RECEIPTS
from driftline.local.stack import Stack
from tests.oracle import Oracle

# A receipt can be read before its producer has read the acceptance, by much less than this.
EARLY_SECONDS = 60.0
# Freshness is counted in classes 3 % wide, from 1 ms up: 400 of them reach 136 s.
CLASSES, WIDTH = 400, 1.03
PART_SECONDS = 10.0


@dataclass
class Account(Oracle):
    """An oracle that forgets an event once it has its receipt. Thread-safe.

    `waiting` are accepted events without one; `early` are receipts of events whose acceptance nobody has told yet. One
    that stays there is a repetition: delivery is at least once.
    """

    waiting: set[str] = field(default_factory=set)
    early: dict[str, float] = field(default_factory=dict)
    events: int = 0
    settled: int = 0
    repeated: int = 0
    rejected: list[Receipt] = field(default_factory=list)

    def accepted(self, document_id: str, version: int, sentences: int, token: str) -> None:
        with self.lock:
            self.events += 1
            if self.early.pop(token, None) is None:
                self.waiting.add(token)
            else:
                self.settled += 1
            if version > self.newest.get(document_id, (0, 0))[0]:
                self.newest[document_id] = (version, sentences)

    def receive(self, receipts: Sequence[Receipt], now: float) -> None:
        """`now` in seconds of a clock that never goes back."""
        with self.lock:
            for receipt in receipts:
                token = receipt.position.token()
                if receipt.outcome is Outcome.REJECTED and len(self.rejected) < 100:
                    self.rejected.append(receipt)
                if token in self.waiting:
                    self.waiting.remove(token)
                    self.settled += 1
                else:
                    self.early[token] = now
            for token in [t for t, at in self.early.items() if now - at > EARLY_SECONDS]:
                del self.early[token]
                self.repeated += 1


class Freshness:
    """Seconds from acceptance to searchable, as counts of every part of ten seconds."""

    def __init__(self) -> None:
        self.parts: list[tuple[float, np.ndarray]] = []  # (its begin in seconds, counts per class)

    def add(self, seconds: Sequence[float], now: float) -> None:
        if not self.parts or now - self.parts[-1][0] >= PART_SECONDS:
            self.parts.append((now, np.zeros(CLASSES, dtype=np.int64)))
        classes = np.log(np.maximum(seconds, 1e-3) / 1e-3) / np.log(WIDTH)
        np.add.at(self.parts[-1][1], np.minimum(classes.astype(int), CLASSES - 1), 1)

    def over_time(self, share: float) -> list[tuple[float, float]]:
        """(seconds, the quantile in seconds) of each part."""
        return [(at, quantile(counts, share)) for at, counts in self.parts if counts.any()]

    def overall(self, share: float) -> float:
        return quantile(np.sum([counts for _, counts in self.parts], axis=0), share)


def quantile(counts: np.ndarray, share: float) -> float:
    """The upper end of the class that has it, in seconds: at most 3 % too much."""
    at = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return float(1e-3 * WIDTH ** (at + 1))


class Receipts(threading.Thread):
    """Reads the receipts of a collection as they come and settles the account with them."""

    def __init__(self, stack: Stack, collection: str, account: Account) -> None:
        super().__init__(name="receipts")
        self.reader = KafkaLogReader(KafkaSettings(bootstrap_servers=stack.addresses["kafka"]))
        self.reader.seek({(RECEIPTS.name, p): e for p, e in self.reader.ends(RECEIPTS.name).items()})
        self.collection, self.account = collection, account
        self.freshness = Freshness()
        self.begun = time.monotonic()
        self.halt = threading.Event()
        self.error: BaseException | None = None

    def begin(self) -> None:
        """What was measured until now was the rehearsal."""
        self.freshness, self.begun = Freshness(), time.monotonic()

    def run(self) -> None:
        try:
            while not self.halt.is_set():
                self.step()
        except BaseException as error:
            self.error = error
        self.reader.close()

    def step(self) -> None:
        read = [r for record in self.reader.poll(1_000, 0.2) for r in codec.decode_receipts(record.value)]
        ours = [r for r in read if r.collection == self.collection]
        self.account.receive(ours, time.monotonic())
        fresh = [(r.searchable_at_us - r.accepted_at_us) / 1e6 for r in ours if r.outcome is Outcome.SEARCHABLE]
        if fresh:
            self.freshness.add(fresh, time.monotonic() - self.begun)
