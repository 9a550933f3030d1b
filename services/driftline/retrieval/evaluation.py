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


def per_query(run: Run, qrels: Qrels) -> dict[str, list[float]]:
    """Each measure of each judged query, in the order of `qrels`; a query without an answer counts as 0."""
    judged = {q: grades for q, grades in qrels.items() if any(g > 0 for g in grades.values())}
    return {
        "ndcg@10": [ndcg(run.get(q, ()), grades, 10) for q, grades in judged.items()],
        "recall@10": [recall(run.get(q, ()), grades, 10) for q, grades in judged.items()],
        "recall@100": [recall(run.get(q, ()), grades, 100) for q, grades in judged.items()],
        "mrr": [reciprocal_rank(run.get(q, ()), grades) for q, grades in judged.items()],
    }


def evaluate(run: Run, qrels: Qrels) -> dict[str, float]:
    """Means of `per_query`, and over how many queries."""
    measured = per_query(run, qrels)
    queries = len(measured["ndcg@10"])
    return {"queries": float(queries)} | {name: sum(v) / queries if queries else 0.0 for name, v in measured.items()}
