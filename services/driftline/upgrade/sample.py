"""What a compensation is fitted on and judged by: documents of the older generation, embedded by both models.

Old vectors of documents are read from the store; only the new model has to encode them. What a way of searching is
judged by is either queries that came with their judgements, or known items: queries made from the texts of documents,
which have to be found again. Judged documents are kept out of every fit; the others are fitted on, and stand beside
them as what could be found instead.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from driftline.core.errors import InvalidRecord
from driftline.core.ports import Embedder, VectorStore
from driftline.core.records import Priority, Space, document_key
from driftline.core.store import StoredDocument, StoreTarget
from driftline.core.vectors import Matrix, as_dense
from driftline.drift.base import Pairs, unit
from driftline.drift.calibration import fit, scored_pairs
from driftline.drift.monitor import baseline
from driftline.drift.selection import HeldOut, Selection, choose, mixed
from driftline.drift.stored import Compensation
from driftline.retrieval.embeddings import TextEncoder, directly
from driftline.upgrade.state import ShadowQuery

# Fewer documents than this say nothing about a map.
LEAST_DOCUMENTS = 60
LEAST_QUERIES = 10
_REQUEST_TEXTS = 16
_FETCHED_AT_ONCE = 200
_READS = 4
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
    """The live documents among `keys`. What is not found is asked for again: of documents that are deleted and written
    several times a second, one read on a busy machine missed 38 of 54."""
    found: dict[str, StoredDocument] = {}
    for _ in range(_READS):
        missing = [key for key in keys if key not in found]
        for start in range(0, len(missing), _FETCHED_AT_ONCE):
            part = store.fetch(target, missing[start : start + _FETCHED_AT_ONCE], with_vectors=True)
            found |= {document.key: document for document in part}
    return [found[key] for key in keys if key in found]


def _accepted(encoder: TextEncoder, space: Space, texts: Sequence[str]) -> list[Matrix | None]:
    """The vector of each text, (dimension,), None of one that the model refuses. Raises Unavailable."""
    answers = encoder.encode(space, texts)
    return [None if isinstance(answer, InvalidRecord) else as_dense(answer) for answer in answers]


@dataclass(frozen=True, slots=True)
class Sample:
    """What fits and what judges. `encoded` counts the texts that had to be encoded for it; `judged` are the vectors of
    the documents that nothing was fitted on."""

    pairs: Pairs
    held_out: HeldOut
    shadow: tuple[ShadowQuery, ...]
    encoded: int
    judged: Pairs


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents to fit on, with a query made of each; documents to be found, and the queries that are to find them."""

    fitted: Sequence[StoredDocument]
    fitted_queries: Sequence[str]
    judged: Sequence[StoredDocument]
    shadow: Sequence[ShadowQuery]


