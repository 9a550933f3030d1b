"""What a search answers, as REST and gRPC tell it and as the cache keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from driftline.query.request import SearchBody
from driftline.retrieval.plan.run import PlanHit


@dataclass(frozen=True, slots=True)
class AnswerHit:
    """`fields` is None where none were asked for. `indexes` holds score and rank in each index, by its name, where
    several were searched; `passages` the best chunks, where more than one was asked for."""

    id: str
    score: float
    version: int
    chunk: int
    text: str
    fields: dict[str, Any] | None
    indexes: dict[str, Any] = field(default_factory=dict)
    passages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, found: PlanHit, body: SearchBody, *, several: bool) -> AnswerHit:
        """The fields that are asked for: all, where `output_fields` is left out."""
        hit, fields = found.hit, None
        if body.output_fields != []:
            fields = orjson.loads(hit.fields_json) if hit.fields_json else {}
            if body.output_fields is not None:
                fields = {name: fields[name] for name in body.output_fields if name in fields}
        places = {name: asdict(place) for name, place in found.places.items()} if several else {}
        passages = [
            {"index": p.index, "chunk": p.hit.chunk, "score": p.hit.score, "text": p.hit.text} for p in found.passages
        ]
        return cls(hit.id, found.score, hit.version, hit.chunk, hit.text, fields, places, passages)

    def body(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("id", "score", "version", "chunk", "text")}
        told |= {} if self.fields is None else {"fields": self.fields}
        told |= {name: value for name in ("indexes", "passages") if (value := getattr(self, name))}
        return told


@dataclass(frozen=True, slots=True)
class Page:
    """What is the same whenever it is asked for, until something is written. `left_out` tells why an index of the plan
    took no part, by its name."""

    hits: list[AnswerHit] = field(default_factory=list)
    score_kind: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
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
        page = kept["page"]
        return cls(**page | {"hits": [AnswerHit(**hit) for hit in page["hits"]]})


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
            "score_kind": self.page.score_kind,
            "cached": self.cached,
            "took_ms": self.took_ms,
        }
        told |= {name: value for name in ("left_out", "next_cursor") if (value := getattr(self.page, name))}
        if self.explain is not None:
            told["explain"] = self.explain
        return told
