"""What a fusion works with: rankings of several indexes in, one ranking out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import model_serializer

from driftline.core.schema import DefinitionPart


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document in a ranking: a higher score is better, whatever it is; ranks count from 1."""

    key: str
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one index found, best first, each document once."""

    name: str
    weight: float
    hits: Sequence[Ranked]


@dataclass(frozen=True, slots=True)
class Fused:
    key: str
    score: float


class Fusion(DefinitionPart, ABC):
    """A way to make one ranking of several; its fields are its settings. `kind` is its name in plans, and says in an
    answer what the scores are."""

    kind: ClassVar[str]

    @abstractmethod
    def fuse(self, rankings: Sequence[Ranking]) -> list[Fused]:
        """Every document of any ranking once, best first. Raises InvalidRequest where the settings do not fit."""

    @model_serializer(mode="wrap")
    def _with_kind(self, settings: object) -> dict[str, object]:
        return {"kind": self.kind, **settings(self)}  # type: ignore[operator]


def summed(parts: Iterable[Mapping[str, float]]) -> list[Fused]:
    """The sum of each document's parts, best first; a document that is not in a part gets nothing of it."""
    scores: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            scores[key] = scores.get(key, 0.0) + value
    return sorted((Fused(key, score) for key, score in scores.items()), key=lambda one: (-one.score, one.key))


def shares(rankings: Sequence[Ranking]) -> list[float]:
    """The weights, so that they add up to 1."""
    total = sum(ranking.weight for ranking in rankings)
    return [ranking.weight / total if total else 0.0 for ranking in rankings]
