"""What a target is, and what its errors must be fit for: to be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from driftline.core import codec
from driftline.core.errors import InvalidRecord, InvalidRequest
from driftline.core.records import DeadLetter
from driftline.web.problems import problem_of
from tests.fuzz.grammar import Grammar

# The longest detail lists twenty fields; the longest place is in a filter of 16 levels.
_LONGEST_DETAIL = 2_000
_LONGEST_FIELD = 400


@dataclass(frozen=True, slots=True)
class Target:
    """`share` of all inputs goes to it. `run` gives a word for what happened; new words are worth a mutation.

    It goes on with an input as the program would: what was accepted must survive the next steps too.
    """

    name: str
    share: int
    make: Callable[[Grammar], bytes]
    run: Callable[[bytes], str]
    documented: tuple[type[BaseException], ...]


def check_told(error: BaseException) -> None:
    """A documented error becomes an answer, a dead letter or an exit: it must be short, and writable."""
    if isinstance(error, InvalidRequest):
        body = problem_of(error)
        orjson.dumps(body)
        assert 400 <= body["status"] < 500
        assert len(error.detail) <= _LONGEST_DETAIL, f"a detail of {len(error.detail)} characters"
        assert len(error.field) <= _LONGEST_FIELD, f"a field of {len(error.field)} characters"
    if isinstance(error, InvalidRecord):
        assert re.fullmatch("[a-z0-9_]+", error.reason), error.reason
        assert len(error.detail) <= _LONGEST_DETAIL, f"a detail of {len(error.detail)} characters"
        letter = DeadLetter("t", 0, 0, b"", b"", (), error.reason, error.detail, "fuzz", 0)
        assert codec.decode_dead_letter(codec.encode_dead_letter(letter)) == letter
    if isinstance(error, SystemExit):
        assert error.code == 78
