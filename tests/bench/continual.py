"""`make bench-continual`: the Query Drift Compensation paper's own experiment, in small (extra `train`).

A model is fine-tuned on one collection after the other; each collection is indexed once, by the model of its moment.
After the last step every collection is searched with the last model. Rows: fine-tuning alone (new queries in old
indexes), with full re-index, with QDC (mean drift, summed over the steps), with centred scaled Procrustes, the same
after training with embedding distillation, the status quo (each collection's own model answers), and one model trained
on everything.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from driftline.drift.affine import ScaledProcrustes
from driftline.drift.base import Pairs, unit
from driftline.drift.quality import paired
from driftline.drift.selection import ndcg_rows
from driftline.local import models
from driftline.train.loop import Encoder, Settings, train
from driftline.train.pairs import Pair
from tests.bench.judged import read_collection
from tests.bench.system import ROOT, commit, machine

TASKS = ("cranfield", "scifact", "med")
PAIRS = int(os.environ.get("DRIFTLINE_BENCH_PAIRS", "640"))
CORPUS = int(os.environ.get("DRIFTLINE_BENCH_CORPUS", "1400"))
TOKENS = int(os.environ.get("DRIFTLINE_BENCH_TOKENS", "96"))
RECIPE = Settings(batch=16, learning_rate=1e-4, warmup_steps=10, query_tokens=48, document_tokens=TOKENS)
Matrix = npt.NDArray[np.float32]


@dataclass
class Task:
    """A collection: what is trained on (never a judged query), and what is judged."""

    name: str
    pairs: list[Pair]
    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, float]]


def read(name: str) -> Task:
    """Pairs are a document's title (its first words where it has none) and the rest. A corpus that is too large keeps
    what is judged."""
    found = read_collection(name)
    rng = random.Random(1)
    judged = {row for relevant in found.relevant for row in relevant}
    others = [i for i in range(len(found.documents)) if i not in judged]
    kept = sorted(judged | set(rng.sample(others, max(0, min(len(others), CORPUS - len(judged))))))
    place = {row: i for i, row in enumerate(kept)}
    chosen = rng.sample(kept, min(PAIRS, len(kept)))
    pairs = [Pair(found.titles[i], body) for i in chosen if (body := body_of(found.titles[i], found.documents[i]))]
    relevant = [{place[row]: grade for row, grade in r.items()} for r in found.relevant]
    return Task(name, pairs, [found.documents[i] for i in kept], list(found.queries), relevant)


def body_of(title: str, document: str) -> str:
    """The document without its title, which some collections repeat at the beginning of the text."""
    return document.removeprefix(title).strip().removeprefix(title).strip()


@dataclass
class Chain:
    """Models, one after each task; `deltas` the mean drift of each step, measured on its task's training queries."""

    models: list[Path]
    deltas: list[Matrix]


def fine_tune(base: Path, tasks: list[Task], folder: Path, settings: Settings) -> Chain:
    chain = Chain([], [])
    current = base
    for number, task in enumerate(tasks):
        # From the second task on, as in the paper: before it there is nothing to hold on to.
        plain = replace(settings, distill_queries=0.0, distill_documents=0.0)
        done = train(current, task.pairs, folder / str(number), settings if number else plain)
        queries = [p.query for p in task.pairs]
        chain.deltas.append((embed(done.folder, queries, True) - embed(current, queries, True)).mean(axis=0))
        chain.models.append(done.folder)
        say(f"  {task.name}: {done.steps} steps, loss {done.first_loss:.3f} to {done.last_loss:.3f}")
        current = done.folder
    return chain


_loaded: dict[Path, Encoder] = {}


def embed(folder: Path, texts: list[str], query: bool) -> Matrix:
    if folder not in _loaded:
        _loaded.clear()
        _loaded[folder] = Encoder(folder, RECIPE.pooling)
    return _loaded[folder].embed(texts, RECIPE.query_tokens if query else RECIPE.document_tokens)


def ndcg(task: Task, queries: Matrix, documents: Matrix) -> npt.NDArray[np.float64]:
    return np.asarray(ndcg_rows(queries @ documents.T, task.relevant))


