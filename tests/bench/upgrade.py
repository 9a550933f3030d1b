"""`make bench-upgrade`: what every way of carrying queries into an old index is worth, on judged collections.

Encoders run on Triton (vectors are cached by content in DRIFTLINE_BENCH_CACHE); search is exact, so that the figures
are those of the maps alone. Two sets of pairs: all documents, and the leak-safe ones that no judged query asks for.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from driftline.adapters.triton import TritonEmbedder
from driftline.cli.evaluate import read_qrels, read_queries
from driftline.core.records import Space
from driftline.core.settings import TritonSettings
from driftline.drift import calibration, selection
from driftline.drift.base import Matrix, Pairs
from driftline.drift.quality import captured, paired, recovered
from driftline.drift.selection import Candidate, HeldOut, ndcg_rows
from driftline.drift.translation import Identity
from driftline.local.stack import Options, Stack
from driftline.retrieval.embeddings import plan_requests
from tests.bench.__main__ import ROOT, commit, machine, say

DATASETS = Path(os.environ.get("DRIFTLINE_DATASETS", ROOT.parent / "shared/datasets"))
CACHE = Path(os.environ.get("DRIFTLINE_BENCH_CACHE", ROOT / ".bench-cache"))
COLLECTIONS = os.environ.get("DRIFTLINE_BENCH_COLLECTIONS", "cranfield,med,scifact").split(",")
# (what it stands for, old encoder, new encoder)
REGIMES = (
    ("other model, same dimension", "minilm-l3", "minilm-l6-int8"),
    ("other dimension", "hashing", "minilm-l6-int8"),
    ("a worse model", "minilm-l6-int8", "minilm-l3"),
)
PAIR_COUNTS = (100, 250, 500, 1_000, 2_000)
FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A collection: texts of documents, a short text of each as a known-item query, and judged queries."""

    name: str
    documents: list[str]
    titles: list[str]
    queries: list[str]
    relevant: list[dict[int, float]]

    def unjudged(self) -> npt.NDArray[np.int64]:
        """Rows of documents that no judged query asks for."""
        asked = {row for grades in self.relevant for row in grades}
        return np.array([row for row in range(len(self.documents)) if row not in asked])


def read_collection(name: str) -> Judged:
    folder = DATASETS / name
    corpus = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    corpus = [d for d in corpus if (d["title"] + d["text"]).strip()]
    rows = {d["_id"]: i for i, d in enumerate(corpus)}
    qrels = read_qrels(folder, "test")
    texts = read_queries(folder)
    kept = [(texts[q], {rows[d]: float(g) for d, g in grades.items() if d in rows and g > 0})
            for q, grades in sorted(qrels.items()) if q in texts]  # fmt: skip
    kept = [(text, grades) for text, grades in kept if grades]
    titles = [d["title"].strip() or " ".join(d["text"].split()[:12]) for d in corpus]
    documents = [f"{d['title']} {d['text']}".strip() for d in corpus]
    return Judged(name, documents, titles, [t for t, _ in kept], [g for _, g in kept])


class Encoders:
    """Vectors by encoder and text, from Triton, kept on disk."""

    def __init__(self, address: str) -> None:
        self._embedder = TritonEmbedder(TritonSettings(url=address, timeout_seconds=120, max_in_flight=8))

    def encode(self, encoder: str, texts: Sequence[str], query: bool) -> Matrix:
        space: Space = self._embedder.describe(encoder)
        prefix = space.query_prefix if query else space.document_prefix
        prefixed = [prefix + text for text in texts]
        name = hashlib.sha256("\0".join([space.fingerprint, *prefixed]).encode()).hexdigest()[:32]
        kept = CACHE / f"{name}.npy"
        if not kept.exists():
            plans = plan_requests(prefixed, 16)
            answers = self._embedder.embed(encoder, space.fingerprint, [[prefixed[i] for i in p] for p in plans])
            found = np.zeros((len(texts), space.dimension), dtype=np.float32)
            for plan, answer in zip(plans, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                found[list(plan)] = answer
            CACHE.mkdir(parents=True, exist_ok=True)
            np.save(kept, found)
        vectors: Matrix = np.load(kept)
        return vectors


@dataclass(frozen=True)
class Arm:
    """A regime on a collection: everything in both spaces."""

    regime: str
    old: str
    new: str
    judged: Judged
    old_documents: Matrix
    new_documents: Matrix
    old_titles: Matrix
    new_titles: Matrix
    old_queries: Matrix
    new_queries: Matrix

    def held_out(self) -> HeldOut:
        """The judged queries over the whole collection."""
        return HeldOut(
            self.new_queries, self.old_queries, self.new_documents, self.old_documents, self.judged.relevant
        )  # fmt: skip

    def pairs(self, rows: npt.NDArray[np.integer]) -> Pairs:
        """Documents and their titles: what a stream gives for nothing."""
        return Pairs(
            np.concatenate([self.new_documents[rows], self.new_titles[rows]]),
            np.concatenate([self.old_documents[rows], self.old_titles[rows]]),
        )

    def known_items(self, rows: npt.NDArray[np.integer]) -> HeldOut:
        """Titles as queries, the judged queries left unseen."""
        return HeldOut(
            self.new_titles[rows], self.old_titles[rows], self.new_documents, self.old_documents,
            [{int(row): 1.0} for row in rows],
        )  # fmt: skip


def arms(encoders: Encoders) -> Iterator[Arm]:
    for name in COLLECTIONS:
        judged = read_collection(name)
        for regime, old, new in REGIMES:
            say(f"encoding {name}: {old} -> {new}")
            vectors = [
                encoders.encode(encoder, texts, query)
                for texts, query in ((judged.documents, False), (judged.titles, True), (judged.queries, True))
                for encoder in (old, new)
            ]
            yield Arm(regime, old, new, judged, *vectors)


def recall_rows(scores: Matrix, relevant: Sequence[dict[int, float]], k: int = 100) -> float:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.mean([len(set(map(int, t)) & set(r)) / len(r) for t, r in zip(top, relevant, strict=True)]))


