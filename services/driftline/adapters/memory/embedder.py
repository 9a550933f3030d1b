"""The encoder."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from driftline.core.errors import InvalidRecord, NotLoaded, SpaceMismatch, Unavailable
from driftline.core.ports import EmbedAnswer
from driftline.core.records import Priority, Space
from driftline.core.vectors import MAX_TERM, Matrix, Sparse, Vectors


def _digest(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())


class MemoryEmbedder:
    """Signed feature hashing of lower-case words: a lexical encoder without weights (Weinberger et al. 2009)."""

    def __init__(
        self, dimension: int = 32, encoder: str = "hashing", max_batch: int = 16, kind: str = "dense"
    ) -> None:  # fmt: skip
        self.space = Space(
            fingerprint=hashlib.sha256(f"{encoder}/{dimension}".encode()).hexdigest()[:32],
            encoder=encoder,
            encoder_version="1",
            dimension=dimension if kind == "dense" else 1,
            normalized=kind == "dense",
            pooling="sum" if kind == "dense" else "counts",
            query_prefix="",
            document_prefix="",
            max_tokens=256,
            max_batch=max_batch,
            kind=kind,
        )
        self._width = dimension
        self.refused_texts: set[str] = set()
        self.failing: Unavailable | None = None
        self.loaded = True
        # Whether another server of the same name, which nobody asks here, has it loaded.
        self.elsewhere = True
        self.requests: list[int] = []
        self.priorities: set[Priority] = set()
        self.tokenizer = ""

    def describe(self, encoder: str) -> Space:
        if self.failing is not None:
            raise self.failing
        if encoder != self.space.encoder or not self.loaded:
            raise NotLoaded("triton", f"encoder {encoder!r}: not loaded")
        return self.space

    def load(self, encoder: str) -> None:
        if encoder != self.space.encoder:
            raise NotLoaded("triton", f"encoder {encoder!r} was not loaded: there is none")
        self.loaded = self.elsewhere = True

    def loaded_everywhere(self, encoder: str) -> bool:
        if self.failing is not None:
            raise self.failing
        return encoder == self.space.encoder and self.loaded and self.elsewhere

    def unload(self, encoder: str) -> None:
        self.loaded = self.loaded and encoder != self.space.encoder

    def tokenizer_json(self, encoder: str) -> str:
        self.describe(encoder)
        return self.tokenizer

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[EmbedAnswer]:  # fmt: skip
        found = self.describe(encoder)
        if found.fingerprint != space:
            raise SpaceMismatch(f"model {encoder!r}", space, found.fingerprint)
        self.requests += [len(texts) for texts in requests]
        self.priorities.add(priority)
        return [
            InvalidRecord("encode_failed", "refused", suspect=True)
            if len(texts) > self.space.max_batch or any(t in self.refused_texts for t in texts)
            else self._rows(texts)
            for texts in requests
        ]

    def _rows(self, texts: Sequence[str]) -> Vectors:
        if self.space.kind == "dense":
            return np.stack([self._one(t) for t in texts])
        words = [Counter(text.lower().split()) for text in texts]
        return Sparse.of([{_digest(word) % MAX_TERM: float(n) for word, n in counted.items()} for counted in words])

    def _one(self, text: str) -> Matrix:
        vector = np.zeros(self._width, dtype=np.float32)
        for word in text.lower().split():
            digest = _digest(word)
            vector[digest % self._width] += 1.0 if digest >> 63 else -1.0
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            vector[0] = norm = 1.0
        unit: Matrix = (vector / norm).astype(np.float32)
        return unit

    def ping(self) -> None:
        if self.failing is not None:
            raise self.failing
