"""The pairs that are trained on: JSONL, one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftline.core import jsons
from driftline.core.errors import InvalidRequest


class PairError(Exception):
    """A line that is no pair. The message names file and line, and what was expected."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1)
    document: str = Field(min_length=1)
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A query, a document that answers it, and hard negatives: documents that look like it and do not."""

    query: str
    document: str
    negatives: tuple[str, ...] = ()


def read_pairs(path: Path) -> list[Pair]:
    """Raises PairError, and OSError."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[Pair]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                line = _Line.model_validate(jsons.parse(raw, "the line"))
            except InvalidRequest as error:
                raise PairError(f"{path}: line {number}: {error}") from error
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the line"
                raise PairError(f"{path}: line {number}: {where}: {first['msg']}") from error
            yield Pair(line.query, line.document, line.negatives)
