"""Every way of searching an old index with a new model, on one arm: the tables of the upgrade benchmark."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftline.drift import selection
from driftline.drift.base import Matrix, unit
from driftline.drift.quality import captured, paired, recovered
from driftline.drift.selection import Candidate, ndcg_rows
from driftline.drift.translation import Identity
from tests.bench.arms import Arm, Rows, carried_by

KINDS = ("mean_drift", "procrustes", "scaled_procrustes", "ridge", "low_rank", "local_residual", "residual_mlp")
PAIR_COUNTS = (100, 250, 500, 1_000, 2_000)
# Of the corpus, that a search may have embedded by the new model on its way.
BUDGET = 0.05
LIKED = 3
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A way, and what it is worth on every query."""

    name: str
    ndcg: Values
    recall: Values
    microseconds: float | None = None
    random_pairs: float | None = None
    embedded: tuple[float, float] | None = None  # share of the corpus: by a query, by all of them


def recall_rows(scores: Matrix, relevant: Sequence[dict[int, float]], k: int = 100) -> Values:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.array([len(set(map(int, t)) & set(r)) / len(r) for t, r in zip(top, relevant, strict=True)])


def row(arm: Arm, name: str, scores: Matrix, **more: object) -> Row:
    relevant = arm.judged.relevant
    return Row(name, ndcg_rows(scores, relevant), recall_rows(scores, relevant), **more)  # type: ignore[arg-type]


def cascade(arm: Arm, query: Matrix, rounds: int) -> tuple[Matrix, tuple[float, float]]:
    """Scores of what a search has embedded by the new model, within the budget; all else is not found.

    One round: the best of the old index. Two rounds, as the service does it: a half of the budget so, and the other
    half nearest, in the old space, to the mean of the query and the three documents that the new model likes best.
    """
    count = len(arm.old_documents)
    budget = int(BUDGET * count)
    exact = arm.new_queries @ arm.new_documents.T
    scores = np.full(exact.shape, -np.inf, dtype=np.float32)
    seen: set[int] = set()
    for i in range(len(query)):
        have = np.argsort(-(arm.old_documents @ query[i]))[: budget if rounds == 1 else -(-budget // 2)]
        if rounds == 2:
            liked = have[np.argsort(-exact[i, have])[:LIKED]]
            moved = selection.mixed(query[i : i + 1], unit(arm.old_documents[liked].mean(axis=0, keepdims=True)), 0.5)
            nearer = np.argsort(-(arm.old_documents @ moved[0]))
            have = np.concatenate([have, nearer[~np.isin(nearer, have)][: budget - len(have)]])
        scores[i, have] = exact[i, have]
        seen |= set(map(int, have))
    return scores, (budget / count, len(seen) / count)


def timed(candidate: Candidate, queries: Matrix) -> float:
    """Microseconds of one query through the map, alone."""
    candidate.compensator.apply(queries[:1])
    begun = time.perf_counter()
    for i in range(200):
        candidate.compensator.apply(queries[i % len(queries) : i % len(queries) + 1])
    return (time.perf_counter() - begun) / 200 * 1e6


def rows_of(arm: Arm, decided: selection.Selection) -> list[Row]:
    """Anchors, every map, ensembles, what `choose` would serve, cascades."""
    held, safe = arm.held_out(), arm.judged.unjudged()
    pairs = arm.pairs(safe)
    old = held.old_queries @ held.old_documents.T
    found = [
        row(arm, "naive", Identity.fit(pairs).apply(held.new_queries) @ held.old_documents.T),
        row(arm, "status quo", old),
        row(arm, "re-index", held.new_queries @ held.new_documents.T),
    ]
    leaky = np.random.default_rng(0).permutation(len(held.old_documents))[: len(safe)]
    random_pairs = {c.name: c.mean for c in selection.evaluate(arm.pairs(leaky), held, KINDS[:-1])[0]}
    for candidate in selection.evaluate(pairs, held, KINDS)[0]:
        if candidate.old_weight in (0.0, 0.5):
            query = selection.mixed(
                held.old_queries, candidate.compensator.apply(held.new_queries), candidate.old_weight
            )  # fmt: skip
            found.append(
                row(arm, candidate.name, query @ held.old_documents.T, random_pairs=random_pairs.get(candidate.name),
                    microseconds=timed(candidate, held.new_queries))
            )  # fmt: skip
    served = carried_by(decided, held.new_queries, held.old_queries)
    found.append(row(arm, f"**chosen**: {decided.decision}", served @ held.old_documents.T))
    finder = decided.finder
    mapped = finder.compensator.apply(held.new_queries)
    found_by = selection.mixed(held.old_queries, mapped, finder.old_weight)
    for name, query, rounds in (
        ("status quo, cascade, one round", held.old_queries, 1),
        (f"{finder.name}, cascade, one round", found_by, 1),
        (f"**served cascade**: {finder.name}, two rounds", found_by, 2),
    ):
        scores, embedded = cascade(arm, query, rounds)
        found.append(row(arm, name, scores, embedded=embedded))
    return found


@dataclass(frozen=True)
class Figures:
    """The rows of an arm, with its anchors."""

    rows: Sequence[Row]

    def of(self, name: str) -> Row:
        return next(r for r in self.rows if r.name.strip("*").startswith(name))

    @property
    def real(self) -> bool:
        """Whether the upgrade is one: the re-index is better than the status quo, beyond noise."""
        return paired(self.of("re-index").ndcg.tolist(), self.of("status quo").ndcg.tolist()).low > 0

    def captured(self, found: Row) -> float | None:
        """U, None where there is nothing to capture."""
        today, best = self.of("status quo").ndcg, self.of("re-index").ndcg
        gap = paired(best.tolist(), today.tolist())
        return captured(float(found.ndcg.mean()), float(today.mean()), float(best.mean()), gap)


def table(figures: Figures) -> str:
    today, naive, best = (figures.of(n) for n in ("status quo", "naive", "re-index"))
    lines = [
        "| way | nDCG@10 | against the status quo | U | R | recall@100 | against the status quo | random pairs "
        "| us/query | re-embedded by a query, by all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in figures.rows:
        mean = float(found.ndcg.mean())
        u = figures.captured(found)
        r = recovered(mean, float(naive.ndcg.mean()), float(best.ndcg.mean()))
        cells = [found.name, f"{mean:.4f}", str(paired(found.ndcg.tolist(), today.ndcg.tolist()))]
        cells += ["n/a" if u is None else f"{u:.2f}", "n/a" if r is None else f"{r:.2f}"]
        cells += [f"{found.recall.mean():.3f}", str(paired(found.recall.tolist(), today.recall.tolist()))]
        cells += ["" if found.random_pairs is None else f"{found.random_pairs:.4f}"]
        cells += ["" if found.microseconds is None else f"{found.microseconds:.0f}"]
        cells += ["" if found.embedded is None else f"{found.embedded[0]:.1%}, {found.embedded[1]:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pairs_needed(arm: Arm, rows: Rows) -> str:
    held = arm.held_out()
    cells = []
    for count in (*(c for c in PAIR_COUNTS if c < len(rows)), len(rows)):
        some = np.random.default_rng(count).permutation(rows)[:count]
        means = {c.name: c.mean for c in selection.evaluate(arm.pairs(some), held, ("scaled_procrustes", "ridge"))[0]}
        cells.append(f"{count}: {means['scaled_procrustes']:.3f} / {means['ridge']:.3f} ")
    return "; ".join(cells)