def cascade(query: Matrix, arm: Arm, depth: int = 50) -> Values:
    """The best `depth` of the old index, ranked again by their vectors in the new space."""
    first = query @ arm.old_documents.T
    candidates = np.argpartition(-first, depth, axis=1)[:, :depth]
    scores = np.full(first.shape, -np.inf, dtype=np.float32)
    exact = arm.new_queries @ arm.new_documents.T
    np.put_along_axis(scores, candidates, np.take_along_axis(exact, candidates, axis=1), axis=1)
    return ndcg_rows(scores, arm.judged.relevant)


@dataclass(frozen=True)
class Row:
    name: str
    values: Values
    recall: float | None = None
    microseconds: float | None = None


def timed(candidate: Candidate, queries: Matrix) -> float:
    """Microseconds of one query through the map, alone."""
    candidate.compensator.apply(queries[:1])
    begun = time.perf_counter()
    for i in range(200):
        candidate.compensator.apply(queries[i % len(queries) : i % len(queries) + 1])
    return (time.perf_counter() - begun) / 200 * 1e6


def table_of(arm: Arm, rows: npt.NDArray[np.integer]) -> tuple[list[Row], str]:
    """Anchors, every map, ensembles, cascades, and what `choose` would serve; also why."""
    held, pairs = arm.held_out(), arm.pairs(rows)
    relevant = arm.judged.relevant
    naive = Identity.fit(pairs).apply(held.new_queries) @ held.old_documents.T
    old = held.old_queries @ held.old_documents.T
    new = held.new_queries @ held.new_documents.T
    found = [
        Row("naive", ndcg_rows(naive, relevant), recall_rows(naive, relevant)),
        Row("status quo", ndcg_rows(old, relevant), recall_rows(old, relevant)),
        Row("re-index", ndcg_rows(new, relevant), recall_rows(new, relevant)),
    ]
    kinds = ("mean_drift", "procrustes", "scaled_procrustes", "ridge", "low_rank", "local_residual")
    candidates, _ = selection.evaluate(pairs, held, kinds)
    by_name = {c.name: c for c in candidates}
    for candidate in candidates:
        if candidate.old_weight in (0.0, 0.5):
            mapped = candidate.compensator.apply(held.new_queries)
            query = selection.mixed(held.old_queries, mapped, candidate.old_weight)
            found.append(
                Row(candidate.name, candidate.values, recall_rows(query @ held.old_documents.T, relevant),
                    timed(candidate, held.new_queries))
            )  # fmt: skip
    mapped = by_name["scaled_procrustes"].compensator.apply(held.new_queries)
    found.append(Row("scaled_procrustes, cascade@50", cascade(mapped, arm)))
    found.append(Row("status quo, cascade@50", cascade(held.old_queries, arm)))
    decided, _ = choice(arm, rows)
    served = carried_by(decided, held.new_queries, held.old_queries)
    found.append(
        Row(
            f"**chosen**: {decided.decision} ({decided.chosen.name})",
            ndcg_rows(served @ held.old_documents.T, relevant),
        )
    )
    return found, decided.reason


