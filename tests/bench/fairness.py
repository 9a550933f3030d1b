"""`make bench-fairness`: how soon one tenant's changes are searchable while others are a burden.

One tenant writes one document a second all the time. First nobody else does; then another collection is re-embedded by
a new model. Then it writes to nine collections in turn, before and while the store of a tenth cannot be used. At last
another tenant of its own collection sends 50,000 documents in one go. Freshness is what the receipts tell, from
acceptance to searchable.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from driftline.adapters.milvus.client import MilvusClient
from driftline.cli.demo import documents
from driftline.local.stack import Stack
from tests.bench.system import KAFKA, ROOT, commit, machine, say, system
from tests.client import User, until

ENCODER = "minilm-l6-int8"
FLOOD = int(os.environ.get("DRIFTLINE_BENCH_FLOOD", "50000"))
SECONDS = float(os.environ.get("DRIFTLINE_BENCH_SECONDS", "120"))
BACKFILLED = int(os.environ.get("DRIFTLINE_BENCH_BACKFILLED", "4000"))
FIELDS = {"title": {"type": "text"}, "body": {"type": "text"}}


class Writer(threading.Thread):
    """The quiet tenant: a document a second, and how long each took to become searchable, in seconds."""

    def __init__(self, stack: Stack, collections: list[str], texts: list[str]) -> None:
        super().__init__(name="quiet")
        self.user = User(stack)
        self.collections = collections
        self.texts = texts
        self.halt = threading.Event()
        self.seconds: list[float] = []
        self.late = 0

    def run(self) -> None:
        number = 0
        while not self.halt.is_set():
            begun = time.monotonic()
            number += 1
            body = {"fields": {"title": f"quiet {number}", "body": self.texts[number % len(self.texts)]}}
            name = self.collections[number % len(self.collections)]
            params = {"tenant": "quiet", "wait": "searchable", "timeout_seconds": "60"}
            path = f"/v1/collections/{name}/documents/q{number}"
            answer = self.user.ingest.put(path, json=body, params=params).json()
            event = self.user.ingest.get(
                f"/v1/status/{name}/q{number}", params={"tenant": "quiet", "token": answer["token"]}
            ).json()["event"]
            if "searchable_at_us" in event:
                self.seconds.append((event["searchable_at_us"] - event["accepted_at_us"]) / 1e6)
            else:
                self.late += 1
            self.halt.wait(max(0.0, 1.0 - (time.monotonic() - begun)))


class Fairness:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.user = stack, User(stack)
        self.texts = [d["fields"]["doc"] for d in documents()]
        self.ended = threading.Event()
        self.broken = threading.Thread(target=self.write_in_vain, name="in-vain")

    def create(self, name: str, encoder: str, tenancy: bool) -> str:
        definition: dict[str, Any] = {
            "name": name,
            "fields": FIELDS,
            "embedding": {"encoder": encoder, "fields": ["title", "body"]},
            "tenancy": tenancy,
        }
        self.user.ingest.put(f"/v1/collections/{name}", json=definition).raise_for_status()
        return name

    def shown(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.user.ingest.get(f"/v1/collections/{name}").json()
        return found

    def lines(self, count: int, prefix: str, tenant: str | None = None) -> list[dict[str, Any]]:
        lines = [
            {"id": f"{prefix}{i}", "fields": {"title": f"{prefix} {i}", "body": self.texts[i % len(self.texts)]}}
            for i in range(count)
        ]
        return [line | {"tenant": tenant} for line in lines] if tenant else lines

    def flood(self) -> None:
        begun = time.monotonic()
        lines = self.lines(FLOOD, "f", "flood")
        for i in range(0, len(lines), 5_000):
            self.user.bulk("shared", lines[i : i + 5_000])
        say(f"  Kafka had {FLOOD} documents after {time.monotonic() - begun:.1f} s")

    def backfill(self) -> None:
        answer = self.user.upgrade.post("/v1/upgrades/large", json={"encoder": ENCODER, "pairs": 100})
        answer.raise_for_status()

    def break_store(self) -> None:
        """Make the tenth collection's store one of another space, and write to it ten times a second."""
        store = self.shown("broken")["generations"][0]["store"]
        milvus = MilvusClient(uri=self.stack.addresses["milvus"])
        milvus.drop_collection(store)
        milvus.create_collection(store, dimension=3)
        self.broken.start()

    def write_in_vain(self) -> None:
        number = 0
        while not self.ended.wait(0.1):
            number += 1
            self.user.put("broken", f"b{number}", False, None, title=f"in vain {number}")

    def phase(self, writer: Writer, name: str, begin: Callable[[], None]) -> list[float]:
        first = len(writer.seconds)
        begun = time.monotonic()
        begin()
        time.sleep(max(0.0, SECONDS - (time.monotonic() - begun)))
        seconds = writer.seconds[first:]
        p50, p99 = np.quantile(seconds, [0.5, 0.99])
        say(f"{name}: {len(seconds)} writes, freshness p50 {p50:.3f} s, p99 {p99:.3f} s, worst {max(seconds):.3f} s")
        return seconds

    def run(self) -> dict[str, list[float]]:
        self.create("shared", ENCODER, tenancy=True)
        self.create("large", "hashing", tenancy=False)
        self.user.bulk("large", self.lines(BACKFILLED, "l"))
        until(lambda: self.shown("large").get("documents") == BACKFILLED, 300, every=1)
        with self.writing(["shared"]) as writer:
            found = {"quiet": self.phase(writer, "quiet", lambda: None)}
            found["backfill"] = self.phase(writer, "backfill", self.backfill)
            until(lambda: self.user.upgrade.get("/v1/upgrades/large").json()["phase"] == "complete", 600, every=1)
        self.create("broken", "hashing", tenancy=False)
        with self.writing([self.create(f"c{i}", ENCODER, tenancy=True) for i in range(9)]) as writer:
            found["nine"] = self.phase(writer, "nine", lambda: None)
            try:
                found["broken"] = self.phase(writer, "broken", self.break_store)
            finally:
                self.ended.set()
        self.user.ingest.delete("/v1/collections/broken").raise_for_status()
        with self.writing(["shared"]) as writer:
            found["flood"] = self.phase(writer, "flood", self.flood)
        return found

    @contextmanager
    def writing(self, collections: list[str]) -> Iterator[Writer]:
        writer = Writer(self.stack, collections, self.texts)
        writer.start()
        try:
            time.sleep(10)
            yield writer
        finally:
            writer.halt.set()
            writer.join(90)
        assert not writer.late, f"{writer.late} writes were not searchable within a minute"


