"""What a compensation is fitted on and judged by: documents of the older generation, embedded by both models.

Old vectors of documents are read from the store; only the new model has to encode them. A part of the documents is
kept out of every fit: each of them gets a query made from its own text, and finding it again is what a way of
searching is judged by (known items). The others are fitted on, and stand beside them as what could be found instead.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from driftline.core.errors import InvalidRecord
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Matrix, Space, StoredDocument, StoreTarget
from driftline.drift.base import Pairs, unit
from driftline.drift.calibration import fit, scored_pairs
from driftline.drift.selection import HeldOut, Selection, choose, mixed
from driftline.drift.stored import Compensation
from driftline.upgrade.state import ShadowQuery

# Fewer documents than this say nothing about a map.
LEAST_DOCUMENTS = 60
_REQUEST_TEXTS = 16
_FETCHED_AT_ONCE = 200
_QUERY_WORDS = (6, 12)
_DROPPED_WORDS = 0.4


class TooFew(Exception):
    """The collection is too small to fit anything on; the message says how many documents there are."""


def pseudo_query(text: str, rng: random.Random) -> str:
    """A query that the text could answer: some of the words of a window of it, in order.

    Whole titles are found by every model; dropping 40 % of the words makes a query that tells models apart.
    """
    words = text.split()
    length = min(len(words), rng.randint(*_QUERY_WORDS))
    start = rng.randint(0, len(words) - length) if words else 0
    window = words[start : start + length]
    kept = [word for word in window if rng.random() >= _DROPPED_WORDS]
    return " ".join(kept if len(kept) >= 2 else window)


def choose_documents(store: VectorStore, target: StoreTarget, count: int, rng: random.Random) -> list[str]:
    """Keys of `count` documents at random, from one pass over the store (reservoir sampling, Vitter 1985)."""
    chosen: list[str] = []
    seen = 0
    for key, _, _, chunk in store.scan(target):
        if chunk != 0:
            continue
        seen += 1
        if len(chosen) < count:
            chosen.append(key)
        elif (place := rng.randrange(seen)) < count:
            chosen[place] = key
    return sorted(chosen)


def fetch(store: VectorStore, target: StoreTarget, keys: Sequence[str]) -> list[StoredDocument]:
    parts = (keys[i : i + _FETCHED_AT_ONCE] for i in range(0, len(keys), _FETCHED_AT_ONCE))
    return [document for part in parts for document in store.fetch(target, part, with_vectors=True)]


def encode(embedder: Embedder, space: Space, texts: Sequence[str], prefix: str) -> list[Matrix | None]:
    """The vector of each text, (dimension,), None of one that the model refuses. Raises Unavailable."""
    size = min(_REQUEST_TEXTS, space.max_batch)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    requests = [order[i : i + size] for i in range(0, len(order), size)]
    vectors: list[Matrix | None] = [None] * len(texts)
    while requests:
        answers = embedder.embed(space.encoder, space.fingerprint, [[prefix + texts[i] for i in r] for r in requests])
        again: list[list[int]] = []
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, InvalidRecord):
                if len(request) > 1:
                    again += [[i] for i in request]
            elif isinstance(answer, Exception):
                raise answer
            else:
                for i, vector in zip(request, answer, strict=True):
                    vectors[i] = vector
        requests = again
    return vectors


@dataclass(frozen=True, slots=True)
class Sample:
    """What fits and what judges. `encoded` counts the texts that had to be encoded for it."""

    pairs: Pairs
    held_out: HeldOut
    shadow: tuple[ShadowQuery, ...]
    encoded: int


def build(
    documents: Sequence[StoredDocument], held_out: int, embedder: Embedder, old: Space, new: Space, rng: random.Random
) -> Sample:
    """Raises TooFew and Unavailable."""
    if len(documents) < LEAST_DOCUMENTS:
        raise TooFew(f"{len(documents)} documents, and at least {LEAST_DOCUMENTS} are needed")
    shuffled = list(documents)
    rng.shuffle(shuffled)
    judged = min(held_out, len(shuffled) // 3)
    texts = [document.chunks[0] for document in shuffled]
    queries = [pseudo_query(text, rng) for text in texts]
    new_documents = encode(embedder, new, texts, new.document_prefix)
    new_queries = encode(embedder, new, queries, new.query_prefix)
    old_queries = encode(embedder, old, queries, old.query_prefix)
    whole = [
        i
        for i, parts in enumerate(zip(new_documents, new_queries, old_queries, strict=True))
        if all(part is not None for part in parts)
    ]
    judges = [i for i in whole if i < judged]
    fitted = [i for i in whole if i >= judged]
    if len(judges) < 10 or len(fitted) < LEAST_DOCUMENTS // 2:
        raise TooFew(f"only {len(whole)} of {len(documents)} documents could be embedded by both models")
    old_documents = [document.vectors[0] for document in shuffled]
    pairs = Pairs(
        _rows([new_documents[i] for i in fitted] + [new_queries[i] for i in fitted]),
        _rows([old_documents[i] for i in fitted] + [old_queries[i] for i in fitted]),
    )
    corpus = [*judges, *fitted]
    held = HeldOut(
        _rows(new_queries[i] for i in judges),
        _rows(old_queries[i] for i in judges),
        _rows(new_documents[i] for i in corpus),
        _rows(old_documents[i] for i in corpus),
        [{row: 1.0} for row in range(len(judges))],
    )
    shadow = tuple(ShadowQuery(tenant=shuffled[i].tenant, id=shuffled[i].id, text=queries[i]) for i in judges)
    return Sample(pairs, held, shadow, len(texts) + 2 * len(queries))


def _rows(vectors: Iterable[Matrix | None]) -> Matrix:
    return unit(np.stack([v for v in vectors if v is not None]))


def fit_compensation(sample: Sample, old: Space, new: Space, margin: float) -> tuple[Compensation, Selection]:
    """The way of searching the older generation that held-out retrieval favours, with its calibration."""
    selection = choose(sample.pairs, sample.held_out, margin=margin)
    chosen = selection.chosen
    weight = 1.0 if selection.decision == "status_quo" else chosen.old_weight
    held = sample.held_out
    query = mixed(held.old_queries, chosen.compensator.apply(held.new_queries), weight)
    scores = scored_pairs(query, held.new_queries, held.old_documents, held.new_documents)
    compensation = Compensation(
        chosen.compensator,
        new.fingerprint,
        old.fingerprint,
        fit(scores, "quantile"),
        weight,
        {"pairs": len(sample.pairs), "held_out_queries": len(sample.shadow), "documents": len(held.new_documents)},
        selection.summary(),
    )
    return compensation, selection
