"""Change one expression of a function of the product while it runs, as a careless commit would."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from types import FunctionType
from typing import Any


class StaleMutantError(Exception):
    """The code no longer says what the mutant changes: it has to be written anew."""


def edit(target: Any, before: str, after: str) -> None:
    """Replace `before`, which must stand exactly once in the source of the function or method, by `after`.

    The code object is exchanged, not the name: whoever imported the function has the changed one too.
    """
    function = inspect.unwrap(target)
    if not isinstance(function, FunctionType):
        raise StaleMutantError(f"{target!r} is no plain function")
    lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith("def "))
    source = "".join(lines[first:])
    if source.count(before) != 1:
        raise StaleMutantError(f"{function.__qualname__} has {before!r} {source.count(before)} times, expected once")
    code = compile(
        source.replace(before, after),
        f"<mutant of {function.__qualname__}>",
        "exec",
        flags=__future__.annotations.compiler_flag,
    )
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)
    function.__code__ = made[function.__name__].__code__
