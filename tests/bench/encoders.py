"""The encoders that the upgrade benchmark changes between, and their vectors (torch: extra `train`)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from driftline.adapters.triton import TritonEmbedder
from driftline.core.records import Space
from driftline.core.settings import TritonSettings
from driftline.drift.base import Matrix
from driftline.local import models
from driftline.local.stack import cache_folder
from driftline.retrieval.embeddings import plan_requests
from tests.bench.judged import read_collection
from tests.bench.system import ROOT

CACHE = Path(os.environ.get("DRIFTLINE_BENCH_CACHE", ROOT / ".bench-cache"))
# MiniLM-L6, fine-tuned by its author on 636 pairs about the operation of computers: same shape, another space.
SRE = ("minilm-l6-sre", "sre-embedding-model==1.0.0")
# MiniLM-L6, fine-tuned here on the training queries of SciFact.
TUNED = "minilm-l6-scifact"


def prepare(wanted: Sequence[str], say: Callable[[str], None]) -> None:
    """Build what is not there; recipes of the product are left to the stack."""
    folder = cache_folder() / "models"
    for name in wanted:
        if (folder / name).exists():
            continue
        say(f"building {name}")
        if name == TUNED:
            fine_tune(folder, say)
        else:
            models.add(folder, name, SRE[1] if name == SRE[0] else name, {})


def fine_tune(folder: Path, say: Callable[[str], None]) -> None:
    """Two epochs over the 919 judged pairs of SciFact's training queries; none of them is a query that judges."""
    from driftline.train.loop import Settings, train
    from driftline.train.pairs import Pair

    found = read_collection("scifact", "train")
    pairs = [Pair(q, found.documents[row]) for q, rows in zip(found.queries, found.relevant, strict=True)
             for row in rows]  # fmt: skip
    settings = Settings(epochs=2, batch=16, learning_rate=5e-5, warmup_steps=10, distill_queries=0.0,
                        distill_documents=0.0, query_tokens=48, document_tokens=192)  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        _, base = models.training_source("minilm-l6", Path(name) / "base")
        done = train(base, pairs, Path(name) / "tuned", settings)
        say(f"{TUNED}: {len(pairs)} pairs, {done.steps} steps, loss {done.first_loss:.3f} to {done.last_loss:.3f}")
        models.add(folder, TUNED, str(done.folder), {"max_tokens": 256})


class Encoders:
    """Vectors by encoder and text, from Triton, kept on disk."""

    def __init__(self, address: str) -> None:
        self._embedder = TritonEmbedder(TritonSettings(url=address, timeout_seconds=120, max_in_flight=8))

    def space(self, encoder: str) -> Space:
        return self._embedder.describe(encoder)

    def encode(self, encoder: str, texts: Sequence[str], query: bool) -> Matrix:
        """float32 (len(texts), dimension)."""
        space = self.space(encoder)
        prefix = space.query_prefix if query else space.document_prefix
        prefixed = [prefix + text for text in texts]
        name = hashlib.sha256("\0".join([space.fingerprint, *prefixed]).encode()).hexdigest()[:32]
        kept = CACHE / f"{name}.npy"
        if not kept.exists():
            plans = plan_requests(prefixed, space.max_batch)
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
