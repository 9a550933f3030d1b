"""The gates before an upgrade: what would fail later is refused now, with the reason."""

from __future__ import annotations

from driftline.core.collections import Collection
from driftline.core.errors import Conflict, InvalidRequest, NotLoaded, Unavailable
from driftline.core.ports import Embedder
from driftline.core.records import Space
from driftline.retrieval.embeddings import describe


def admitted(embedder: Embedder, collection: Collection, encoder: str) -> Space:
    """The new model's space, if the collection may go to it. Raises InvalidRequest, Conflict and Unavailable."""
    try:
        space = describe(embedder, encoder)
    except NotLoaded as error:
        raise InvalidRequest("unknown_encoder", error.detail, "encoder") from error
    if any(g.space == space.fingerprint for g in collection.generations):
        raise Conflict("same_space", f"{collection.name!r} is embedded by {encoder!r} already ({space.fingerprint})")
    if collection.definition.metric == "cosine" and not space.normalized:
        raise InvalidRequest("metric_mismatch", "the encoder does not normalise its vectors", "encoder")
    (answer,) = embedder.embed(encoder, space.fingerprint, [[space.document_prefix + "a first text"]])
    if isinstance(answer, Unavailable):
        raise answer
    if isinstance(answer, Exception):
        raise InvalidRequest("encoder_fails", f"the encoder does not encode: {answer}", "encoder")
    return space
