"""What several targets make or do: a document's fields, and an accepted event on its way through the pipeline."""

from __future__ import annotations

import re
from collections.abc import Callable

from google.protobuf.message import Message

from driftline.core import codec
from driftline.core.collections import attributes_of, fields_of
from driftline.core.indexes import Chunking
from driftline.core.limits import MAX_CHUNK_BYTES
from driftline.retrieval.chunking import chunk
from tests.fuzz.grammar import DATES, Grammar, Make
from tests.fuzz.world import world


def values(g: Grammar) -> dict[str, Make]:
    """A document's fields as the collection has them, by name."""
    return {
        "title": lambda: g.string("red shoes", "A title. Of two sentences."),
        "body": g.string,
        "kind": lambda: g.string("shoe", "hat"),
        "year": g.number,
        "price": g.number,
        "sold": lambda: g.rng.choice(("true", "false")),
        "seen": lambda: g.string(*DATES),
        "tags": lambda: g.list(g.string),
        "codes": lambda: g.list(g.number),
        "extra": g.json,
    }


def fields(g: Grammar) -> str:
    return g.object(values(g))


def make_json(g: Grammar) -> bytes:
    return g.json(6).encode("utf-8", "surrogatepass")


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def follow(value: bytes) -> None:
    """An accepted event through the stages, in memory: neither may raise."""
    event = codec.decode_change(value)
    collection = world().shared if event.tenant else world().things
    if event.fields_json:
        fields = fields_of(event.fields_json)
        attributes_of(collection.definition, fields)
        for index in collection.indexes:
            chunks(index.definition.text_of(fields))


def spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def chunks(text: str, chunking: Chunking | None = None) -> None:
    for piece in chunk(text, chunking or Chunking(), 256, spans):
        assert len(piece.encode()) <= MAX_CHUNK_BYTES


def message_of(kind: type[Message]) -> Callable[[Grammar], bytes]:
    def make(g: Grammar) -> bytes:
        return g.message(kind()).SerializeToString()

    return make