def p99(seconds: list[float]) -> float:
    return float(np.quantile(seconds, 0.99))


def page(found: dict[str, list[float]]) -> str:
    names = {
        "quiet": "nobody else writes",
        "backfill": f"another collection of {BACKFILLED} documents is re-embedded by {ENCODER}",
        "nine": "nobody else writes, and the document goes to nine collections in turn",
        "broken": "the store of a tenth collection cannot be used, and 10 documents a second come for it",
        "flood": f"another tenant of the one collection sends {FLOOD} documents at once",
    }
    quiet = {name: p99(found["nine" if name in ("nine", "broken") else "quiet"]) for name in found}
    rows = "\n".join(
        f"| {names[name]} | {len(s)} | {np.quantile(s, 0.5):.3f} | {p99(s):.3f} | {p99(s) / quiet[name]:.2f} |"
        for name, s in found.items()
    )
    return f"""# Fairness

<!-- Written by `make bench-fairness`. -->

{machine()}; commit {commit()}, {time.strftime("%Y-%m-%d")}; {KAFKA} Kafka, encoder {ENCODER}. Servers, services and the
client share these cores. One tenant writes a document a second; freshness in seconds, from acceptance to searchable, as
its receipts tell.

| meanwhile | writes | p50 | p99 | p99 over quiet |
| --- | --- | --- | --- | --- |
{rows}

A collection whose store cannot be used waits alone: its changes go to the topic `deferred`, and come back when it can.
What a tenant sends beyond its share while more is waiting is put off to the topic `deferred`; it and backfills are
embedded with a lower priority and fewer requests in flight while others write
(`DRIFTLINE_ENCODE__SHARE_PER_SECOND`, `DRIFTLINE_ENCODE__BACKGROUND_IN_FLIGHT`).
"""


def main() -> int:
    with system((ENCODER, "hashing"), KAFKA) as stack:
        found = Fairness(stack).run()
    text = page(found)
    say(text)
    if "--record" in sys.argv:
        (ROOT / "docs/benchmarks-fairness.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
