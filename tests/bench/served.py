"""The same changes of models through the running service: Kafka, Triton, Milvus, and its own query path."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from driftline.adapters.redis import RedisCache
from driftline.cli.client import Api
from driftline.cli.evaluate import read_qrels, read_queries, run_queries
from driftline.core.settings import RedisSettings
from driftline.drift.quality import captured, paired
from driftline.local.stack import Stack
from driftline.retrieval.embeddings import cache_key
from driftline.retrieval.evaluation import ndcg, recall
from tests.bench.arms import COLLECTIONS
from tests.bench.encoders import TUNED, Encoders
from tests.bench.judged import DATASETS, read_collection
from tests.bench.ways import BUDGET
from tests.client import User, until
from tests.oracle import stored

# One of each regime.
SERVED = (
    ("scifact", "minilm-l6", TUNED),
    ("cranfield", "minilm-l3", "minilm-l6"),
    ("med", "minilm-l3", "mpnet"),
)


@dataclass(frozen=True)
class Reading:
    """What searches were worth at a moment: a figure of every judged query, and the share re-embedded after them."""

    when: str
    ndcg: list[float]
    recall: float
    embedded: float


class Change:
    """One collection in the service, carried from one encoder to another."""

    def __init__(self, stack: Stack, encoders: Encoders, name: str, old: str, new: str) -> None:
        self.stack, self.user = stack, User(stack)
        self.api = Api("query", stack.query_url)
        self.folder = DATASETS / name
        self.old, self.new = old, new
        qrels = read_qrels(self.folder, "test")
        self.qrels = {q: grades for q, grades in qrels.items() if any(g > 0 for g in grades.values())}
        self.queries = {q: text for q, text in read_queries(self.folder).items() if q in self.qrels}
        cache = RedisCache(RedisSettings(url=stack.addresses["redis"]))
        texts = read_collection(name).documents
        for encoder in (old, new):
            space, vectors = encoders.space(encoder), encoders.encode(encoder, texts, query=False)
            keys = [cache_key(space.fingerprint, space.document_prefix + text) for text in texts]
            cache.set_many({k: v.tobytes() for k, v in zip(keys, vectors, strict=True)}, 86_400)
        self.collection, self.count = self._load()

    def _load(self) -> tuple[str, int]:
        fields = {"title": {"type": "text"}, "text": {"type": "text"}}
        collection = self.user.create(fields=fields, embedding={"encoder": self.old, "fields": ["title", "text"]})
        corpus = [orjson.loads(line) for line in (self.folder / "corpus.jsonl").read_bytes().splitlines()]
        lines = [{"id": d["_id"], "fields": {"title": d["title"], "text": d["text"]}} for d in corpus]
        accepted = sum(
            answer.get("state") == "accepted"
            for start in range(0, len(lines), 500)
            for answer in self.user.bulk(collection, lines[start : start + 500])
        )
        until(lambda: self.user.count(collection) == accepted, 900, every=1)
        return collection, accepted

    def read(self, when: str, rerank: int = 0) -> Reading:
        run = run_queries(self.api, self.collection, self.queries, 100, rerank)
        if rerank:
            # What was embedded on the way is written through, half a second later at the latest.
            time.sleep(10)
        values = [ndcg(run[q], grades, 10) for q, grades in sorted(self.qrels.items())]
        recalls = [recall(run[q], grades, 100) for q, grades in sorted(self.qrels.items())]
        return Reading(when, values, sum(recalls) / len(recalls), self._embedded())

    def _embedded(self) -> float:
        """The share of the documents that the new generation holds."""
        numbers = [g["number"] for g in self.shown()["generations"]]
        return len(stored(self.stack, self.user, self.collection, max(numbers))) / self.count if numbers[1:] else 0.0

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.user.ingest.get(f"/v1/collections/{self.collection}").json()
        return shown

    def start(self, until_phase: str, **options: Any) -> None:
        body = {"encoder": self.new, "pairs": 1_000, **options}
        answer = self.user.upgrade.post(f"/v1/upgrades/{self.collection}", json=body)
        assert answer.status_code == 201, answer.text
        until(lambda: self.told()["phase"] == until_phase, 1_800, every=0.5)

    def command(self, name: str) -> None:
        self.user.upgrade.post(f"/v1/upgrades/{self.collection}/{name}").raise_for_status()

    def told(self) -> dict[str, Any]:
        answer: httpx.Response = self.user.upgrade.get(f"/v1/upgrades/{self.collection}")
        told: dict[str, Any] = answer.json()
        return told

    def readings(self) -> tuple[list[Reading], str]:
        budget = int(BUDGET * self.count)
        found = [self.read("before: status quo")]
        # So slow that nothing is re-embedded but what searches ask for.
        self.start("backfilling", per_second=0.01)
        self.command("pause")
        decision = self.told()["decision"]
        found.append(self.read(f"paused at the beginning: {decision}"))
        found.append(self.read(f"the same, rerank={budget}", budget))
        found.append(self.read("after that, without rerank"))
        self.command("rollback")
        found.append(self.read("rolled back"))
        self.start("complete")
        found.append(self.read("complete: re-index"))
        return found, decision


def served_section(stack: Stack, encoders: Encoders, say: Callable[[str], None]) -> str:
    parts = [
        "## Through the service",
        "The same through Kafka, Milvus and the query service's own path (embeddings of documents cached, those of\n"
        f"queries by Triton), a change of each regime. `rerank` is {BUDGET:.0%} of the corpus a query; what it\n"
        "embedded is carried over, so that the share of the new generation grows with the searches. The service chose\n"
        "what to serve by queries that it made itself, without the judged ones.",
    ]
    for name, old, new in SERVED:
        if name in COLLECTIONS:
            say(f"through the service: {name}, {old} to {new}")
            readings, _ = Change(stack, encoders, name, old, new).readings()
            parts += [f"### {name}: {old} to {new}", _table(readings)]
            say(parts[-1])
    return "\n\n".join(parts)


def _table(readings: list[Reading]) -> str:
    today, best = readings[0].ndcg, readings[-1].ndcg
    gap = paired(best, today)
    lines = ["| moment | nDCG@10 | against the status quo | U | recall@100 | in the new generation, afterwards |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for reading in readings:
        mean = sum(reading.ndcg) / len(reading.ndcg)
        u = captured(mean, sum(today) / len(today), sum(best) / len(best), gap)
        cells = [reading.when, f"{mean:.4f}", str(paired(reading.ndcg, today)), "n/a" if u is None else f"{u:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{reading.recall:.3f}", f"{reading.embedded:.1%}"]) + " |")
    return "\n".join(lines)
