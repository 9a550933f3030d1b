"""What a collection is: its definition, and whether a document fits it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from driftline.core import jsons
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound
from driftline.core.limits import MAX_CHUNKS, MAX_DESCRIPTION, MAX_FIELDS, MAX_FIELDS_BYTES, MAX_NAME, MAX_VERSION
from driftline.core.records import Generation, Leg, Space, StoreTarget
from driftline.core.schema import validated
from driftline.core.values import FieldType, check_tenant_name, check_value, is_integer, shown

# The name becomes part of a Milvus collection's, which takes letters, digits and "_": "-" is replaced there.
_NAME = re.compile(rf"[a-z][a-z0-9_-]{{0,{MAX_NAME - 1}}}")
_FIELD = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
# Of an entry of Triton's model repository: a folder.
_ENCODER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Of a collection's fields, in a message that says which there are.
_NAMED = 20


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
    max_chunks: int = Field(256, ge=1, le=MAX_CHUNKS, description="documents that need more are refused")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunking:
        if self.mode == "sentences" and self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


class Embedding(_Model):
    """Which fields are embedded, joined with one space, and by which encoder."""

    encoder: str
    fields: tuple[str, ...] = Field(min_length=1, max_length=MAX_FIELDS)
    chunking: Chunking = Chunking()

    @model_validator(mode="after")
    def _named(self) -> Embedding:
        if not _ENCODER.fullmatch(self.encoder):
            raise ValueError("encoder: expected the name of an encoder: up to 128 letters, digits, '_', '-' and '.'")
        return self


class CollectionDefinition(_Model):
    """`versions` says whose versions decide: `assigned` ones are positions in the log, `external` ones come with every
    change, deletes too. A collection has one kind for life, so that the two scales never meet."""

    name: str
    description: str = Field("", max_length=MAX_DESCRIPTION)
    fields: dict[str, FieldDefinition] = Field(min_length=1, max_length=MAX_FIELDS)
    embedding: Embedding
    metric: Literal["cosine", "ip", "l2"] = "cosine"
    tenancy: bool = False
    versions: Literal["assigned", "external"] = "assigned"

    @model_validator(mode="after")
    def _consistent(self) -> CollectionDefinition:
        if not _NAME.fullmatch(self.name):
            raise ValueError("name: expected a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'")
        for name in self.embedding.fields:
            if name not in self.fields:
                raise ValueError(f"embedding.fields: {shown(name)} is not one of the fields")
            if self.fields[name].type not in ("text", "keyword"):
                raise ValueError(f"embedding.fields: {name!r} is a {self.fields[name].type}; expected text or keyword")
        for name in self.fields:
            if not _FIELD.fullmatch(name):
                raise ValueError(f"fields: {shown(name)} is not a name (letter or '_', then letters, digits, '_')")
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

    def target(self, generation: Generation, space: Space) -> StoreTarget:
        """Where a generation is stored; `space` is the one of its fingerprint."""
        return StoreTarget(
            generation.store, generation.space, space.dimension, self.definition.metric, self.uid, space.kind
        )


def parse_definition(raw: Any) -> CollectionDefinition:
    """Check a definition. Raises InvalidRequest that names the first wrong field."""
    return validated(CollectionDefinition, raw, "invalid_definition")


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
    if not is_integer(version) or not 1 <= version <= MAX_VERSION:
        raise InvalidRequest(
            "invalid_version",
            f"expected an integer from 1 to 2^53 - 1 ({MAX_VERSION}), found {shown(version)}",
            "version",
        )
    return int(version)


def named(names: Iterable[str]) -> str:
    """Some names for a message, not all of hundreds."""
    known = list(names)
    rest = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return ", ".join(known[:_NAMED]) + rest


def check_tenant(definition: CollectionDefinition, tenant: str | None) -> str:
    """The tenant of a request, checked against the collection's tenancy."""
    if definition.tenancy:
        if not tenant:
            raise InvalidRequest(
                "tenant_required", f"collection {definition.name!r} has tenancy on: name the tenant", "tenant"
            )
        return check_tenant_name(tenant)
    if tenant:
        raise InvalidRequest(
            "tenancy_off", f"collection {definition.name!r} has tenancy off: leave the tenant out", "tenant"
        )
    return ""


def check_document(definition: CollectionDefinition, fields: Any) -> bytes:
    """The document's fields as canonical JSON bytes. Raises InvalidRequest naming the field."""
    if not isinstance(fields, Mapping):
        raise InvalidRequest("wrong_type", f"expected an object of fields, found {shown(fields)}", "fields")
    for name, value in fields.items():
        known = definition.fields.get(name)
        if known is None:
            raise InvalidRequest(
                "unknown_field",
                f"collection {definition.name!r} has no such field; it has {named(definition.fields)}",
                name[:MAX_NAME],
            )
        if value is not None:
            check_value(known.type, value, name)
    for name, known in definition.fields.items():
        if known.required and fields.get(name) is None:
            raise InvalidRequest("missing_field", "this field is required", name)
    if not embedded_text(definition, fields).strip():
        names = named(definition.embedding.fields)
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


def fields_of(fields_json: bytes) -> dict[str, Any]:
    """The fields of a record of the pipeline's own topics. Raises InvalidRecord."""
    try:
        fields = jsons.parse(fields_json, "fields_json")
    except InvalidRequest as error:
        raise InvalidRecord("invalid_json", str(error)) from error
    if not isinstance(fields, dict):
        raise InvalidRecord("invalid_json", f"fields_json: expected an object, found {shown(fields)}")
    return fields


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
