"""`make bench-upgrade`, second part: the same through the running service, by its own query path.

Writes its section into the page of the first part. Every second judged query is given to the service to judge by; the
others measure what it serves.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from driftline.adapters.redis import RedisCache
from driftline.cli.client import Api
from driftline.cli.evaluate import read_qrels, read_queries, run_queries
from driftline.core.keys import document_embedding
from driftline.core.settings import RedisSettings
from driftline.drift.quality import captured, paired
from driftline.local.stack import Stack
from driftline.retrieval.evaluation import ndcg, recall
from tests.bench.encoders import SRE, Encoders, prepare
from tests.bench.judged import DATASETS, read_collection
from tests.bench.system import ROOT, commit, say, system
from tests.bench.ways import BUDGET
from tests.client import User, until
from tests.oracle import stored

# One of each regime.
SERVED = (
    ("scifact", SRE[0], "minilm-l6"),
    ("cranfield", "minilm-l3", "minilm-l6"),
    ("med", "hashing", "minilm-l6"),
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
        texts = read_queries(self.folder)
        ids = sorted(q for q in self.qrels if q in texts)
        self.judged = [{"text": texts[q], "relevant": self._relevant(q)} for q in ids[::2] if self._relevant(q)]
        self.queries = {q: texts[q] for q in ids[1::2]}
        cache = RedisCache(RedisSettings(url=stack.addresses["redis"]))
        documents = read_collection(name).documents
        for encoder in (old, new):
            space, vectors = encoders.space(encoder), encoders.encode(encoder, documents, query=False)
            keys = [document_embedding(space.fingerprint, space.document_prefix + text) for text in documents]
            cache.set_many({k: v.tobytes() for k, v in zip(keys, vectors, strict=True)}, 86_400)
        self.collection, self.count = self._load()

    def _relevant(self, query: str) -> dict[str, int]:
        return {d: grade for d, grade in self.qrels[query].items() if grade > 0}

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
        run = run_queries(self.api, self.collection, self.queries, 100, {"rerank": rerank}).found
        if rerank:
            # What was embedded is asked for half a second later, and takes the lane of backfills from there.
            time.sleep(10)
        values = [ndcg(run[q], self.qrels[q], 10) for q in self.queries]
        recalls = [recall(run[q], self.qrels[q], 100) for q in self.queries]
        return Reading(when, values, sum(recalls) / len(recalls), self._embedded())

    def _embedded(self) -> float:
        """The share of the documents that the new generation holds."""
        newest = max(g["number"] for g in self.shown()["generations"])
        return len(stored(self.stack, self.user, self.collection, newest)) / self.count if newest > 1 else 0.0

    def shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.user.ingest.get(f"/v1/collections/{self.collection}").json()
        return shown

    def start(self, until_phase: str, **options: Any) -> None:
        body = {"encoder": self.new, "pairs": 500, "queries": self.judged, **options}
        answer = self.user.upgrade.post(f"/v1/upgrades/{self.collection}", json=body)
        assert answer.status_code == 201, answer.text
        until(lambda: self.told()["phase"] == until_phase, 1_800, every=0.5)

    def command(self, name: str) -> None:
        self.user.upgrade.post(f"/v1/upgrades/{self.collection}/{name}").raise_for_status()

    def told(self) -> dict[str, Any]:
        answer: httpx.Response = self.user.upgrade.get(f"/v1/upgrades/{self.collection}")
        told: dict[str, Any] = answer.json()
        return told

    def readings(self) -> list[Reading]:
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
        found.append(self.read("complete: " + ("the status quo" if self.told()["fallback"] else "the new model alone")))
        self.user.upgrade.post(f"/v1/upgrades/{self.collection}/finish", params={"force": True}).raise_for_status()
        until(lambda: len(self.shown()["generations"]) == 1, 60)
        found.append(self.read("finished: re-index"))
        return found


def section(stack: Stack, encoders: Encoders) -> str:
    parts = [
        "## Through the service",
        f"Commit {commit()}. Through Kafka, Milvus and the query service's own path (embeddings of documents\n"
        "cached, those of queries by Triton), a change of each regime. `rerank` is of\n"
        f"{BUDGET:.0%} of the corpus a query; what it embedded is carried over, so that the new generation grows with\n"
        "the searches, and later ones find by it. Every second judged query was given to the service to judge by; the\n"
        "figures are of the others.",
    ]
    for name, old, new in SERVED:
        say(f"through the service: {name}, {old} to {new}")
        parts += [f"### {name}: {old} to {new}", _table(Change(stack, encoders, name, old, new).readings())]
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


def put_into(page: str, section: str) -> str:
    """The page with the section in place of the one that is there, else at its end."""
    before, _, rest = page.partition("## Through the service\n")
    _, mark, after = rest.partition("\n## ")
    return f"{before.rstrip()}\n\n{section}\n" + (f"\n{mark.lstrip()}{after}" if mark else "")


def main() -> int:
    models = sorted({model for _, old, new in SERVED for model in (old, new)})
    prepare(models, say)
    with system(models, env={"DRIFTLINE_QUERY__MAX_RERANK": "1000"}) as stack:
        found = section(stack, Encoders(stack.addresses["triton"]))
    target = ROOT / "docs/benchmarks-upgrade.md"
    target.write_text(put_into(target.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
