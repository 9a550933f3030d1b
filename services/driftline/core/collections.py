"""What a collection is: its definition, and whether a document fits it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import orjson
from pydantic import Field, model_validator

from driftline.core import jsons
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound
from driftline.core.indexes import DEFAULT_INDEX, Index
from driftline.core.limits import (
    MAX_DESCRIPTION,
    MAX_FIELDS,
    MAX_FIELDS_BYTES,
    MAX_INDEXES,
    MAX_NAME,
    MAX_PROFILES,
    MAX_VERSION,
)
from driftline.core.records import Generation, Leg, Space
from driftline.core.schema import DefinitionPart, validated
from driftline.core.store import StoreTarget
from driftline.core.values import FieldType, check_tenant_name, check_value, is_integer, shown

# The name becomes part of a Milvus collection's, which takes letters, digits and "_": "-" is replaced there.
_NAME = re.compile(rf"[a-z][a-z0-9_-]{{0,{MAX_NAME - 1}}}")
_FIELD = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}")
_SHORT_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_NAME - 1}}}")
# Of a collection's fields, in a message that says which there are.
_NAMED = 20


class FieldDefinition(DefinitionPart):
    """One field of a document. `filter` makes it usable in filters; `required` refuses documents without it."""

    type: FieldType
    filter: bool = False
    required: bool = False

    @model_validator(mode="after")
    def _filterable(self) -> FieldDefinition:
        if self.filter and self.type in ("text", "json"):
            raise ValueError(f"a {self.type} field cannot be filtered on; use keyword")
        return self


class CollectionDefinition(DefinitionPart):
    """`versions` says whose versions decide: `assigned` ones are positions in the log, `external` ones come with every
    change, deletes too. A collection has one kind for life, so that the two scales never meet.

    `embedding` is the short spelling of a single index with the name `default`.
    """

    name: str
    description: str = Field("", max_length=MAX_DESCRIPTION)
    fields: dict[str, FieldDefinition] = Field(min_length=1, max_length=MAX_FIELDS)
    embedding: Index | None = None
    indexes: dict[str, Index] = Field(
        default_factory=dict, max_length=MAX_INDEXES, description="ways of finding the documents, by name"
    )
    # Read by `retrieval.plan`, where the steps are.
    profiles: dict[str, Any] = Field(
        default_factory=dict, max_length=MAX_PROFILES, description="plans of searches, by name (docs/indexes.md)"
    )
    metric: Literal["cosine", "ip", "l2"] = "cosine"
    tenancy: bool = False
    versions: Literal["assigned", "external"] = "assigned"

    @model_validator(mode="after")
    def _consistent(self) -> CollectionDefinition:
        if not _NAME.fullmatch(self.name):
            raise ValueError("name: expected a lower-case letter, then up to 62 of a-z, 0-9, '_' and '-'")
        if (self.embedding is None) == (not self.indexes):
            raise ValueError("indexes: expected either `indexes`, or `embedding` for a single one")
        for name, index in self.named_indexes.items():
            where = "embedding" if self.embedding else f"indexes.{shown(name)}"
            if not _SHORT_NAME.fullmatch(name):
                raise ValueError(f"{where}: expected a name of a lower-case letter, then up to 62 of a-z, 0-9 and '_'")
            for field in index.fields:
                if field not in self.fields:
                    raise ValueError(f"{where}.fields: {shown(field)} is not one of the fields")
                if (found := self.fields[field].type) not in ("text", "keyword"):
                    raise ValueError(f"{where}.fields: {field!r} is a {found}; expected text or keyword")
        for name in self.profiles:
            if not _SHORT_NAME.fullmatch(name):
                raise ValueError(f"profiles: {shown(name)} is not a name (a lower-case letter, then a-z, 0-9, '_')")
        for name in self.fields:
            if not _FIELD.fullmatch(name):
                raise ValueError(f"fields: {shown(name)} is not a name (letter or '_', then letters, digits, '_')")
        return self

    @property
    def named_indexes(self) -> Mapping[str, Index]:
        """The indexes by name, however they were spelled, never none."""
        return {DEFAULT_INDEX: self.embedding} if self.embedding else self.indexes

    def with_indexes(self, indexes: Mapping[str, Index]) -> CollectionDefinition:
        """The same definition with these indexes; their names are checked by whoever made them."""
        return self.model_copy(update={"embedding": None, "indexes": dict(indexes)})

    def as_given(self) -> dict[str, Any]:
        """For JSON: `embedding` or `indexes`, whichever it was given by."""
        left_out = {"indexes" if self.embedding else "embedding", *(() if self.profiles else ("profiles",))}
        return self.model_dump(mode="json", exclude=left_out)


@dataclass(frozen=True)
class CollectionIndex:
    """An index of a collection, as the control topic knows it.

    Searches read `routes`, newest generation first; the generation of the last leg holds every document that has
    something for this index. One that was added to a live collection is not finished, and not searched, until then.
    """

    collection: Collection
    name: str
    definition: Index
    generations: tuple[Generation, ...]
    routes: tuple[Leg, ...]
    is_finished: bool

    @property
    def complete(self) -> Generation:
        """The generation that holds everything and is searched."""
        return self.generation(self.routes[-1].generation)

    @property
    def newest(self) -> Generation:
        """The generation whose encoder takes the queries."""
        return self.generation(self.routes[0].generation)

    def generation(self, number: int) -> Generation:
        """A live generation of this index. Raises NotFound."""
        for generation in self.generations:
            if generation.number == number:
                return generation
        raise NotFound(
            "unknown_generation",
            f"index {self.name!r} of collection {self.collection.name!r} has no live generation {number}",
            "generation",
        )


@dataclass(frozen=True)
class Collection:
    """A collection as the control topic knows it.

    Every write goes to all of `generations`, which are of the index that their `vector_name` says. `legs` are what
    searches read, those of each index newest generation first; an index without any is read in its newest generation.
    `retired` generations are written and read no more. The indexes named in `unfinished` are written and not read yet.
    """

    definition: CollectionDefinition
    uid: str
    generations: tuple[Generation, ...]
    created_at_us: int
    deleted: bool = False
    legs: tuple[Leg, ...] = ()
    next_generation: int = 0
    retired: tuple[Generation, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.definition.name

    @cached_property
    def indexes(self) -> tuple[CollectionIndex, ...]:
        """In the order of the definition. The first finished one is what searches read that name none."""
        return tuple(self._index(name, definition) for name, definition in self.definition.named_indexes.items())

    def _index(self, name: str, definition: Index) -> CollectionIndex:
        generations = tuple(g for g in self.generations if g.vector_name == name)
        numbers = {g.number for g in generations}
        legs = tuple(leg for leg in self.legs if leg.generation in numbers)
        return CollectionIndex(
            self, name, definition, generations, legs or (Leg(generations[-1].number),), name not in self.unfinished
        )

    @property
    def finished(self) -> tuple[CollectionIndex, ...]:
        """The indexes that hold every document and are searched, never none."""
        return tuple(index for index in self.indexes if index.is_finished)

    @property
    def primary(self) -> CollectionIndex:
        return self.finished[0]

    def with_legs(self, index: str, legs: Sequence[Leg]) -> Collection:
        """The collection as it is where searches of this index read these legs."""
        ours = {generation.number for generation in self.index(index).generations}
        return replace(self, legs=(*(leg for leg in self.legs if leg.generation not in ours), *legs))

    def index(self, name: str) -> CollectionIndex:
        """Raises NotFound."""
        for index in self.indexes:
            if index.name == name:
                return index
        raise NotFound(
            "unknown_index",
            f"collection {self.name!r} has no index {shown(name)}; it has {named(self.definition.named_indexes)}",
            "index",
        )

    @property
    def unused_number(self) -> int:
        return self.next_generation or max(g.number for g in self.generations) + 1

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
    if not any(index.text_of(fields).strip() for index in definition.named_indexes.values()):
        names = named(dict.fromkeys(name for index in definition.named_indexes.values() for name in index.fields))
        raise InvalidRequest("empty_text", f"nothing to find it by: give text in at least one of {names}", names)
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


def attributes_of(definition: CollectionDefinition, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What filters see: filterable fields that have a value, dates as microseconds."""
    return {
        name: check_value(known.type, fields[name], name)
        for name, known in definition.fields.items()
        if known.filter and fields.get(name) is not None
    }
