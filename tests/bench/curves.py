"""The quality of search while a corpus is re-embedded, for every way of merging two generations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from driftline.drift import calibration, selection
from driftline.drift.base import Matrix
from driftline.drift.quality import paired
from driftline.drift.selection import ndcg_rows
from tests.bench.arms import Arm, Rows, carried_by

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# As calibrated by: (name, method). `rrf` merges by ranks.
MERGES = (("quantile", "quantile"), ("moment", "moment"), ("isotonic", "isotonic"), ("raw", "none"), ("rrf", ""))
Values = npt.NDArray[np.float64]


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
    arm: Arm, merge: str, order: npt.NDArray[np.int64], mapped: Matrix, scale: calibration.Calibration
) -> list[Values]:
    """nDCG@10 of every query at each fraction re-embedded."""
    old = mapped @ arm.old_documents.T
    new = arm.new_queries @ arm.new_documents.T
    carried = scale.apply(old).astype(np.float32)
    found = []
    for fraction in FRACTIONS:
        done = np.zeros(len(order), dtype=bool)
        done[order[: round(fraction * len(order))]] = True
        if merge == "rrf":
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


def curves(arm: Arm, decided: selection.Selection, asked: Rows) -> tuple[str, dict[str, list[float]], dict[str, int]]:
    """The table, the points by "merge, order", and the falls of each merge over both orders."""
    served = carried_by(decided, arm.new_queries, arm.old_queries)
    pairs = calibration.scored_pairs(
        carried_by(decided, arm.new_titles[asked], arm.old_titles[asked]), arm.new_titles[asked],
        arm.old_documents, arm.new_documents,
    )  # fmt: skip
    lines = ["| merge | order | " + " | ".join(f"{f:.0%}" for f in FRACTIONS) + " | area | falls |",
             "| --- | --- |" + " --- |" * (len(FRACTIONS) + 2)]  # fmt: skip
    drawn: dict[str, list[float]] = {}
    fallen: dict[str, int] = {}
    for merge, method in MERGES:
        scale = calibration.fit(pairs, method) if method else calibration.IDENTITY  # type: ignore[arg-type]
        for how in ("random", "wanted"):
            points = curve(arm, merge, backfill_order(arm, how), served, scale)
            means = [float(p.mean()) for p in points]
            drawn[f"{merge}, {how}"] = means
            fallen[merge] = fallen.get(merge, 0) + falls(points)
            cells = [f"{m:.3f}" for m in means] + [f"{np.trapezoid(means, FRACTIONS):.4f}", str(falls(points))]
            lines.append(f"| {merge} | {how} | " + " | ".join(cells) + " |")
    return "\n".join(lines), drawn, fallen


def draw(arm: Arm, drawn: dict[str, list[float]], status_quo: float, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    colours = {"quantile": "#0072b2", "moment": "#56b4e9", "isotonic": "#009e73", "raw": "#d55e00", "rrf": "#999999"}
    for name, means in drawn.items():
        merge, how = name.split(", ")
        axes.plot([100 * f for f in FRACTIONS], means, color=colours[merge], label=name,
                  linestyle="-" if how == "wanted" else ":", linewidth=2 if merge == "quantile" else 1.2)  # fmt: skip
    axes.axhline(status_quo, color="black", linewidth=1, linestyle="--", label="status quo")
    axes.set(xlabel="documents re-embedded, %", ylabel="nDCG@10", title=arm.name)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, ncols=2, frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