def markdown(rows: Sequence[Row]) -> str:
    by_name = {row.name: row for row in rows}
    naive, status_quo, reindexed = (by_name[n].values for n in ("naive", "status quo", "re-index"))
    gap = paired(reindexed.tolist(), status_quo.tolist())
    lines = ["| way | nDCG@10 | against the status quo | U | R | recall@100 | us/query |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        mean = float(row.values.mean())
        u = captured(mean, float(status_quo.mean()), float(reindexed.mean()), gap)
        r = recovered(mean, float(naive.mean()), float(reindexed.mean()))
        cells = [row.name, f"{mean:.4f}", str(paired(row.values.tolist(), status_quo.tolist()))]
        cells += ["n/a" if u is None else f"{u:.2f}", "n/a" if r is None else f"{r:.2f}"]
        cells += ["" if row.recall is None else f"{row.recall:.3f}"]
        cells += ["" if row.microseconds is None else f"{row.microseconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def choice(arm: Arm, rows: npt.NDArray[np.integer]) -> tuple[selection.Selection, npt.NDArray[np.integer]]:
    """What would be served, and the rows whose titles decided it: a half of `rows`, which no pair holds.

    A tenth was too few: with 40 known-item queries noise decided.
    """
    order = np.random.default_rng(1).permutation(rows)
    asked, fit = order[: len(order) // 2], order[len(order) // 2 :]
    return selection.choose(arm.pairs(fit), arm.known_items(asked)), asked


def carried_by(decided: selection.Selection, new: Matrix, old: Matrix) -> Matrix:
    """Queries as the old index is asked with them, by what was decided."""
    if decided.decision == "status_quo":
        return old
    return selection.mixed(old, decided.chosen.compensator.apply(new), decided.chosen.old_weight)


def pairs_needed(arm: Arm, rows: npt.NDArray[np.integer]) -> str:
    held = arm.held_out()
    cells = []
    for count in (*PAIR_COUNTS, len(rows)):
        if count <= len(rows):
            some = np.random.default_rng(count).permutation(rows)[:count]
            found, _ = selection.evaluate(arm.pairs(some), held, ("scaled_procrustes", "ridge"))
            means = {c.name: c.mean for c in found}
            best = max(means["scaled_procrustes"], means["ridge"])
            cells.append(f"{count}: {means['scaled_procrustes']:.3f} / {means['ridge']:.3f} (best {best:.3f})")
    return "; ".join(cells)


# The backfill curve


def backfill_order(arm: Arm, how: str) -> npt.NDArray[np.int64]:
    """Rows in the order they are re-embedded."""
    count = len(arm.old_documents)
    if how == "random":
        return np.random.default_rng(2).permutation(count)
    # Most wanted first, before there is a query log: how often a document is a hit of the titles of others.
    sample = np.random.default_rng(3).permutation(count)[: min(500, count)]
    top = np.argsort(-(arm.old_titles[sample] @ arm.old_documents.T), axis=1)[:, :10]
    hits = np.zeros(count)
    np.add.at(hits, top, 1.0 / (1.0 + np.arange(top.shape[1])))
    return np.lexsort((np.arange(count), -hits))


def curve(
    arm: Arm, method: str, order: npt.NDArray[np.int64], mapped: Matrix, scale: calibration.Calibration
) -> list[Values]:
    """nDCG@10 of every query at each fraction re-embedded."""
    old = mapped @ arm.old_documents.T
    new = arm.new_queries @ arm.new_documents.T
    carried = scale.apply(old).astype(np.float32)
    found = []
    for fraction in FRACTIONS:
        done = np.zeros(len(order), dtype=bool)
        done[order[: round(fraction * len(order))]] = True
        if method == "rrf":
            scores = _reciprocal_ranks(old, ~done) + _reciprocal_ranks(new, done)
        else:
            scores = np.where(done, new, carried)
        found.append(ndcg_rows(scores, arm.judged.relevant))
    return found


def _reciprocal_ranks(scores: Matrix, among: npt.NDArray[np.bool_]) -> Matrix:
    """1 / (60 + rank) among the documents of one generation, 0 for the others."""
    found = np.zeros_like(scores)
    if among.any():
        ranks = np.argsort(np.argsort(-scores[:, among], axis=1), axis=1)
        found[:, among] = 1.0 / (61.0 + ranks)
    return found


def falls(points: Sequence[Values]) -> int:
    """How often the curve falls from one point to the next beyond noise (95 % interval of the paired difference)."""
    return sum(paired(b.tolist(), a.tolist()).high < 0 for a, b in itertools.pairwise(points))


def curves(arm: Arm) -> tuple[str, dict[str, list[float]]]:
    decided, asked = choice(arm, arm.judged.unjudged())
    served = carried_by(decided, arm.new_queries, arm.old_queries)
    pairs = calibration.scored_pairs(
        carried_by(decided, arm.new_titles[asked], arm.old_titles[asked]), arm.new_titles[asked],
        arm.old_documents, arm.new_documents,
    )  # fmt: skip
    lines = ["| merge | order | " + " | ".join(f"{f:.0%}" for f in FRACTIONS) + " | area | falls |",
             "| --- | --- |" + " --- |" * (len(FRACTIONS) + 2)]  # fmt: skip
    drawn: dict[str, list[float]] = {}
    for method in ("quantile", "moment", "isotonic", "none", "rrf"):
        for how in ("random", "wanted"):
            scale = calibration.IDENTITY if method == "rrf" else calibration.fit(pairs, method)  # type: ignore[arg-type]
            points = curve(arm, method, backfill_order(arm, how), served, scale)
            means = [float(p.mean()) for p in points]
            area = float(np.trapezoid(means, FRACTIONS))
            drawn[f"{'raw' if method == 'none' else method}, {how}"] = means
            cells = [f"{m:.3f}" for m in means] + [f"{area:.4f}", str(falls(points))]
            lines.append(f"| {'raw' if method == 'none' else method} | {how} | " + " | ".join(cells) + " |")
    return "\n".join(lines), drawn


def draw(arm: Arm, drawn: dict[str, list[float]], status_quo: float, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    colours = {"quantile": "#0072b2", "moment": "#56b4e9", "isotonic": "#009e73", "raw": "#d55e00", "rrf": "#999999"}
    for name, means in drawn.items():
        method, how = name.split(", ")
        axes.plot([100 * f for f in FRACTIONS], means, color=colours[method], label=name,
                  linestyle="-" if how == "wanted" else ":", linewidth=2 if method == "quantile" else 1.2)  # fmt: skip
    axes.axhline(status_quo, color="black", linewidth=1, linestyle="--", label="status quo")
    axes.set(xlabel="documents re-embedded, %", ylabel="nDCG@10", title=f"{arm.judged.name}: {arm.old} to {arm.new}")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2, frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def report(encoders: Encoders) -> str:
    parts = [
        "# The upgrade, measured\n\n<!-- Written by `make bench-upgrade`. -->\n\n"
        f"{machine()}; commit {commit()}, {time.strftime('%Y-%m-%d')}. Vectors by Triton, exact search, nDCG@10 with\n"
        "linear gain; intervals are 95 %, paired bootstrap over queries. U is the share of the upgrade's gain that is\n"
        "served without re-embedding anything (n/a when the upgrade itself is no real gain), R the share of the\n"
        "way from naive to re-index. `x+old*0.5` mixes the old encoder's query in. Fitted on leak-safe pairs.\n"
        f"Collections of this run: {', '.join(COLLECTIONS)}.\n"
    ]
    for arm in arms(encoders):
        everything = np.arange(len(arm.old_documents))
        safe = arm.judged.unjudged()
        rows, reason = table_of(arm, safe)
        parts.append(f"## {arm.judged.name}: {arm.old} to {arm.new} ({arm.regime})\n")
        parts.append(f"{len(arm.judged.queries)} judged queries, {len(everything)} documents, {len(safe)} leak-safe.\n")
        parts.append(markdown(rows) + f"\n\nChoice: {reason}.\n")
        leaky, _ = table_of(arm, everything)
        means = {row.name: float(row.values.mean()) for row in leaky}
        parts.append(f"With all documents as pairs: scaled_procrustes {means['scaled_procrustes']:.4f}, "
                     f"ridge {means['ridge']:.4f}, local_residual {means['local_residual']:.4f}.\n")  # fmt: skip
        parts.append(f"Pairs needed (scaled_procrustes / ridge): {pairs_needed(arm, safe)}.\n")
        if arm.regime != "a worse model":
            lines, drawn = curves(arm)
            name = f"{arm.judged.name}-{arm.old}-{arm.new}.png"
            draw(arm, drawn, float(rows[1].values.mean()), ROOT / "docs/pictures/upgrade" / name)
            parts.append(f"### Backfill\n\n{lines}\n\n![backfill curve](pictures/upgrade/{name})\n")
        say(parts[-1][:200])
    return "\n".join(parts)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        stack = Stack(Path(folder))
        stack.up(Options(models=tuple(sorted({m for _, old, new in REGIMES for m in (old, new)}))), say)
        try:
            page = report(Encoders(stack.addresses["triton"]))
        finally:
            stack.down()
    (ROOT / "docs/benchmarks-upgrade.md").write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
