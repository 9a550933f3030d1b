"""What the index must hold after a history: the accepted event with the highest version of each document."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from driftline.adapters.kafka import KafkaLogReader
from driftline.adapters.milvus import MilvusStore
from driftline.core import codec
from driftline.core.collections import parse_definition
from driftline.core.errors import InvalidRecord
from driftline.core.records import Outcome, Receipt
from driftline.core.settings import KafkaSettings, MilvusSettings
from driftline.core.store import StoreTarget
from driftline.core.topics import RECEIPTS
from driftline.local.stack import Stack
from tests.client import User

# What tests put into topics as a record that none can be.
POISON = b"\xff\xff"


def text_of(document_id: str, version: int, sentences: int) -> str:
    """A body that tells its own version, in that many chunks."""
    return " ".join(f"{document_id} says v{version} in sentence {i} with some more words." for i in range(sentences))


# A sentence of `text_of` has 13 to 19 word pieces: one fits a window of 24 (two are special), two never do.
CHUNKING = {"mode": "sentences", "max_tokens": 24, "overlap_tokens": 0}
# What the oracle's histories are written into: their versions say what must win, whatever the order of arrival.
VERSIONED: dict[str, Any] = {
    "versions": "external",
    "embedding": {"encoder": "hashing", "fields": ["body"], "chunking": CHUNKING},
}


# The same in three indexes: what one has for a document, another may not, see `fields_of`.
WORDS: dict[str, Any] = {"mode": "sentences", "max_tokens": 16, "overlap_tokens": 0}
HYBRID: dict[str, Any] = {
    "versions": "external",
    "embedding": None,
    "indexes": {
        "dense": VERSIONED["embedding"],
        "words": {"analyzer": "english", "fields": ["body"], "chunking": WORDS},
        "titles": {"analyzer": "none", "fields": ["title"]},
    },
    "profiles": {"default": [{"search": {"of": [{"index": "dense"}, {"index": "words"}, {"index": "titles"}]}}]},
}
# What is added to it while it runs.
FOURTH: dict[str, Any] = {"encoder": "hashing", "fields": ["title"]}


def fields_of(document_id: str, version: int, sentences: int) -> dict[str, str]:
    """A body, and a title where the body has an even number of sentences."""
    return {"body": text_of(document_id, version, sentences)} | ({} if sentences % 2 else {"title": "an even one"})


@dataclass
class Oracle:
    """Thread-safe. Versions are unique per document, so the highest one decides.

    `doubtful` are documents whose last event may have been taken more than once: where its version comes from the
    log, any later one of the same content is right.
    """

    newest: dict[str, tuple[int, int]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accepted(self, document_id: str, version: int, sentences: int, token: str) -> None:
        """`sentences` 0 is a delete."""
        with self.lock:
            self.tokens.add(token)
            if version > self.newest.get(document_id, (0, 0))[0]:
                self.newest[document_id] = (version, sentences)

    def expected(self) -> dict[str, tuple[int, int]]:
        """Document id -> (version, chunks) of everything that must be searchable."""
        with self.lock:
            return {i: (v, n) for i, (v, n) in self.newest.items() if n}

    def expected_titles(self) -> dict[str, tuple[int, int]]:
        """The same for an index over the titles."""
        return {i: (v, 1) for i, (v, n) in self.expected().items() if n % 2 == 0}


def stored(stack: Stack, user: User, collection: str, number: int = 0) -> dict[str, tuple[int, int]]:
    """Document id -> (version, chunks) that a generation (0: the newest) holds in Milvus; fails on a document whose
    rows are of two versions."""
    shown = user.ingest.get(f"/v1/collections/{collection}").json()
    generation = next(g for g in reversed(shown["generations"]) if number in (0, g["number"]))
    target = StoreTarget(generation["store"], generation["space"], 256, "cosine", shown["uid"])
    rows: dict[str, dict[int, int]] = defaultdict(dict)
    for _, document_id, version, chunk in MilvusStore(MilvusSettings(uri=stack.addresses["milvus"])).scan(target):
        rows[document_id][chunk] = version
    for document_id, chunks in rows.items():
        assert len(set(chunks.values())) == 1, f"{document_id} has chunks of several versions: {chunks}"
        assert set(chunks) == set(range(len(chunks))), f"{document_id} lacks chunks: {chunks}"
    return {i: (next(iter(c.values())), len(c)) for i, c in rows.items()}


def receipts_of(stack: Stack, tokens: set[str], timeout_seconds: float) -> dict[str, list[Receipt]]:
    """Every receipt of these events, read until each has one. Fails when one has none in time."""
    reader = KafkaLogReader(KafkaSettings(bootstrap_servers=stack.addresses["kafka"]))
    reader.seek({(RECEIPTS.name, p): 0 for p in reader.ends(RECEIPTS.name)})
    found: dict[str, list[Receipt]] = defaultdict(list)
    missing = set(tokens)
    deadline = time.monotonic() + timeout_seconds
    quiet = 0
    while missing or quiet < 5:
        records = reader.poll(1_000, 0.2)
        quiet = 0 if records else quiet + 1
        for record in records:
            try:
                receipts = codec.decode_receipts(record.value)
            except InvalidRecord:
                # Other tests, and the faults, put records into the topic that are none.
                continue
            for receipt in receipts:
                token = receipt.position.token()
                if token in tokens:
                    found[token].append(receipt)
                    missing.discard(token)
        assert time.monotonic() < deadline, (
            f"{len(missing)} of {len(tokens)} events have no receipt: {sorted(missing)[:5]}"
        )
    reader.close()
    return found


def check_receipts(found: dict[str, list[Receipt]]) -> None:
    """Redelivery may repeat a receipt. The last one is final; before it there may be only the same outcome, or
    `searchable` of a version that a crash let be applied and then superseded before its commit.

    Last is by their place in the topic, or by when they were written: a request that a held connection delivers after
    its records were given up and processed again brings the earlier receipt late. A clock that jumps makes the times
    wrong, but then nothing is late.
    """
    for token, receipts in found.items():
        orders = (receipts, sorted(receipts, key=lambda r: r.written_at_us))
        assert any(map(_ends_well, orders)), f"{token}: {receipts}"


def _ends_well(receipts: list[Receipt]) -> bool:
    final = receipts[-1].outcome
    earlier = {r.outcome for r in receipts[:-1]} - {final}
    return not earlier or (earlier == {Outcome.SEARCHABLE} and final is Outcome.SUPERSEDED)


def differences(held: dict[str, tuple[int, int]], oracle: Oracle) -> list[str]:
    """What the index holds otherwise than the oracle, in words: lost, resurrected or stale."""
    return differences_to(held, oracle.expected(), oracle)


def differences_to(held: dict[str, tuple[int, int]], expected: dict[str, tuple[int, int]], oracle: Oracle) -> list[str]:
    wrong = [f"{i} was lost: {expected[i]}" for i in expected.keys() - held.keys()]
    wrong += [f"{i} is there and must not be: {held[i]}" for i in held.keys() - expected.keys()]
    for i in expected.keys() & held.keys():
        later = i in oracle.doubtful and held[i][1] == expected[i][1] and held[i][0] >= expected[i][0]
        if held[i] != expected[i] and not later:
            wrong.append(f"{i} is {held[i]}, expected {expected[i]} (version, chunks)")
    return sorted(wrong)


def check(stack: Stack, user: User, collection: str, oracle: Oracle, timeout_seconds: float = 120) -> None:
    """Every event has a final receipt, and every index equals the oracle."""
    check_receipts(receipts_of(stack, oracle.tokens, timeout_seconds))
    shown = user.ingest.get(f"/v1/collections/{collection}").json()
    for name, index in parse_definition(shown["definition"]).named_indexes.items():
        assert shown["indexes"][name]["finished"], f"index {name} is not filled"
        newest = max(g["number"] for g in shown["generations"] if g["vector_name"] == name)
        expected = oracle.expected_titles() if index.fields == ("title",) else oracle.expected()
        wrong = differences_to(stored(stack, user, collection, newest), expected, oracle)
        assert not wrong, f"{len(wrong)} documents differ in index {name}: {wrong[:5]}"
