"""What a search answers, as REST and gRPC tell it and as the cache keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from driftline.core.records import Hit


@dataclass(frozen=True, slots=True)
class AnswerHit:
    """`fields` is None where none were asked for."""

    id: str
    score: float
    version: int
    chunk: int
    text: str
    fields: dict[str, Any] | None

    @classmethod
    def of(cls, hit: Hit, output_fields: list[str] | None) -> AnswerHit:
        """`output_fields` None: all of them."""
        fields: dict[str, Any] | None = None
        if output_fields != []:
            fields = orjson.loads(hit.fields_json) if hit.fields_json else {}
            if output_fields is not None:
                fields = {name: fields[name] for name in output_fields if name in fields}
        return cls(hit.id, hit.score, hit.version, hit.chunk, hit.text, fields)

    def body(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("id", "score", "version", "chunk", "text")}
        return told if self.fields is None else told | {"fields": self.fields}


@dataclass(frozen=True, slots=True)
class Page:
    """What is the same whenever it is asked for, until something is written."""

    hits: list[AnswerHit] = field(default_factory=list)
    next_cursor: str = ""

    def to_bytes(self, epoch: str) -> bytes:
        """For the cache, with the epoch of the collection that it was made in."""
        return orjson.dumps({"epoch": epoch, "page": self})

    @classmethod
    def from_bytes(cls, content: bytes | None, epoch: str) -> Page | None:
        """None of what was made in another epoch."""
        kept = None if content is None else orjson.loads(content)
        if kept is None or kept["epoch"] != epoch:
            return None
        return cls([AnswerHit(**hit) for hit in kept["page"]["hits"]], kept["page"]["next_cursor"])


@dataclass(frozen=True, slots=True)
class Answer:
    page: Page
    cached: bool
    took_ms: float
    explain: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """As REST answers."""
        told: dict[str, Any] = {
            "hits": [hit.body() for hit in self.page.hits],
            "cached": self.cached,
            "took_ms": self.took_ms,
        }
        if self.page.next_cursor:
            told["next_cursor"] = self.page.next_cursor
        if self.explain is not None:
            told["explain"] = self.explain
        return told
