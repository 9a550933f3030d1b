"""Load for the tests: producers that tell the oracle, searchers that count what fails, and who watches receipts."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import httpx
import orjson

from driftline.adapters.kafka import KafkaLogReader
from driftline.cli.client import each_line
from driftline.core import codec
from driftline.core.records import Outcome
from driftline.core.settings import KafkaSettings
from driftline.core.topics import RECEIPTS
from driftline.local.stack import Stack
from tests.client import User
from tests.oracle import Oracle, fields_of

DOCUMENTS = 150


class Load(threading.Thread):
    """One producer: random upserts and deletes with unique, shuffled versions; every 7th event is sent twice.

    Without `versions` the log assigns them, and every producer writes documents of its own, in order: a document whose
    event may have been taken twice is not written again, and the oracle takes either. Each event is sent until ingest
    has accepted it, whatever that takes.
    """

    def __init__(
        self,
        stack: Stack,
        collection: str,
        oracle: Oracle,
        number: int,
        seed: int,
        versions: bool = True,
        pause_seconds: float = 0.05,
    ) -> None:
        super().__init__(name=f"load-{number}")
        self.user = User(stack)
        self.collection = collection
        self.oracle = oracle
        self.number = number
        self.random = random.Random(seed + number)
        self.versions = versions
        self.pause_seconds = pause_seconds
        self.halt = threading.Event()
        self.error: BaseException | None = None
        self.sent = 0
        self.refused = 0
        self.used: set[tuple[object, object]] = set()

    def run(self) -> None:
        try:
            while not self.halt.is_set():
                self.step()
        except BaseException as error:
            self.error = error

    def step(self) -> None:
        lines = self.some_lines()
        for part in (lines, lines[::7]):
            for line, answer in zip(part, self.send(part), strict=True):
                fields = line.get("fields")
                sentences = fields["body"].count(" says ") if isinstance(fields, dict) else 0
                self.oracle.accepted(answer["id"], answer["version"], sentences, answer["token"])
        self.halt.wait(self.pause_seconds)

    def some_lines(self) -> list[dict[str, object]]:
        lines: list[dict[str, object]] = []
        for _ in range(20):
            self.sent += 1
            document_id = f"d{self.random.randrange(DOCUMENTS)}"
            # Late events: versions jump back and forth around the counter; the producer's number makes them unique.
            version = max(1, self.sent * 10 + self.random.randrange(-300, 300) // 10 * 10) * 10 + self.number
            line: dict[str, object] = {"id": document_id, "version": version}
            if not self.versions:
                document_id = f"p{self.number}-{document_id}"
                if document_id in self.oracle.doubtful:
                    continue
                line = {"id": document_id}
            if self.random.random() < 0.25:
                line["operation"] = "delete"
            else:
                line["fields"] = fields_of(document_id, version, self.random.randint(1, 4))
            lines.append(line)
        return self.only_first(lines) if self.versions else lines

    def send(self, part: list[dict[str, object]]) -> list[dict[str, Any]]:
        """One acceptance per line, in order. An ingest that dies, or whose broker does, may have taken lines that it
        did not answer for: sent again with their versions, they are the same."""
        accepted: dict[int, dict[str, Any]] = {}
        while len(accepted) < len(part):
            left = [i for i in range(len(part)) if i not in accepted]
            answers = self.answers([part[i] for i in left])
            accepted |= {i: answer for i, answer in zip(left, answers, strict=False) if "token" in answer}
            if doubtful := [i for i in left if i not in accepted]:
                self.refused += 1
                if not self.versions:
                    self.oracle.doubtful |= {str(part[i]["id"]) for i in doubtful}
                time.sleep(0.2)
        return [accepted[i] for i in range(len(part))]

    def answers(self, lines: list[dict[str, object]]) -> list[dict[str, Any]]:
        """What ingest says to each line, nothing while it is away. A line that it finds wrong is an error of ours."""
        content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        try:
            answer = self.user.ingest.post(f"/v1/collections/{self.collection}/bulk", content=content)
        except httpx.HTTPError:
            return []
        if answer.status_code in (429, 503):
            return []
        assert answer.status_code == 200, answer.text
        found = each_line(answer.content)
        for result in found:
            assert "token" in result or result["problem"]["status"] in (429, 503), result
        return found

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
