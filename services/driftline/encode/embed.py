"""Embedding the chunks of a batch, at the pace that its lane may take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from driftline.core.errors import InvalidRecord, PartlyUnavailable
from driftline.core.keys import document_embedding
from driftline.core.ports import Cache, EmbedAnswer, Embedder
from driftline.core.records import Generation, Priority, Space
from driftline.core.vectors import Matrix, Sparse
from driftline.encode.pace import Pace
from driftline.encode.settings import EncodeSection
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.lexical import document_weights


@dataclass(slots=True)
class Job:
    """What one upsert needs for one generation; no chunks where it has nothing for that index. `vectors` are filled in,
    or `failed` says why not."""

    generation: Generation
    space: Space
    chunks: list[str]
    vectors: list[Matrix | Sparse | None]
    failed: InvalidRecord | PartlyUnavailable | None = None


class JobEmbedder:
    """Thread-safe."""

    def __init__(
        self, embedder: Embedder, cache: Cache, settings: EncodeSection, priority: Priority, pace: Pace
    ) -> None:
        self._embedder = embedder
        self._priority = priority
        self._pace = pace
        self._encoder = CachedEncoder(
            self._ask,
            cache,
            "embedding",
            document_embedding,
            partial(cache.set_many, ttl_seconds=settings.cache_ttl_seconds),
            settings.request_texts,
        )
        # Of the last requests; 0 before the first.
        self.texts_per_second = 0.0

    def embed(self, jobs: Sequence[Job]) -> None:
        """Fill the jobs in, or note what kept each from it. Raises Unavailable where all of them have to wait."""
        by_space: dict[str, list[Job]] = {}
        for job in jobs:
            by_space.setdefault(job.space.fingerprint, []).append(job)
        for group in by_space.values():
            try:
                self._embed_space(group[0].space, group)
            except PartlyUnavailable as error:
                for job in group:
                    job.failed = error

    def _embed_space(self, space: Space, jobs: Sequence[Job]) -> None:
        if space.analyzer:
            for job in jobs:
                job.vectors[:] = document_weights(space, job.chunks)
            return
        slots = [(job, i) for job in jobs for i in range(len(job.chunks))]
        texts = [space.document_prefix + job.chunks[i] for job, i in slots]
        for (job, i), answer in zip(slots, self._encoder.encode(space, texts), strict=True):
            if isinstance(answer, InvalidRecord):
                job.failed = answer
            else:
                job.vectors[i] = answer

    def _ask(self, space: Space, requests: Sequence[Sequence[str]]) -> list[EmbedAnswer]:
        begun = time.monotonic()
        results: list[EmbedAnswer] = []
        while len(results) < len(requests):
            part = requests[len(results) :][: self._pace.width(len(requests))]
            with self._pace.turn():
                results += self._embedder.embed(space.encoder, space.fingerprint, part, self._priority)
        answered = sum(len(r) for r in results if not isinstance(r, Exception))
        self._note_speed(answered, time.monotonic() - begun)
        return results

    def _note_speed(self, texts: int, seconds: float) -> None:
        if texts and seconds > 0:
            speed = texts / seconds
            self.texts_per_second = 0.7 * self.texts_per_second + 0.3 * speed if self.texts_per_second else speed
