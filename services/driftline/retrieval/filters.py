"""The filter language: a small typed JSON tree.

    {"and": [F, ...]}   {"or": [F, ...]}   {"not": F}
    {"field": "kind", "eq": "module"}               equals
    {"field": "kind", "in": ["module", "class"]}    equals one of them
    {"field": "year", "gte": 2000, "lt": 2010}      a range; gt, gte, lt, lte in any combination
    {"field": "tags", "contains": "red"}            a list field holds the value
    {"field": "year", "exists": true}               the document has a value

A comparison with a field that a document lacks is false, so its `not` is true: two-valued logic throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, TypeAlias, assert_never

from driftline.core.collections import CollectionDefinition, FieldType, check_value
from driftline.core.errors import InvalidRequest

Value: TypeAlias = str | int | float | bool
MAX_DEPTH = 16
MAX_NODES = 512
MAX_VALUES = 1_024


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

_RANGES: dict[str, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
_ELEMENT: dict[str, FieldType] = {"keyword_list": "keyword", "integer_list": "integer"}
_ORDERED = ("integer", "float", "datetime")


def _wrong(where: str, detail: str) -> InvalidRequest:
    return InvalidRequest("invalid_filter", detail, where)


class _Parser:
    def __init__(self, definition: CollectionDefinition) -> None:
        self._definition = definition
        self._nodes = 0

    def parse(self, raw: Any, where: str, depth: int) -> Filter:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise _wrong(where, f"expected at most {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            raise _wrong(where, f"expected at most {MAX_NODES} conditions in all")
        if not isinstance(raw, Mapping) or not raw:
            raise _wrong(where, f"expected an object, found {type(raw).__name__}")
        if "field" in raw:
            return self._condition(raw, where)
        if len(raw) != 1 or next(iter(raw)) not in ("and", "or", "not"):
            raise _wrong(
                where,
                f"expected one of and, or, not, or a condition with a field; found {sorted(map(str, raw))}",
            )
        operator, operand = next(iter(raw.items()))
        if operator == "not":
            return Not(self.parse(operand, f"{where}.not", depth + 1))
        if not isinstance(operand, list) or not operand:
            raise _wrong(f"{where}.{operator}", "expected a list that is not empty")
        parts = tuple(self.parse(p, f"{where}.{operator}[{i}]", depth + 1) for i, p in enumerate(operand))
        return And(parts) if operator == "and" else Or(parts)

    def _condition(self, raw: Mapping[Any, Any], where: str) -> Filter:
        name = raw["field"]
        known = self._definition.fields.get(name) if isinstance(name, str) else None
        if known is None or not known.filter:
            usable = ", ".join(n for n, f in self._definition.fields.items() if f.filter) or "none"
            raise _wrong(
                f"{where}.field",
                f"{name!r} is not a filterable field of this collection (filterable: {usable})",
            )
        operators = {k: v for k, v in raw.items() if k != "field"}
        if operators and all(op in _RANGES for op in operators):
            return self._range(name, known.type, operators, where)
        if len(operators) != 1:
            raise _wrong(where, "expected one of eq, in, contains, exists, or any of gt, gte, lt, lte")
        operator, operand = next(iter(operators.items()))
        element = _ELEMENT.get(known.type)
        match operator:
            case "exists":
                if not isinstance(operand, bool):
                    raise _wrong(f"{where}.exists", "expected true or false")
                return Exists(name) if operand else Not(Exists(name))
            case "contains":
                if element is None:
                    raise _wrong(f"{where}.contains", f"{name!r} is a {known.type}; contains needs a list field")
                return Contains(name, self._value(element, operand, f"{where}.contains"))
            case "eq" | "in":
                if element is not None:
                    raise _wrong(f"{where}.{operator}", f"{name!r} is a {known.type}; use contains")
                values = [operand] if operator == "eq" else operand
                if not isinstance(values, list) or not 1 <= len(values) <= MAX_VALUES:
                    raise _wrong(f"{where}.in", f"expected a list of 1 to {MAX_VALUES} values")
                return In(name, tuple(self._value(known.type, v, f"{where}.{operator}") for v in values))
        raise _wrong(where, f"unknown operator {operator!r}; expected eq, in, gt, gte, lt, lte, contains or exists")

    def _range(self, name: str, kind: FieldType, operators: Mapping[str, Any], where: str) -> Filter:
        if kind not in _ORDERED:
            raise _wrong(where, f"{name!r} is a {kind}; a range needs one of {', '.join(_ORDERED)}")
        return Range(name, tuple((_RANGES[op], self._value(kind, v, f"{where}.{op}")) for op, v in operators.items()))

    @staticmethod
    def _value(kind: FieldType, value: Any, where: str) -> Value:
        if isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) > 4_096:
            raise _wrong(where, "expected at most 4096 bytes")
        if isinstance(value, str) and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise _wrong(where, "expected valid Unicode; it holds a lone surrogate")
        checked: Value = check_value(kind, value, where, "invalid_filter")
        return checked


def parse(definition: CollectionDefinition, raw: Any) -> Filter | None:
    """Check a filter against the collection. None stays None. Raises InvalidRequest naming the place."""
    return None if raw is None else _Parser(definition).parse(raw, "filter", 1)


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
