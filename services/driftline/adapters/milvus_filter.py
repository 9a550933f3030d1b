"""Filters as Milvus boolean expressions over the JSON column `attributes`.

Only values of checked types reach an expression, and strings as literals with every character outside plain ASCII
letters, digits and a little punctuation escaped, so a value can never become syntax.
"""

from __future__ import annotations

from typing import assert_never

from driftline.retrieval.filters import And, Contains, Exists, Filter, In, Not, Or, Range, Value

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:;/@#+=()[]{}<>!?*&^$~|")


def literal(value: Value) -> str:
    """A value as a literal of Milvus' expression language."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return '"' + "".join(c if c in _PLAIN else _escaped(c) for c in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\x{ord(character):02x}"
    return character


def expression(filter_: Filter) -> str:
    """The whole expression. Field names were checked against the collection's definition by the parser."""
    match filter_:
        case And(parts):
            return "(" + " and ".join(expression(p) for p in parts) + ")"
        case Or(parts):
            return "(" + " or ".join(expression(p) for p in parts) + ")"
        case Not(part):
            return f"(not {expression(part)})"
        case In(field, values):
            return "(" + " or ".join(f'attributes["{field}"] == {literal(v)}' for v in values) + ")"
        case Range(field, bounds):
            return "(" + " and ".join(f'attributes["{field}"] {op} {literal(v)}' for op, v in bounds) + ")"
        case Exists(field):
            return f'(exists attributes["{field}"])'
        case Contains(field, value):
            return f'(json_contains(attributes["{field}"], {literal(value)}))'
        case _ as never:
            assert_never(never)
