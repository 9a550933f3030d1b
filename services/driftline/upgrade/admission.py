"""The gates before an upgrade: what would fail later is refused now, with the reason."""

from __future__ import annotations

from driftline.core.collections import Collection, CollectionIndex
from driftline.core.errors import Conflict, InvalidRequest, NotLoaded, Unavailable
from driftline.core.ports import Embedder
from driftline.core.records import Space
from driftline.retrieval.embeddings import describe


def described(embedder: Embedder, collection: Collection, encoder: str, field: str) -> Space:
    """The space of an encoder that works, if it fits the collection. Raises Unavailable, and InvalidRequest of that
    field."""
    try:
        space = describe(embedder, encoder)
    except NotLoaded as error:
        raise InvalidRequest("unknown_encoder", error.detail, field) from error
    if collection.definition.metric == "cosine" and space.kind == "dense" and not space.normalized:
        raise InvalidRequest("metric_mismatch", "the encoder does not normalise its vectors", field)
    (answer,) = embedder.embed(encoder, space.fingerprint, [[space.document_prefix + "a first text"]])
    if isinstance(answer, Unavailable):
        raise answer
    if isinstance(answer, Exception):
        raise InvalidRequest("encoder_fails", f"the encoder does not encode: {answer}", field)
    return space


def admitted(embedder: Embedder, index: CollectionIndex, encoder: str) -> Space:
    """The new model's space, if the index may go to it. Raises InvalidRequest, Conflict and Unavailable."""
    name = index.collection.name
    if index.definition.analyzer is not None:
        raise InvalidRequest("lexical_index", f"index {index.name!r} has an analyzer: no encoder replaces it", "index")
    space = described(embedder, index.collection, encoder, "encoder")
    if any(g.space == space.fingerprint for g in index.generations):
        raise Conflict("same_space", f"{name!r} is embedded by {encoder!r} already ({space.fingerprint})")
    return space
