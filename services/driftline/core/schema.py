"""Parsed JSON against a pydantic model: the first thing that is wrong, as one problem."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from driftline.core.errors import InvalidRequest
from driftline.core.values import shown

_M = TypeVar("_M", bound=BaseModel)
# Of a place in a message: the parts of a path are the caller's own keys, of any length.
_PLACE = 200


class DefinitionPart(BaseModel):
    """A part of what users define: not changed once it is read, and without anything that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def validated(kind: type[_M], raw: Any, code: str, where: str = "") -> _M:
    """The model. Raises InvalidRequest(code) naming the first wrong field; `where` is put before it."""
    if not isinstance(raw, dict):
        raise InvalidRequest(code, f"expected an object, found {shown(raw)}", where or "body")
    # Here and not by pydantic, which would describe each of a million unknown keys.
    unknown = next((key for key in raw if key not in kind.model_fields), None)
    if unknown is not None and kind.model_config.get("extra") == "forbid":
        expected = ", ".join(kind.model_fields)
        raise InvalidRequest(code, f"expected only {expected}", place(where, unknown))
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        detail = problem["msg"].removeprefix("Value error, ")
        raise InvalidRequest(code, detail, place(where, *problem["loc"]) or "body") from error


def place(where: str, *parts: str | int) -> str:
    """Such as `query[0].weight`."""
    named = where
    for part in parts:
        named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else part
    return named[:_PLACE]
