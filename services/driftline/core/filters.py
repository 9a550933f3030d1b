"""What a search leaves out: conditions on a document's filterable fields, checked, as a tree.

A comparison with a field that a document lacks is false, so its `not` is true: two-valued logic throughout. What users
write is parsed by `retrieval.filters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeAlias, assert_never

Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class In:
    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    field: str
    bounds: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Exists:
    field: str


@dataclass(frozen=True, slots=True)
class Contains:
    field: str
    value: Value


Filter: TypeAlias = And | Or | Not | In | Range | Exists | Contains

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}


def matches(filter_: Filter, attributes: Mapping[str, Any]) -> bool:
    """Whether a document with these attributes passes: the meaning the vector store is held to."""
    match filter_:
        case And(parts):
            return all(matches(p, attributes) for p in parts)
        case Or(parts):
            return any(matches(p, attributes) for p in parts)
        case Not(part):
            return not matches(part, attributes)
        case In(field, values):
            return field in attributes and attributes[field] in values
        case Range(field, bounds):
            return field in attributes and all(_COMPARE[op](attributes[field], v) for op, v in bounds)
        case Exists(field):
            return field in attributes
        case Contains(field, value):
            return field in attributes and value in attributes[field]
        case _ as never:
            assert_never(never)
