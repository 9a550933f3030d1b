"""What a value of a document's field, an id or a tenant may be."""

from __future__ import annotations

import math
import re
import reprlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from driftline.core.errors import InvalidRequest
from driftline.core.limits import (
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_KEYWORD_BYTES,
    MAX_LIST_VALUES,
    MAX_TENANT_BYTES,
)

FieldType = Literal[
    "text", "keyword", "integer", "float", "boolean", "datetime", "keyword_list", "integer_list", "json"
]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST_DATETIME = 64
# C0, DEL and C1, and the two separators that many readers of JSON lines take for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPECTED: dict[FieldType, str] = {
    "integer": f"an integer from -(2^63 - 1) to 2^63 - 1 ({MAX_INTEGER})",
    "float": "a finite number",
    "datetime": "an ISO 8601 date and time",
    "keyword": f"a string of at most {MAX_KEYWORD_BYTES} bytes",
    "keyword_list": f"a list of at most {MAX_LIST_VALUES} strings, each of at most {MAX_KEYWORD_BYTES} bytes",
    "integer_list": f"a list of at most {MAX_LIST_VALUES} integers of 64 bits",
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 50
_short.maxlevel = 2
_short.maxlist = _short.maxdict = _short.maxtuple = 3


def shown(value: Any) -> str:
    """A value for a message, of whatever size: its type and its beginning."""
    if value is None:
        return "null"
    text = _short.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def datetime_us(value: Any) -> int:
    """An ISO 8601 text as microseconds since the epoch; without an offset it is UTC. Raises ValueError."""
    if not isinstance(value, str) or len(value) > _LONGEST_DATETIME:
        raise ValueError("not a date and time")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # In whole numbers: a float of seconds is off by microseconds from the year 2255 on.
    return (moment - _EPOCH) // _MICROSECOND


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER


def _is_keyword(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) <= MAX_KEYWORD_BYTES


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LIST_VALUES


def _float(value: Any) -> float:
    """Raises ValueError, OverflowError."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value)


def check_value(kind: FieldType, value: Any, where: str, code: str = "wrong_type") -> Any:
    """The value as filters see it: floats as floats, dates as microseconds. Raises InvalidRequest(code)."""
    good: bool
    try:
        match kind:
            case "float":
                return _float(value)
            case "datetime":
                return datetime_us(value)
            case "text":
                good = isinstance(value, str)
            case "keyword":
                good = _is_keyword(value)
            case "integer":
                good = is_integer(value)
            case "boolean":
                good = isinstance(value, bool)
            case "keyword_list":
                good = _is_list(value) and all(map(_is_keyword, value))
            case "integer_list":
                good = _is_list(value) and all(map(is_integer, value))
            case "json":
                good = True
    except (ValueError, OverflowError):
        good = False
    if not good:
        raise InvalidRequest(code, f"expected {_EXPECTED.get(kind, kind)}, found {shown(value)}", where)
    return value


def _check_name(text: str, longest: int, where: str, code: str) -> str:
    """Names are compared, logged and joined into keys: no control characters, nothing that is not Unicode."""
    if _SURROGATE.search(text):
        raise InvalidRequest(code, "expected valid Unicode; it holds a lone surrogate", where)
    if found := _CONTROL.search(text):
        raise InvalidRequest(code, f"expected no control characters, found U+{ord(found[0]):04X}", where)
    size = len(text.encode())
    if size > longest:
        raise InvalidRequest(code, f"expected at most {longest} bytes of UTF-8, found {size}", where)
    return text


def check_id(document_id: Any, field: str = "id") -> str:
    if not isinstance(document_id, str) or not document_id:
        raise InvalidRequest("invalid_id", f"expected a string that is not empty, found {shown(document_id)}", field)
    return _check_name(document_id, MAX_ID_BYTES, field, "invalid_id")


def check_tenant_name(tenant: str) -> str:
    return _check_name(tenant, MAX_TENANT_BYTES, "tenant", "invalid_tenant")
