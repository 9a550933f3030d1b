"""Changing the definition of a live collection: what of it is done at once, and what has to be filled first. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from driftline.core.collections import Collection, CollectionDefinition, FieldDefinition
from driftline.core.errors import InvalidRequest
from driftline.core.indexes import Index
from driftline.retrieval.plan import check_profiles

# What documents were accepted and stored by: another value would make another collection of it.
_FOR_LIFE = ("metric", "tenancy", "versions")


@dataclass(frozen=True, slots=True)
class Changes:
    """`at_once` is the collection as it is from now on; `added` is the index that is to be filled, where there is one.

    `told` says for people what changes.
    """

    at_once: Collection
    added: tuple[str, Index] | None
    told: tuple[str, ...]


def changes(collection: Collection, wanted: CollectionDefinition) -> Changes:
    """What turns a collection into the wanted definition. Raises InvalidRequest for what cannot be changed."""
    known = collection.definition
    for name in _FOR_LIFE:
        if getattr(known, name) != getattr(wanted, name):
            raise _refused(f"{name} is for life: it is {getattr(known, name)!r}", name)
    check_profiles(wanted)
    told = _fields(known.fields, wanted.fields)
    added, removed, indexes = _indexes(known, wanted)
    told += [f"index {name} removed" for name in removed]
    for name in known.profiles.keys() | wanted.profiles.keys():
        if known.profiles.get(name) != wanted.profiles.get(name):
            told.append(f"profile {name} {_how(name in known.profiles, name in wanted.profiles)}")
    if known.description != wanted.description:
        told.append("description changed")
    definition = wanted if wanted.named_indexes == indexes else wanted.with_indexes(indexes)
    gone = tuple(g for g in collection.generations if g.vector_name in removed)
    numbers = {g.number for g in gone}
    at_once = replace(
        collection,
        definition=definition,
        generations=tuple(g for g in collection.generations if g.number not in numbers),
        legs=tuple(leg for leg in collection.legs if leg.generation not in numbers),
        retired=(*collection.retired, *gone),
        next_generation=collection.unused_number,
    )
    if added:
        told.append(f"index {added[0]} is being filled")
    return Changes(at_once if told else collection, added, tuple(sorted(told)))


def _fields(known: dict[str, FieldDefinition], wanted: dict[str, FieldDefinition]) -> list[str]:
    for name, field in known.items():
        changed = wanted.get(name, field)
        if (changed.type, changed.filter) != (field.type, field.filter):
            raise _refused("documents are stored by its type and filter: add another field", f"fields.{name}")
        if changed.required and not field.required:
            raise _refused("documents may be stored that lack it", f"fields.{name}.required")
    for name in wanted.keys() - known.keys():
        if wanted[name].required:
            raise _refused("documents are stored that lack it", f"fields.{name}.required")
    return [
        f"field {name} {_how(name in known, name in wanted)}"
        for name in known.keys() | wanted.keys()
        if known.get(name) != wanted.get(name)
    ]


def _indexes(
    known: CollectionDefinition, wanted: CollectionDefinition
) -> tuple[tuple[str, Index] | None, list[str], dict[str, Index]]:
    """The index to add, the names of those to remove, and those that are there from now on."""
    before, after = known.named_indexes, wanted.named_indexes
    for name, index in before.items():
        if name in after and after[name] != index:
            detail = "an index is not changed in place: add another one, or `driftline upgrade start` for its encoder"
            raise _refused(detail, f"indexes.{name}")
    new = [name for name in after if name not in before]
    if len(new) > 1:
        raise _refused(f"expected one new index at a time, found {', '.join(new)}", f"indexes.{new[1]}")
    removed = [name for name in before if name not in after]
    stay = {name: index for name, index in before.items() if name in after}
    if not stay:
        raise _refused("expected one of the indexes to stay: what is there is known by them", "indexes")
    return (new[0], after[new[0]]) if new else None, removed, stay


def _how(was: bool, is_: bool) -> str:
    return "changed" if was and is_ else "added" if is_ else "removed"


def _refused(detail: str, field: str) -> InvalidRequest:
    return InvalidRequest("cannot_change", detail, field, 409)