def rows_of(name: str, tasks: list[Task], chain: Chain) -> dict[str, list[npt.NDArray[np.float64]]]:
    """Row -> nDCG@10 of every query, a list per task."""
    last = chain.models[-1]
    found: dict[str, list[npt.NDArray[np.float64]]] = {
        k: [] for k in (name, f"{name} + full re-index", f"{name} + QDC", f"{name} + Procrustes", f"{name}: status quo")
    }
    for number, task in enumerate(tasks):
        own = chain.models[number]
        index, own_queries = embed(own, task.documents, False), embed(own, task.queries, True)
        new_queries = embed(last, task.queries, True)
        new_documents = embed(last, task.documents, False)
        drift = np.sum(chain.deltas[number + 1 :], axis=0) if number + 1 < len(tasks) else np.zeros(index.shape[1])
        # Pairs from texts that are not judged on: the training queries, by both models.
        heads = [p.query for p in task.pairs]
        pairs = Pairs(embed(last, heads, True), embed(own, heads, True))
        mapped = ScaledProcrustes.fit(pairs).apply(new_queries) if own != last else new_queries
        found[name].append(ndcg(task, new_queries, index))
        found[f"{name} + full re-index"].append(ndcg(task, new_queries, new_documents))
        found[f"{name} + QDC"].append(ndcg(task, unit(new_queries - drift.astype(np.float32)), index))
        found[f"{name} + Procrustes"].append(ndcg(task, mapped, index))
        found[f"{name}: status quo"].append(ndcg(task, own_queries, index))
    return found


def page(rows: dict[str, list[npt.NDArray[np.float64]]], tasks: list[Task], seconds: float) -> str:
    means = {name: [float(v.mean()) for v in values] for name, values in rows.items()}
    floor = rows["fine-tuning"]
    lines = [
        "# A sequence of fine-tunes",
        "",
        f"`make bench-continual` at {commit()} on {machine()}: MiniLM-L6 "
        f"fine-tuned on {', '.join(t.name for t in tasks)} in this order ({PAIRS} title-body pairs each, batch "
        f"{RECIPE.batch}, learning rate {RECIPE.learning_rate:g}, one epoch), documents of at most {TOKENS} tokens, "
        f"corpora of at most {CORPUS} and what is judged; {seconds / 60:.0f} minutes. Each collection is indexed once, "
        "by the model of its moment; nDCG@10 of its judged queries after the last step. The interval is a paired "
        "bootstrap of the difference to fine-tuning alone, over the queries of all collections but the last (whose "
        "index is of the last model in every chain).",
        "",
        "| | " + " | ".join(t.name for t in tasks) + " | mean | against fine-tuning, earlier collections |",
        "| --- | " + " | ".join("---:" for _ in tasks) + " | ---: | --- |",
    ]
    for name, values in means.items():
        ours, base = (np.concatenate(r[:-1]) for r in (rows[name], floor))
        against = "" if name == "fine-tuning" else str(paired(list(ours), list(base)))
        cells = " | ".join(f"{v:.3f}" for v in values)
        lines.append(f"| {name} | {cells} | {np.mean(values):.3f} | {against} |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    begun = time.monotonic()
    tasks = [read(name) for name in TASKS]
    for task in tasks:
        say(f"{task.name}: {len(task.documents)} documents, {len(task.queries)} queries, {len(task.pairs)} pairs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, base = models.training_source("minilm-l6", folder / "base")
        rows: dict[str, list[npt.NDArray[np.float64]]] = {}
        for label, settings in (
            ("fine-tuning", replace(RECIPE, distill_queries=0.0, distill_documents=0.0)),
            ("fine-tuning + distillation", RECIPE),
        ):
            say(label)
            rows |= rows_of(label, tasks, fine_tune(base, tasks, folder / label.replace(" ", ""), settings))
        say("joint")
        everything = [pair for task in tasks for pair in task.pairs]
        joint = train(base, everything, folder / "joint", replace(RECIPE, distill_queries=0.0, distill_documents=0.0))
        rows["joint training, one index"] = []
        rows["not fine-tuned"] = []
        for task in tasks:
            for row, model in (("joint training, one index", joint.folder), ("not fine-tuned", base)):
                rows[row].append(ndcg(task, embed(model, task.queries, True), embed(model, task.documents, False)))
    text = page(rows, tasks, time.monotonic() - begun)
    (ROOT / "docs/benchmarks-continual.md").write_text(text, encoding="utf-8")
    say(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
