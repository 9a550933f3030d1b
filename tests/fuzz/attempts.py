"""Trying a target: fresh inputs and mutations of those that ended in a way not seen before."""

from __future__ import annotations

import random
import re
import time
import traceback
import warnings
from dataclasses import dataclass, field

from tests.fuzz.grammar import Grammar, mutate
from tests.fuzz.targets import Target, check

_KEPT = 400
_REDUCE_TRIES = 2_000


@dataclass(frozen=True, slots=True)
class Finding:
    """An input whose end is not documented, as small as it could be made."""

    target: str
    content: bytes
    error: BaseException

    def told(self) -> str:
        trace = "".join(traceback.format_exception(self.error, limit=-4))
        case = f'    ("{self.target}", {_literal(self.content)}),'
        return f"\n{trace}\nThe case for tests/unit/test_fuzz_cases.py:\n{case}\n"


@dataclass(slots=True)
class Tried:
    """What came of a target's inputs. `ends` counts the ways they ended in, by the words of `check`."""

    target: str
    inputs: int = 0
    taken: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    ends: set[str] = field(default_factory=set)
    findings: dict[str, Finding] = field(default_factory=dict)

    def row(self) -> str:
        taken = f"{100 * self.taken / max(1, self.inputs):.0f} %"
        return (
            f"{self.target:<14}{self.inputs:>10,}{taken:>8}{len(self.ends):>6}{self.seconds:>9.1f}"
            f"{1_000 * self.slowest:>12.1f}"
        )


def attempt(target: Target, rng: random.Random, count: int) -> Tried:
    """Try this many inputs. The same generator gives the same ones again."""
    grammar, tried = Grammar(rng), Tried(target.name)
    kept: list[bytes] = []
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            content = _next(target, grammar, kept)
            at = time.perf_counter()
            end = _try(tried, content)
            tried.slowest = max(tried.slowest, time.perf_counter() - at)
            if end not in tried.ends:
                tried.ends.add(end)
                kept.append(content)
                del kept[:-_KEPT]
    tried.seconds = time.perf_counter() - begun
    return tried


def _next(target: Target, grammar: Grammar, kept: list[bytes]) -> bytes:
    rng = grammar.rng
    grammar.strange = rng.choice((0, 40, 10, 4))
    roll = rng.randrange(10)
    if roll < 5 or not kept:
        return target.make(grammar)
    # Half of the rest are mutations of what should be right, half of what ended in its own way.
    return mutate(rng, target.make(grammar) if roll < 7 else rng.choice(kept), kept)


def _try(tried: Tried, content: bytes) -> str:
    tried.inputs += 1
    try:
        end = check(tried.target, content)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = where(error)
        if place not in tried.findings:
            tried.findings[place] = Finding(tried.target, *_reduced(tried.target, content, error))
        return place
    # What is refused ends in the name of an exception.
    tried.taken += not end[0].isupper() or " " not in end
    return end


def _literal(content: bytes) -> str:
    """The bytes as Python would read them, with what is repeated written as a product."""
    parts, at = [], 0
    for match in re.finditer(rb"(?s)(.{1,4}?)\1{19,}", content):
        parts += [repr(content[at : match.start()]), f"{match[1]!r} * {len(match[0]) // len(match[1])}"]
        at = match.end()
    return " + ".join(part for part in (*parts, repr(content[at:])) if part != "b''") or "b''"


def where(error: BaseException) -> str:
    """The kind of an error, and the line that raised it: two of one line are one finding."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {frame.filename}:{frame.lineno}"


def _reduced(target: str, content: bytes, error: BaseException) -> tuple[bytes, BaseException]:
    """The smallest input found that fails at the same place: halves first, then ever smaller pieces are left out."""
    place, size, tries = where(error), max(1, len(content) // 2), 0
    while size and tries < _REDUCE_TRIES:
        at, shrunk = 0, False
        while at < len(content) and tries < _REDUCE_TRIES:
            smaller = content[:at] + content[at + size :]
            tries += 1
            try:
                check(target, smaller)
            except KeyboardInterrupt:
                raise
            except BaseException as again:
                if where(again) == place:
                    content, error, shrunk = smaller, again, True
                    continue
            at += size
        if not shrunk:
            size //= 2
    return content, error
