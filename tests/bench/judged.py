"""Judged collections, as the benchmarks of model changes read them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from driftline.cli.evaluate import read_qrels, read_queries
from tests.bench.system import ROOT

DATASETS = Path(os.environ.get("DRIFTLINE_DATASETS", ROOT.parent / "shared/datasets"))


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


def read_collection(name: str, split: str = "test") -> Judged:
    folder = DATASETS / name
    corpus = [orjson.loads(line) for line in (folder / "corpus.jsonl").read_bytes().splitlines()]
    corpus = [d for d in corpus if (d["title"] + d["text"]).strip()]
    rows = {d["_id"]: i for i, d in enumerate(corpus)}
    qrels = read_qrels(folder, split)
    texts = read_queries(folder)
    kept = [(texts[q], {rows[d]: float(g) for d, g in grades.items() if d in rows and g > 0})
            for q, grades in sorted(qrels.items()) if q in texts]  # fmt: skip
    kept = [(text, grades) for text, grades in kept if grades]
    titles = [d["title"].strip() or " ".join(d["text"].split()[:12]) for d in corpus]
    documents = [f"{d['title']} {d['text']}".strip() for d in corpus]
    return Judged(name, documents, titles, [t for t, _ in kept], [g for _, g in kept])