def draw(
    store: VectorStore, target: StoreTarget, given: Sequence[ShadowQuery], pairs: int, held_out: int, rng: random.Random
) -> Texts:
    """Draw the sample. Queries that are `given` bring their judgements; without them, known items are made.

    Raises TooFew and Unavailable.
    """
    judged_keys = sorted({document_key(q.tenant, i) for q in given for i in q.relevant})
    known = set(judged_keys)
    keys = choose_documents(store, target, pairs + (0 if given else held_out) + len(known), rng)
    others = [key for key in keys if key not in known]
    rng.shuffle(others)
    if not given:
        cut = min(held_out, len(others) // 3)
        judged_keys, others = others[:cut], others[cut:]
    fitted = fetch(store, target, others[:pairs])
    judged = fetch(store, target, judged_keys)
    if len(fitted) + len(judged) < LEAST_DOCUMENTS or len(fitted) < LEAST_DOCUMENTS // 2:
        raise TooFew(
            f"{len(fitted)} documents to fit on and {len(judged)} to be found, of at least {LEAST_DOCUMENTS}"
        )  # fmt: skip
    made = [
        ShadowQuery(tenant=d.tenant, text=pseudo_query(d.chunks[0], rng), relevant={d.id: 1.0})
        for d in ([] if given else judged)
    ]
    return Texts(fitted, [pseudo_query(d.chunks[0], rng) for d in fitted], judged, tuple(given) or tuple(made))


def build(texts: Texts, embedder: Embedder, old: Space, new: Space) -> Sample:
    """Embed what has to be. Raises TooFew and Unavailable."""
    documents = [*texts.judged, *texts.fitted]
    contents = [document.chunks[0] for document in documents]
    queries = [*(q.text for q in texts.shadow), *texts.fitted_queries]
    encoder = TextEncoder(directly(embedder, Priority.BACKGROUND), _REQUEST_TEXTS)
    new_documents = _accepted(encoder, new, [new.document_prefix + text for text in contents])
    new_queries = _accepted(encoder, new, [new.query_prefix + text for text in queries])
    old_queries = _accepted(encoder, old, [old.query_prefix + text for text in queries])
    corpus = [i for i, vector in enumerate(new_documents) if vector is not None]
    rows = {(documents[i].tenant, documents[i].id): row for row, i in enumerate(corpus)}
    asked = [i for i in range(len(queries)) if new_queries[i] is not None and old_queries[i] is not None]
    relevant = {
        i: {
            rows[(query.tenant, found)]: grade
            for found, grade in query.relevant.items()
            if (query.tenant, found) in rows
        }
        for i, query in enumerate(texts.shadow)
    }
    judges = [i for i in asked if relevant.get(i)]
    judged = sum(1 for i in corpus if i < len(texts.judged))
    fit_documents = [i for i in corpus if i >= len(texts.judged)]
    fit_queries = [i for i in asked if i >= len(texts.shadow)]
    if len(judges) < LEAST_QUERIES or len(fit_documents) < LEAST_DOCUMENTS // 2:
        raise TooFew(f"{len(judges)} queries and {len(fit_documents)} documents could be embedded by both models")
    pairs = Pairs(
        _rows([new_documents[i] for i in fit_documents] + [new_queries[i] for i in fit_queries]),
        _rows([as_dense(documents[i].vectors)[0] for i in fit_documents] + [old_queries[i] for i in fit_queries]),
    )
    held = HeldOut(
        _rows(new_queries[i] for i in judges),
        _rows(old_queries[i] for i in judges),
        _rows(new_documents[i] for i in corpus),
        _rows(as_dense(documents[i].vectors)[0] for i in corpus),
        [relevant[i] for i in judges],
    )
    return Sample(pairs, held, tuple(texts.shadow[i] for i in judges), len(contents) + 2 * len(queries),
                  Pairs(held.new_documents[:judged], held.old_documents[:judged]))  # fmt: skip


def _rows(vectors: Iterable[Matrix | None]) -> Matrix:
    return unit(np.stack([v for v in vectors if v is not None]))


def fit_compensation(sample: Sample, old: Space, new: Space, margin: float) -> tuple[Compensation, Selection]:
    """The way of searching the older generation that held-out retrieval favours, with its calibration."""
    selection = choose(sample.pairs, sample.held_out, margin=margin)
    own = selection.decision == "status_quo"
    # Where no map is served, one is still used: to find what the new model re-ranks.
    chosen = selection.finder if own else selection.chosen
    weight = 1.0 if own else chosen.old_weight
    held = sample.held_out
    query = mixed(held.old_queries, chosen.compensator.apply(held.new_queries), weight)
    scores = scored_pairs(query, held.new_queries, held.old_documents, held.new_documents)
    compensation = Compensation(
        chosen.compensator,
        new.fingerprint,
        old.fingerprint,
        fit(scores, "quantile"),
        weight,
        selection.finder.old_weight,
        {
            "pairs": len(sample.pairs),
            "held_out_queries": len(sample.shadow),
            "documents": len(held.new_documents),
            "baseline": asdict(baseline(chosen.compensator, sample.judged.new, sample.judged.old)),
        },
        selection.summary(),
    )
    return compensation, selection
