"""What the upgrade benchmark compares: a change of models on a judged collection, with everything in both spaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftline.drift import selection
from driftline.drift.base import Matrix, Pairs
from driftline.drift.selection import HeldOut
from tests.bench.encoders import SRE, TUNED, Encoders
from tests.bench.judged import Judged, read_collection

COLLECTIONS = os.environ.get("DRIFTLINE_BENCH_COLLECTIONS", "cranfield,scifact,med").split(",")
# (what it stands for, old encoder, new encoder)
REGIMES = (
    ("same model, fine-tuned", "minilm-l6", TUNED),
    ("same model, fine-tuned for another trade, and back", SRE[0], "minilm-l6"),
    ("other model, same dimension", "minilm-l3", "minilm-l6"),
    ("other dimension", "minilm-l3", "mpnet"),
    ("other dimension, little to gain", "minilm-l6", "mpnet"),
    ("other dimension, weak old model", "hashing", "minilm-l6"),
    ("a worse model", "minilm-l6", SRE[0]),
)
# Collections that a model is left out on: mpnet takes half an hour of two cores for SciFact. Empty takes everything.
LEFT_OUT = set(os.environ.get("DRIFTLINE_BENCH_LEAVE_OUT", "mpnet:scifact").split(","))
MODELS = tuple(sorted({model for _, old, new in REGIMES for model in (old, new)}))
Rows = npt.NDArray[np.integer]


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

    @property
    def name(self) -> str:
        return f"{self.judged.name}: {self.old} to {self.new}"

    def held_out(self) -> HeldOut:
        """The judged queries over the whole collection."""
        return HeldOut(
            self.new_queries, self.old_queries, self.new_documents, self.old_documents, self.judged.relevant
        )  # fmt: skip

    def pairs(self, rows: Rows) -> Pairs:
        """Documents and their titles: what a stream gives for nothing."""
        return Pairs(
            np.concatenate([self.new_documents[rows], self.new_titles[rows]]),
            np.concatenate([self.old_documents[rows], self.old_titles[rows]]),
        )

    def known_items(self, rows: Rows) -> HeldOut:
        """Titles as queries, the judged queries left unseen."""
        return HeldOut(
            self.new_titles[rows], self.old_titles[rows], self.new_documents, self.old_documents,
            [{int(row): 1.0} for row in rows],
        )  # fmt: skip

    def choice(self) -> tuple[selection.Selection, Rows]:
        """What would be served, and the rows whose titles decided it: half of the leak-safe ones, which no pair holds.

        A tenth was too few: with 40 known-item queries noise decided.
        """
        order = np.random.default_rng(1).permutation(self.judged.unjudged())
        asked, fit = order[: len(order) // 2], order[len(order) // 2 :]
        return selection.choose(self.pairs(fit), self.known_items(asked)), asked


def carried_by(decided: selection.Selection, new: Matrix, old: Matrix) -> Matrix:
    """Queries as the old index is asked with them, by what was decided."""
    if decided.decision == "status_quo":
        return old
    return selection.mixed(old, decided.chosen.compensator.apply(new), decided.chosen.old_weight)


def arms(encoders: Encoders, say: Callable[[str], None]) -> Iterator[Arm]:
    for name in COLLECTIONS:
        judged = read_collection(name)
        for regime, old, new in REGIMES:
            if {f"{old}:{name}", f"{new}:{name}"} & LEFT_OUT:
                continue
            say(f"{name}: {old} -> {new}")
            vectors = [
                encoders.encode(encoder, texts, query)
                for texts, query in ((judged.documents, False), (judged.titles, True), (judged.queries, True))
                for encoder in (old, new)
            ]
            yield Arm(regime, old, new, judged, *vectors)
