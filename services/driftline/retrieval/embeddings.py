"""What every service that embeds does around the encoder: its space, and the plan of requests."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.core.errors import NotLoaded
from driftline.core.ports import Embedder
from driftline.core.records import Space


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
