"""Load for the tests: producers that tell the oracle, searchers that count what fails, and who watches receipts."""

from __future__ import annotations

import random
import threading
from typing import Any

import httpx

from driftline.adapters.kafka import KafkaLogReader
from driftline.core import codec
from driftline.core.records import Outcome
from driftline.core.settings import KafkaSettings
from driftline.core.topics import RECEIPTS
from driftline.local.stack import Stack
from tests.client import User
from tests.oracle import Oracle, text_of

DOCUMENTS = 150


class Load(threading.Thread):
    """One producer: random upserts and deletes with unique, shuffled versions; every 7th event is sent twice."""

    def __init__(self, stack: Stack, collection: str, oracle: Oracle, number: int, seed: int) -> None:
        super().__init__(name=f"load-{number}")
        self.user = User(stack)
        self.collection = collection
        self.oracle = oracle
        self.number = number
        self.random = random.Random(seed + number)
        self.halt = threading.Event()
        self.error: BaseException | None = None
        self.sent = 0
        self.used: set[tuple[object, object]] = set()

    def run(self) -> None:
        try:
            while not self.halt.is_set():
                self.step()
        except BaseException as error:
            self.error = error

    def step(self) -> None:
        lines = []
        for _ in range(20):
            self.sent += 1
            document_id = f"d{self.random.randrange(DOCUMENTS)}"
            # Late events: versions jump back and forth around the counter; the producer's number makes them unique.
            version = max(1, self.sent * 10 + self.random.randrange(-300, 300) // 10 * 10) * 10 + self.number
            line: dict[str, object] = {"id": document_id, "version": version}
            if self.random.random() < 0.25:
                line["operation"] = "delete"
            else:
                line["fields"] = {"body": text_of(document_id, version, self.random.randint(1, 4))}
            lines.append(line)
        lines = self.only_first(lines)
        for part in (lines, lines[::7]):
            for line, answer in zip(part, self.send(part), strict=True):
                fields = line.get("fields")
                sentences = fields["body"].count(" says ") if isinstance(fields, dict) else 0
                if "token" in answer:
                    self.oracle.accepted(answer["id"], answer["version"], sentences, answer["token"])
        self.halt.wait(0.05)

    def send(self, part: list[dict[str, object]]) -> list[dict[str, Any]]:
        """An ingest that dies may have taken the lines or not: sent again with their versions, they are the same."""
        while True:
            try:
                return self.user.bulk(self.collection, part)
            except httpx.HTTPError:
                self.halt.wait(0.2)

    def only_first(self, lines: list[dict[str, object]]) -> list[dict[str, object]]:
        """A version of a document means one thing only: never send two events with the same."""
        fresh = []
        for line in lines:
            key = (line["id"], line["version"])
            if key not in self.used:
                self.used.add(key)
                fresh.append(line)
        return fresh


class Searches(threading.Thread):
    """Searches all the time; `failed` has every answer that was none."""

    def __init__(self, stack: Stack, collection: str) -> None:
        super().__init__(name="searches")
        self.user = User(stack)
        self.collection = collection
        self.halt = threading.Event()
        self.answered = 0
        self.failed: list[str] = []

    def run(self) -> None:
        while not self.halt.wait(0.02):
            body = {"text": f"says v{self.answered % 50} in sentence", "limit": 5}
            if self.answered % 10 == 0:
                body["rerank"] = 20
            try:
                answer = self.user.query.post(f"/v1/collections/{self.collection}/search", json=body)
            except httpx.HTTPError as error:
                self.failed.append(repr(error))
                continue
            if answer.status_code == 200:
                self.answered += 1
            else:
                self.failed.append(answer.text)


class Freshness(threading.Thread):
    """Seconds from acceptance to searchable of a collection's events, as its receipts tell them."""

    def __init__(self, stack: Stack, collection: str) -> None:
        super().__init__(name="freshness")
        self.reader = KafkaLogReader(KafkaSettings(bootstrap_servers=stack.addresses["kafka"], fetch_wait_ms=50))
        self.reader.seek({(RECEIPTS.name, p): e for p, e in self.reader.ends(RECEIPTS.name).items()})
        self.collection = collection
        self.halt = threading.Event()
        self.seconds: list[float] = []  # of one receipt after the other

    def run(self) -> None:
        while not self.halt.is_set():
            for record in self.reader.poll(1_000, 0.2):
                self.seconds += [
                    (r.searchable_at_us - r.accepted_at_us) / 1e6
                    for r in codec.decode_receipts(record.value)
                    if r.collection == self.collection and r.outcome is Outcome.SEARCHABLE
                ]
        self.reader.close()
