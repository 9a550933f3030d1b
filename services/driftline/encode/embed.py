"""Embedding the chunks of a batch: the cache first, then the encoder, refused texts taken apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftline.core import metrics
from driftline.core.errors import InvalidRecord, PartlyUnavailable
from driftline.core.keys import document_embedding
from driftline.core.ports import Cache, Embedder
from driftline.core.records import Generation, Matrix, Priority, Space
from driftline.encode.pace import Pace
from driftline.encode.settings import EncodeSection
from driftline.retrieval.embeddings import plan_requests


@dataclass(slots=True)
class Job:
    """What one upsert needs of the encoder of one generation. `vectors` are filled in, or `failed` says why not."""

    generation: Generation
    space: Space
    chunks: list[str]
    vectors: list[Matrix | None]
    failed: InvalidRecord | PartlyUnavailable | None = None


class JobEmbedder:
    """Thread-safe."""

    def __init__(
        self, embedder: Embedder, cache: Cache, settings: EncodeSection, priority: Priority, pace: Pace
    ) -> None:
        self._embedder = embedder
        self._cache = cache
        self._settings = settings
        self._priority = priority
        self._pace = pace
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
        slots: dict[str, list[tuple[Job, int]]] = {}
        for job in jobs:
            for i, text in enumerate(job.chunks):
                slots.setdefault(space.document_prefix + text, []).append((job, i))
        texts = list(slots)
        keys = [document_embedding(space.fingerprint, text) for text in texts]
        missing: list[str] = []
        for text, cached in zip(texts, self._cache.get_many(keys), strict=True):
            vector = _from_cache(cached, space.dimension)
            if vector is None:
                missing.append(text)
            else:
                _fill(slots[text], vector)
        metrics.CACHE_REQUESTS.labels("embedding", "miss").inc(len(missing))
        metrics.CACHE_REQUESTS.labels("embedding", "hit").inc(len(texts) - len(missing))
        begun = time.monotonic()
        fresh, failure = self._embed_texts(space, missing)
        self._note_speed(len(fresh), time.monotonic() - begun)
        self._cache.set_many(
            {
                document_embedding(space.fingerprint, t): v.tobytes()
                for t, v in fresh.items()
                if not isinstance(v, InvalidRecord)
            },
            self._settings.cache_ttl_seconds,
        )
        if failure is not None:
            # What did get through is cached by now: the batch's next try only needs the rest.
            raise failure
        for text, answer in fresh.items():
            if isinstance(answer, InvalidRecord):
                for job, _ in slots[text]:
                    job.failed = answer
            else:
                _fill(slots[text], answer)

    def _note_speed(self, texts: int, seconds: float) -> None:
        if texts and seconds > 0:
            speed = texts / seconds
            self.texts_per_second = 0.7 * self.texts_per_second + 0.3 * speed if self.texts_per_second else speed

    def _embed_texts(
        self, space: Space, texts: Sequence[str]
    ) -> tuple[dict[str, Matrix | InvalidRecord], Exception | None]:
        """Embed distinct texts; also what kept some of them from getting through.

        A refused request is taken apart, so that only the guilty text is refused.
        """
        failure: Exception | None = None
        answers: dict[str, Matrix | InvalidRecord] = {}
        size = min(self._settings.request_texts, space.max_batch)
        requests = [[texts[i] for i in request] for request in plan_requests(texts, size)]
        while requests:
            again: list[list[str]] = []
            results = self._ask(space, requests)
            for request, result in zip(requests, results, strict=True):
                if isinstance(result, InvalidRecord):
                    if len(request) == 1:
                        answers[request[0]] = result
                    else:
                        again += [request[: len(request) // 2], request[len(request) // 2 :]]
                elif isinstance(result, Exception):
                    failure = result
                else:
                    answers.update(zip(request, result, strict=True))
            requests = again
        return answers, failure

    def _ask(self, space: Space, requests: Sequence[Sequence[str]]) -> list[Matrix | Exception]:
        results: list[Matrix | Exception] = []
        while len(results) < len(requests):
            part = requests[len(results) :][: self._pace.width(len(requests))]
            with self._pace.turn():
                results += self._embedder.embed(space.encoder, space.fingerprint, part, self._priority)
        return results


def _from_cache(cached: bytes | None, dimension: int) -> Matrix | None:
    if cached is None or len(cached) != 4 * dimension:
        return None
    return np.frombuffer(cached, dtype=np.float32)


def _fill(slots: Sequence[tuple[Job, int]], vector: Matrix) -> None:
    for job, i in slots:
        job.vectors[i] = vector
