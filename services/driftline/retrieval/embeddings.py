"""What every service that embeds does around the encoder: its space, requests, the cache, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from driftline.core import metrics
from driftline.core.errors import InvalidRecord, NotLoaded
from driftline.core.ports import Cache, EmbedAnswer, Embedder
from driftline.core.records import Priority, Space
from driftline.core.vectors import Matrix, Sparse, from_bytes, to_bytes

# float32 (dimension,), or a single row.
Vector = Matrix | Sparse
# Asks an encoder of a space for several requests at once, as `Embedder.embed` does.
Ask = Callable[[Space, Sequence[Sequence[str]]], list[EmbedAnswer]]
# The cache's key of a text with the prefix of its role, by the fingerprint of the space.
KeyOf = Callable[[str, str], str]
Keep = Callable[[Mapping[str, bytes]], None]


def describe(embedder: Embedder, encoder: str) -> Space:
    """The space of an encoder, which is loaded now if it is not. Raises NotLoaded and Unavailable."""
    try:
        return embedder.describe(encoder)
    except NotLoaded:
        embedder.load(encoder)
        return embedder.describe(encoder)


def plan_requests(texts: Sequence[str], max_texts: int) -> list[list[int]]:
    """Indices of the texts of each request.

    Texts of like length go together, since a batch is padded to its longest: on SciFact abstracts sorting saves
    about a quarter of the encoder's work. The longest go first, so that the last request to finish is a short one.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    return [order[i : i + max_texts] for i in range(0, len(order), max_texts)]


def directly(embedder: Embedder, priority: Priority) -> Ask:
    """All requests in one call of the encoder."""
    return partial(_directly, embedder, priority)


def _directly(
    embedder: Embedder, priority: Priority, space: Space, requests: Sequence[Sequence[str]]
) -> list[EmbedAnswer]:
    return embedder.embed(space.encoder, space.fingerprint, requests, priority)


class Kept:
    """What a process keeps of embeddings itself, for a `CachedEncoder`; emptied when it has `most`. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._items: dict[str, bytes] = {}

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._items.get(key) for key in keys]

    def put(self, items: Mapping[str, bytes]) -> None:
        with self._lock:
            if len(self._items) + len(items) > self._most:
                self._items.clear()
            self._items.update(items)


class TextEncoder:
    """The vectors of texts, each text encoded once however often it is there. Thread-safe.

    A request that the model refuses is halved until the guilty text is refused alone. `request_texts` bounds a request;
    None leaves it to the model's own bound.
    """

    def __init__(self, ask: Ask, request_texts: int | None = None) -> None:
        self._ask = ask
        self._request_texts = request_texts

    def encode(self, space: Space, texts: Sequence[str]) -> list[Vector | InvalidRecord]:
        """The vector of each text, or why the model refuses it. Raises Unavailable."""
        answers, failure = self._encode(space, list(dict.fromkeys(texts)))
        if failure is not None:
            raise failure
        return [answers[text] for text in texts]

    def _encode(self, space: Space, texts: Sequence[str]) -> tuple[dict[str, Vector | InvalidRecord], Exception | None]:
        """Of distinct texts; also what kept some of them from getting through."""
        failure: Exception | None = None
        answers: dict[str, Vector | InvalidRecord] = {}
        plan = plan_requests(texts, min(self._request_texts or space.max_batch, space.max_batch))
        requests = [[texts[i] for i in request] for request in plan]
        while requests:
            halves: list[list[str]] = []
            for request, answer in zip(requests, self._ask(space, requests), strict=True):
                if isinstance(answer, InvalidRecord):
                    if len(request) == 1:
                        answers[request[0]] = answer
                    else:
                        halves += [request[: len(request) // 2], request[len(request) // 2 :]]
                elif isinstance(answer, Exception):
                    failure = answer
                else:
                    answers.update(zip(request, answer, strict=True))
            requests = halves
        return answers, failure


class CachedEncoder(TextEncoder):
    """A text that the cache holds is not encoded; what is encoded is kept, also when other texts did not get through.

    `name` is the cache's in the metrics.
    """

    def __init__(
        self, ask: Ask, cache: Cache | Kept, name: str, key: KeyOf, keep: Keep, request_texts: int | None = None
    ) -> None:
        super().__init__(ask, request_texts)
        self._cache = cache
        self._name = name
        self._key = key
        self._keep = keep

    def encode(
        self, space: Space, texts: Sequence[str], held: Sequence[bytes | None] | None = None
    ) -> list[Vector | InvalidRecord]:
        """As `TextEncoder.encode`. `held` is what the cache said of distinct texts, where it was asked already."""
        distinct = list(dict.fromkeys(texts))
        keys = {text: self._key(space.fingerprint, text) for text in distinct}
        if held is None:
            held = self._cache.get_many(list(keys.values()))
        answers: dict[str, Vector | InvalidRecord] = {}
        for text, content in zip(distinct, held, strict=True):
            vector = None if content is None else from_bytes(content, space.kind, space.dimension)
            if vector is not None:
                answers[text] = vector
        missing = [text for text in distinct if text not in answers]
        metrics.CACHE_REQUESTS.labels(self._name, "miss").inc(len(missing))
        metrics.CACHE_REQUESTS.labels(self._name, "hit").inc(len(answers))
        fresh, failure = self._encode(space, missing)
        self._keep({keys[t]: to_bytes(v) for t, v in fresh.items() if not isinstance(v, InvalidRecord)})
        if failure is not None:
            # What did get through is kept by now: the next try only needs the rest.
            raise failure
        answers |= fresh
        return [answers[text] for text in texts]
