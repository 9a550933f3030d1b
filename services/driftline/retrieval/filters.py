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

from collections.abc import Mapping
from typing import Any

from driftline.core.collections import CollectionDefinition, named
from driftline.core.errors import InvalidRequest
from driftline.core.filters import And, Contains, Exists, Filter, In, Not, Or, Range, Value
from driftline.core.limits import (
    MAX_FILTER_BYTES,
    MAX_FILTER_CONDITIONS,
    MAX_FILTER_DEPTH,
    MAX_FILTER_VALUES,
    MAX_LIST_VALUES,
)
from driftline.core.values import FieldType, check_value, shown

_RANGES: dict[str, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ELEMENT: dict[str, FieldType] = {"keyword_list": "keyword", "integer_list": "integer"}
_ORDERED = ("integer", "float", "datetime")


def _wrong(where: str, detail: str) -> InvalidRequest:
    return InvalidRequest("invalid_filter", detail, where)


class _Parser:
    def __init__(self, definition: CollectionDefinition) -> None:
        self._definition = definition
        self._conditions = 0
        self._values = 0
        self._bytes = 0

    def parse(self, raw: Any, where: str, depth: int) -> Filter:
        self._conditions += 1
        if depth > MAX_FILTER_DEPTH:
            raise _wrong(where, f"expected at most {MAX_FILTER_DEPTH} levels")
        if self._conditions > MAX_FILTER_CONDITIONS:
            raise _wrong(where, f"expected at most {MAX_FILTER_CONDITIONS} conditions in all")
        if not isinstance(raw, Mapping) or not raw:
            raise _wrong(where, f"expected an object that is not empty, found {shown(raw)}")
        if "field" in raw:
            return self._condition(raw, where)
        if len(raw) != 1 or next(iter(raw)) not in ("and", "or", "not"):
            raise _wrong(
                where,
                f"expected one of and, or, not, or a condition with a field; found {shown(list(raw))}",
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
            usable = named(n for n, f in self._definition.fields.items() if f.filter) or "none"
            raise _wrong(
                f"{where}.field",
                f"{shown(name)} is not a filterable field of this collection (filterable: {usable})",
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
                if not isinstance(values, list) or not 1 <= len(values) <= MAX_LIST_VALUES:
                    raise _wrong(f"{where}.in", f"expected a list of 1 to {MAX_LIST_VALUES} values")
                return In(name, tuple(self._value(known.type, v, f"{where}.{operator}") for v in values))
        raise _wrong(
            where, f"unknown operator {shown(operator)}; expected eq, in, gt, gte, lt, lte, contains or exists"
        )

    def _range(self, name: str, kind: FieldType, operators: Mapping[str, Any], where: str) -> Filter:
        if kind not in _ORDERED:
            raise _wrong(where, f"{name!r} is a {kind}; a range needs one of {', '.join(_ORDERED)}")
        return Range(name, tuple((_RANGES[op], self._value(kind, v, f"{where}.{op}")) for op, v in operators.items()))

    def _value(self, kind: FieldType, value: Any, where: str) -> Value:
        checked: Value = check_value(kind, value, where, "invalid_filter")
        self._values += 1
        if self._values > MAX_FILTER_VALUES:
            raise _wrong(where, f"expected at most {MAX_FILTER_VALUES} values in all")
        if isinstance(checked, str):
            try:
                self._bytes += len(checked.encode())
            except UnicodeEncodeError as error:
                raise _wrong(where, "expected valid Unicode; it holds a lone surrogate") from error
        if self._bytes > MAX_FILTER_BYTES:
            raise _wrong(where, f"expected at most {MAX_FILTER_BYTES} bytes of strings in all")
        return checked


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """What passes the two."""
    return And((first, second)) if first is not None and second is not None else first or second


def parse(definition: CollectionDefinition, raw: Any) -> Filter | None:
    """Check a filter against the collection. None stays None. Raises InvalidRequest naming the place."""
    return None if raw is None else _Parser(definition).parse(raw, "filter", 1)
