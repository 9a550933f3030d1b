"""Filters as Milvus boolean expressions over the JSON column `attributes`.

Only values of checked types reach an expression, and strings as literals with every character outside plain ASCII
letters, digits and a little punctuation escaped, so a value can never become syntax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from driftline.core.filters import And, Contains, Exists, Filter, In, Not, Or, Range, Value

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:;/@#+=()[]{}<>!?*&^$~|")


def literal(value: Value) -> str:
    """A value as a literal of Milvus' expression language."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        # A float always has a point or an exponent: Milvus reads digits alone as a 64-bit integer, and refuses more.
        # The parser lets integers within +-(2^63 - 1) through: Milvus reads the digits first and negates them then.
        return repr(value)
    return '"' + "".join(c if c in _PLAIN else _escaped(c) for c in value) + '"'


# All escapes that Milvus Lite knows; it takes no other control character.
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\x{ord(character):02x}"
    return character


def expression(filter_: Filter, negated: bool = False) -> str:
    """The whole expression. Field names were checked against the collection's definition by the parser.

    `negated`: whether a `not` is around it. What a missing field is compared with is false in Milvus 2.3, and unknown
    as in SQL in Milvus Lite, where `not` of it is no more true: there each comparison asks for its field first.
    """
    match filter_:
        case And(parts):
            return _joined("and", [expression(p, negated) for p in parts])
        case Or(parts):
            return _joined("or", [expression(p, negated) for p in parts])
        case Not(part):
            return f"(not {expression(part, True)})"
        case Exists(field):
            return f'(exists attributes["{field}"])'
        case In(field, values):
            found = _joined("or", [f'(attributes["{field}"] == {literal(v)})' for v in values])
        case Range(field, bounds):
            found = _joined("and", [f'(attributes["{field}"] {op} {literal(v)})' for op, v in bounds])
        case Contains(field, value):
            # Not json_contains: Milvus Lite takes no number below 0 there.
            found = f'(json_contains_any(attributes["{field}"], [{literal(value)}]))'
        case _ as never:
            assert_never(never)
    return f'((exists attributes["{field}"]) and {found})' if negated else found


def _joined(operator: str, terms: Sequence[str]) -> str:
    """Terms joined as a balanced tree.

    Milvus' planner nests `a or b or c` to the left and its query nodes read at most 100 levels of protobuf: a search
    with 60 values in a row failed inside Milvus 2.3.5. Balanced, the most that a filter may hold takes about 35.
    """
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return f"({_joined(operator, terms[:middle])} {operator} {_joined(operator, terms[middle:])})"
