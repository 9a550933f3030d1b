"""Embeddings in the cache, and planning requests to the encoder. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def cache_key(space: str, text: str) -> str:
    """An embedding is a function of the space and the text alone."""
    return f"e:{space}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def plan_requests(texts: Sequence[str], max_texts: int) -> list[list[int]]:
    """Indices of the texts of each request.

    Texts of like length go together, since a batch is padded to its longest: on SciFact abstracts sorting saves
    about a quarter of the encoder's work. The longest go first, so that the last request to finish is a short one.
    """
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    return [order[i : i + max_texts] for i in range(0, len(order), max_texts)]
