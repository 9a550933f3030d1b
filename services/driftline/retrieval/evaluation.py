"""Measures of ranked retrieval, as BEIR reports them: linear gain, log2 discount. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Sequence[str]]


def ndcg(ranked: Sequence[str], grades: Mapping[str, float], k: int) -> float:
    """Normalised discounted cumulative gain at k of one query (Jarvelin and Kekalainen 2002)."""
    gain = sum(grades.get(d, 0) / math.log2(i + 2) for i, d in enumerate(ranked[:k]))
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(grades.values(), reverse=True)[:k]))
    return gain / ideal if ideal > 0 else 0.0


def recall(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Share of the relevant documents (grade above 0) among the first k."""
    relevant = {d for d, g in grades.items() if g > 0}
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, int]) -> float:
    """1 / rank of the first relevant document, 0 when there is none."""
    return next((1 / (i + 1) for i, d in enumerate(ranked) if grades.get(d, 0) > 0), 0.0)


def evaluate(run: Run, qrels: Qrels) -> dict[str, float]:
    """Means over the judged queries; a query without an answer counts as 0."""
    judged = [q for q, grades in qrels.items() if any(g > 0 for g in grades.values())]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else 0.0

    return {
        "queries": float(len(judged)),
        "ndcg@10": mean([ndcg(run.get(q, ()), qrels[q], 10) for q in judged]),
        "recall@10": mean([recall(run.get(q, ()), qrels[q], 10) for q in judged]),
        "recall@100": mean([recall(run.get(q, ()), qrels[q], 100) for q in judged]),
        "mrr": mean([reciprocal_rank(run.get(q, ()), qrels[q]) for q in judged]),
    }
