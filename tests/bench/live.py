"""`make bench-live`: what a user sees while the embedding model changes, on real servers with real encoders.

Cranfield, MiniLM-L3 to MiniLM-L6, judged by its 225 queries, while documents are updated and searches go on. Freshness
and latency before, during and after; failed searches; the lowest quality served; how long a rollback takes. The curve
and the dashboards are drawn to docs/pictures.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from driftline.cli.evaluate import read_qrels, read_queries
from driftline.local.stack import Stack
from tests.bench.judged import DATASETS
from tests.bench.system import ROOT, commit, machine, say, system
from tests.client import User, until
from tests.load import Freshness

OLD, NEW = "minilm-l3", "minilm-l6-int8"
PER_SECOND = 2.0
QUIET_SECONDS = float(os.environ.get("DRIFTLINE_BENCH_QUIET", "60"))
PICTURES = ROOT / "docs/pictures/live"
ENV = {"DRIFTLINE_UPGRADE__QUALITY_EVERY_SECONDS": "20"}


class Users(threading.Thread):
    """Updates or searches at random moments: `milliseconds` of each answer, `failed` what was none."""

    def __init__(self, stack: Stack, collection: str, what: str, bodies: Sequence[dict[str, Any]]) -> None:
        super().__init__(name=what)
        self.user, self.collection, self.bodies = User(stack), collection, bodies
        self.random = random.Random(what)
        self.halt = threading.Event()
        self.milliseconds: list[float] = []
        self.failed: list[str] = []

    def run(self) -> None:
        while not self.halt.wait(self.random.expovariate(PER_SECOND)):
            body = self.random.choice(self.bodies)
            begun = time.perf_counter()
            try:
                answer = self.send(body)
            except httpx.HTTPError as error:
                self.failed.append(repr(error))
                continue
            self.milliseconds.append(1000 * (time.perf_counter() - begun))
            if answer.status_code >= 300:
                self.failed.append(answer.text)

    def send(self, body: dict[str, Any]) -> httpx.Response:
        if self.name == "searches":
            # Never the same twice: nothing comes from a cache.
            text = f"{body['text']} {self.random.randrange(10**6)}"
            return self.user.query.post(f"/v1/collections/{self.collection}/search", json={"text": text, "limit": 10})
        fields = {"title": body["title"], "text": f"{body['text']} {self.random.randrange(10**6)}"}
        return self.user.ingest.put(
            f"/v1/collections/{self.collection}/documents/{body['_id']}", json={"fields": fields}
        )  # fmt: skip


class Live:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.user = stack, User(stack)
        lines = (DATASETS / "cranfield/corpus.jsonl").read_bytes().splitlines()
        self.documents = [d for d in map(orjson.loads, lines) if d["text"].strip()]
        self.queries = read_queries(DATASETS / "cranfield")
        fields = {"title": {"type": "text"}, "text": {"type": "text"}}
        self.collection = self.user.create(fields=fields, embedding={"encoder": OLD, "fields": ["title", "text"]})
        self.path = f"/v1/upgrades/{self.collection}"
        bodies = [{"id": d["_id"], "fields": {"title": d["title"], "text": d["text"]}} for d in self.documents]
        self.user.bulk(self.collection, bodies)
        until(lambda: self.user.count(self.collection) == len(bodies), 600, every=1)

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = self.user.upgrade.get(self.path).json()
        return told

    def judged(self) -> list[dict[str, Any]]:
        known = {d["_id"] for d in self.documents}
        qrels = read_qrels(DATASETS / "cranfield", "test")
        found = [
            {"text": text, "relevant": {d: g for d, g in qrels.get(q, {}).items() if g > 0 and d in known}}
            for q, text in self.queries.items()
        ]
        return [q for q in found if q["relevant"]]

    def run(self) -> dict[str, Any]:
        updates = Users(self.stack, self.collection, "updates", self.documents)
        searches = Users(self.stack, self.collection, "searches", [{"text": text} for text in self.queries.values()])
        freshness = Freshness(self.stack, self.collection)
        marks: list[tuple[int, int]] = []

        def mark() -> None:
            marks.append((len(freshness.seconds), len(searches.milliseconds)))

        for thread in (updates, searches, freshness):
            thread.start()
        try:
            time.sleep(QUIET_SECONDS)
            mark()
            begun = time.monotonic()
            answer = self.user.upgrade.post(self.path, json={"encoder": NEW, "queries": self.judged(), "pairs": 400})
            assert answer.status_code == 201, answer.text
            until(lambda: self.told()["phase"] == "complete", 1_200, every=0.5)
            took = time.monotonic() - begun
            mark()
            time.sleep(QUIET_SECONDS / 2)
            mark()
            told = self.told()
            begun = time.monotonic()
            self.user.upgrade.post(f"{self.path}/rollback").raise_for_status()
            until(lambda: self.generation() == 1, 30, every=0.02)
            back = time.monotonic() - begun
        finally:
            for thread in (updates, searches, freshness):
                thread.halt.set()
                thread.join(60)
        return {
            "told": told, "took": took, "back": back, "failed": searches.failed + updates.failed,
            "searches": len(searches.milliseconds), "updates": len(updates.milliseconds),
            "freshness": parts(freshness.seconds, [m[0] for m in marks]),
            "latency": parts(searches.milliseconds, [m[1] for m in marks]),
        }  # fmt: skip

    def generation(self) -> int:
        body = {"text": "x", "explain": True}
        answer = self.user.query.post(f"/v1/collections/{self.collection}/search", json=body).json()
        ((found,),) = [step["of"] for step in answer["explain"]["steps"]]
        return int(found["generation"]) if len(found["legs"]) == 1 else 0


def parts(values: Sequence[float], marks: Sequence[int]) -> list[tuple[float, float]]:
    """(p50, p99) before, during and after."""
    cuts = [0, *marks]
    return [tuple(np.quantile(values[a:b], (0.5, 0.99)).tolist()) for a, b in itertools.pairwise(cuts)]


def draw(curve: Sequence[dict[str, Any]], margin: float, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    at = [100 * e["fraction"] for e in curve]
    today = np.array([e["status_quo"] for e in curve])
    served = np.array([e["served"] for e in curve])
    low, high = (today + np.array([e["difference"][i] for e in curve]) for i in (1, 2))
    figure, axes = pyplot.subplots(figsize=(8, 4.4), layout="constrained")
    axes.fill_between(at, low, high, color="#0072b2", alpha=0.15, linewidth=0)
    axes.plot(at, served, color="#0072b2", marker="o", markersize=3.5, label="served")
    axes.plot(at, today, color="black", linestyle="--", linewidth=1, label="status quo")
    axes.plot(at, today * (1 - margin), color="#d55e00", linestyle=":", linewidth=1, label="floor")
    axes.set(xlabel="documents re-embedded, %", ylabel="nDCG@10 of the judged queries, live",
             title=f"Cranfield: {OLD} to {NEW}, under load")  # fmt: skip
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def page(found: dict[str, Any]) -> str:
    told = found["told"]
    lowest = min(told["curve"], key=lambda e: e["difference"][0])
    first, last = told["curve"][0], told["curve"][-1]
    rows = [
        "| | before | during | after, both generations kept | during over before |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, unit, key in (("freshness", "s", "freshness"), ("search", "ms", "latency")):
        for i, which in enumerate(("p50", "p99")):
            before, during, after = (part[i] for part in found[key])
            cells = [f"{v:.2f} {unit}" if unit == "s" else f"{v:.0f} {unit}" for v in (before, during, after)]
            rows.append(f"| {name}, {which} | " + " | ".join(cells) + f" | {during / before:.2f} |")
    return "\n".join(
        [
            "# An upgrade, live", "", "<!-- Written by `make bench-live`. -->", "",
            f"{machine()}; commit {commit()}, {time.strftime('%Y-%m-%d')}; embedded Kafka. Cranfield, {OLD} to {NEW},\n"
            f"with {PER_SECOND:g} updates and {PER_SECOND:g} searches a second; servers, services and users share\n"
            "these cores. The backfill goes as fast as it may: it takes every core that fresh changes leave.", "",
            *rows, "",
            f"- {found['searches']} searches and {found['updates']} updates, {len(found['failed'])} failed.",
            f"- {told['progress']['total']} documents in {found['took']:.0f} s, the sample and the fit among them; "
            f"decision: {told['decision']}.",
            f"- nDCG@10 of {last['queries']} judged queries, live: {first['served']:.4f} at the beginning, "
            f"{last['served']:.4f} at the end, status quo {last['status_quo']:.4f}. The lowest of {len(told['curve'])} "
            f"estimates was {lowest['difference'][0]:+.4f} of the status quo [{lowest['difference'][1]:+.4f}, "
            f"{lowest['difference'][2]:+.4f}]; the floor is {-told['margin'] * last['status_quo']:+.4f}.",
            f"- Rolled back in {found['back']:.2f} s.", "",
            "![quality while it was re-embedded](pictures/live/curve.png)", "",
            "The dashboard of upgrades. Its last row is the drift monitor's: it looks while a map is served.", "",
            "![the dashboard of upgrades](pictures/live/dashboard-upgrade.png)", "",
        ]
    )  # fmt: skip


def main() -> int:
    begun = time.time()
    with system((OLD, NEW), prometheus=True, env=ENV) as stack, tempfile.TemporaryDirectory() as drawn:
        found = Live(stack).run()
        draw(found["told"]["curve"], found["told"]["margin"], PICTURES / "curve.png")
        minutes = (time.time() - begun) / 60 + 0.2
        tool = ROOT / "deploy/tools/render_dashboards.py"
        subprocess.run([sys.executable, str(tool), stack.addresses["prometheus"], f"{minutes:.1f}", drawn], check=True)
        shutil.copy(Path(drawn) / "dashboard-upgrade.png", PICTURES)
    text = page(found)
    (ROOT / "docs/benchmarks-live.md").write_text(text, encoding="utf-8")
    say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
