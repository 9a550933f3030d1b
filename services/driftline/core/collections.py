"""What a collection is: its definition, and whether a document fits it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from driftline.core.errors import InvalidRequest, NotFound
from driftline.core.records import Generation, Leg, StoreTarget

FieldType = Literal[
    "text", "keyword", "integer", "float", "boolean", "datetime", "keyword_list", "integer_list", "json"
]
MAX_ID_BYTES = 512
# Milvus holds a string of at most 65,535 bytes; the rest is room for its own framing.
MAX_FIELDS_BYTES = 60_000
# JSON clients read integers exactly up to here.
MAX_VERSION = 2**53 - 1
_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,62}$")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldDefinition(_Model):
    """One field of a document. `filter` makes it usable in filters; `required` refuses documents without it."""

    type: FieldType
    filter: bool = False
    required: bool = False

    @model_validator(mode="after")
    def _filterable(self) -> FieldDefinition:
        if self.filter and self.type in ("text", "json"):
            raise ValueError(f"a {self.type} field cannot be filtered on; use keyword")
        return self


class Chunking(_Model):
    """`whole` embeds a document as one chunk (cut at the encoder's limit); `sentences` as windows of sentences."""

    mode: Literal["whole", "sentences"] = "whole"
    max_tokens: int = Field(200, ge=16, le=8_192, description="of a window, in the encoder's own tokens")
    overlap_tokens: int = Field(40, ge=0, le=4_096)
    max_chunks: int = Field(256, ge=1, le=1_000, description="documents that need more are refused")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunking:
        if self.mode == "sentences" and self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


class Embedding(_Model):
    """Which fields are embedded, joined with one space, and by which encoder."""

    encoder: str = Field(min_length=1)
    fields: tuple[str, ...] = Field(min_length=1)
    chunking: Chunking = Chunking()


class CollectionDefinition(_Model):
    """`versions` says whose versions decide: `assigned` ones are positions in the log, `external` ones come with every
    change, deletes too. A collection has one kind for life, so that the two scales never meet."""

    name: str
    description: str = ""
    fields: dict[str, FieldDefinition] = Field(min_length=1)
    embedding: Embedding
    metric: Literal["cosine", "ip", "l2"] = "cosine"
    tenancy: bool = False
    versions: Literal["assigned", "external"] = "assigned"

    @model_validator(mode="after")
    def _consistent(self) -> CollectionDefinition:
        if not _NAME.match(self.name):
            raise ValueError("name: expected a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'")
        for name in self.embedding.fields:
            if name not in self.fields:
                raise ValueError(f"embedding.fields: {name!r} is not one of the fields")
            if self.fields[name].type not in ("text", "keyword"):
                raise ValueError(f"embedding.fields: {name!r} is a {self.fields[name].type}; expected text or keyword")
        for name in self.fields:
            if not re.match(r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", name):
                raise ValueError(f"fields: {name!r} is not a name (letter or '_', then letters, digits, '_')")
        return self


@dataclass(frozen=True)
class Collection:
    """A collection as the control topic knows it.

    Every write goes to all of `generations`. Searches read `legs`, newest generation first; the last leg's generation
    holds every document. `retired` generations are written and read no more.
    """

    definition: CollectionDefinition
    uid: str
    generations: tuple[Generation, ...]
    created_at_us: int
    deleted: bool = False
    legs: tuple[Leg, ...] = ()
    next_generation: int = 0
    retired: tuple[Generation, ...] = ()

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def routes(self) -> tuple[Leg, ...]:
        """What searches read, never empty."""
        return self.legs or (Leg(self.generations[-1].number),)

    @property
    def complete(self) -> Generation:
        """The generation that holds every document and is searched."""
        return self.generation(self.routes[-1].generation)

    @property
    def newest(self) -> Generation:
        """The generation whose encoder takes the queries."""
        return self.generation(self.routes[0].generation)

    @property
    def unused_number(self) -> int:
        return self.next_generation or max(g.number for g in self.generations) + 1

    def generation(self, number: int) -> Generation:
        """A live generation. Raises NotFound."""
        for generation in self.generations:
            if generation.number == number:
                return generation
        raise NotFound("unknown_generation", f"collection {self.name!r} has no live generation {number}", "generation")

    def target(self, generation: Generation, dimension: int) -> StoreTarget:
        return StoreTarget(generation.store, generation.space, dimension, self.definition.metric, self.uid)


def parse_definition(raw: Any) -> CollectionDefinition:
    """Check a definition. Raises InvalidRequest that names the first wrong field."""
    try:
        return CollectionDefinition.model_validate(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest("invalid_definition", problem["msg"].removeprefix("Value error, "), where) from error


def _datetime_us(value: str) -> int:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_float(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_value(kind: FieldType, value: Any, where: str, code: str = "wrong_type") -> Any:
    """The value as it is stored for filters. Raises InvalidRequest(code) with what was expected."""
    good: bool
    match kind:
        case "text" | "keyword":
            good = isinstance(value, str)
        case "integer":
            good = _is_integer(value)
        case "float":
            good = _is_float(value)
        case "boolean":
            good = isinstance(value, bool)
        case "keyword_list":
            good = isinstance(value, list) and all(isinstance(v, str) for v in value)
        case "integer_list":
            good = isinstance(value, list) and all(_is_integer(v) for v in value)
        case "json":
            good = True
        case "datetime":
            try:
                return _datetime_us(value)
            except (TypeError, ValueError):
                good = False
    if not good:
        expected = {"datetime": "an ISO 8601 date and time", "keyword_list": "a list of strings"}.get(kind, f"{kind}")
        raise InvalidRequest(code, f"expected {expected}, found {_describe(value)}", where)
    return value


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def check_id(document_id: Any) -> str:
    if not isinstance(document_id, str) or not document_id:
        raise InvalidRequest("invalid_id", f"expected a string that is not empty, found {_describe(document_id)}", "id")
    try:
        size = len(document_id.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest("invalid_id", "expected valid Unicode; it holds a lone surrogate", "id") from error
    if size > MAX_ID_BYTES:
        raise InvalidRequest("invalid_id", f"expected at most {MAX_ID_BYTES} bytes of UTF-8, found {size}", "id")
    return document_id


def check_version(definition: CollectionDefinition, version: Any) -> int:
    """The external version of a change, or 0 where the log assigns it. Raises InvalidRequest."""
    if definition.versions == "assigned":
        # 0 is what a protobuf field holds that was not set.
        if version is None or (version == 0 and not isinstance(version, bool)):
            return 0
        raise InvalidRequest(
            "version_unexpected",
            f"collection {definition.name!r} assigns versions itself: leave the version out "
            "(a collection created with `versions: external` takes yours)",
            "version",
        )
    if version is None or (version == 0 and not isinstance(version, bool)):
        raise InvalidRequest(
            "version_required",
            f"collection {definition.name!r} has `versions: external`: every change needs its version, deletes too",
            "version",
        )
    if not _is_integer(version) or not 1 <= version <= MAX_VERSION:
        raise InvalidRequest(
            "invalid_version",
            f"expected an integer from 1 to 2^53 - 1 ({MAX_VERSION}), found {_describe(version)}",
            "version",
        )
    return int(version)


def check_tenant(definition: CollectionDefinition, tenant: str | None) -> str:
    """The tenant of a request, checked against the collection's tenancy."""
    if definition.tenancy:
        if not tenant:
            raise InvalidRequest(
                "tenant_required", f"collection {definition.name!r} has tenancy on: name the tenant", "tenant"
            )
        if len(tenant.encode("utf-8", "replace")) > 128:
            raise InvalidRequest("invalid_tenant", "expected at most 128 bytes of UTF-8", "tenant")
        return tenant
    if tenant:
        raise InvalidRequest(
            "tenancy_off", f"collection {definition.name!r} has tenancy off: leave the tenant out", "tenant"
        )
    return ""


def check_document(definition: CollectionDefinition, fields: Any) -> bytes:
    """The document's fields as canonical JSON bytes. Raises InvalidRequest naming the field."""
    if not isinstance(fields, Mapping):
        raise InvalidRequest("wrong_type", f"expected an object of fields, found {_describe(fields)}", "fields")
    for name, value in fields.items():
        known = definition.fields.get(name)
        if known is None:
            expected = ", ".join(sorted(definition.fields))
            raise InvalidRequest(
                "unknown_field", f"collection {definition.name!r} has no such field; it has {expected}", name
            )
        if value is not None:
            check_value(known.type, value, name)
    for name, known in definition.fields.items():
        if known.required and fields.get(name) is None:
            raise InvalidRequest("missing_field", "this field is required", name)
    if not embedded_text(definition, fields).strip():
        names = ", ".join(definition.embedding.fields)
        raise InvalidRequest("empty_text", f"nothing to embed: give text in at least one of {names}", names)
    try:
        encoded = orjson.dumps(dict(fields))
    except (TypeError, ValueError) as error:
        raise InvalidRequest("invalid_json", f"the fields cannot be written as JSON: {error}", "fields") from error
    if len(encoded) > MAX_FIELDS_BYTES:
        raise InvalidRequest(
            "document_too_large",
            f"expected at most {MAX_FIELDS_BYTES} bytes of fields, found {len(encoded)}",
            "fields",
            413,
        )
    return encoded


def embedded_text(definition: CollectionDefinition, fields: Mapping[str, Any]) -> str:
    """The text that is chunked and embedded: the embedded fields that hold text, joined with a space."""
    return " ".join(str(fields[n]) for n in definition.embedding.fields if fields.get(n))


def attributes_of(definition: CollectionDefinition, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What filters see: filterable fields that have a value, dates as microseconds."""
    return {
        name: check_value(known.type, fields[name], name)
        for name, known in definition.fields.items()
        if known.filter and fields.get(name) is not None
    }
