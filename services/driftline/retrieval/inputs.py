"""What a search is for: a text, a vector, a stored document, or a sum of these; and what is asked of one index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from driftline.core.errors import InvalidRequest
from driftline.core.filters import Filter
from driftline.core.vectors import Matrix


class InputMismatch(InvalidRequest):
    """The index cannot take part in this search: the vector is of another space, say, or it is not filled yet."""


@dataclass(frozen=True, slots=True)
class Text:
    """A query's text, and what the cache said of its embedding, by space, where it was asked already."""

    text: str
    held: Mapping[str, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vector:
    """A query's vector, float32 (1, dimension), of the space with this fingerprint."""

    values: Matrix
    space: str


@dataclass(frozen=True, slots=True)
class StoredInput:
    """More like a stored document, which is left out itself."""

    key: str
    id: str


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a sum. What weighs less than 0 is to be far from what is found."""

    input: Text | Vector | StoredInput
    weight: float


@dataclass(frozen=True, slots=True)
class Composed:
    """A weighted sum, made anew in the space of each generation that is searched."""

    terms: tuple[Term, ...]


Input = Text | Vector | StoredInput | Composed


@dataclass(frozen=True, slots=True)
class Part:
    """What is asked of one index beside the input: the best `needed` documents. See `retrieval.plan.run.Ask`."""

    needed: int
    tenant: str | None = None
    filter: Filter | None = None
    with_fields: bool = True
    rerank: int = 0
    passages: int = 1
