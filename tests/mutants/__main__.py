"""`python -m tests.mutants [NAME ...]`: plant each bug, run the tests that must catch it, print and record the table.

Each bug is planted in a fork of a process that has everything imported, so it costs the tests and not the imports.
The same tests run once without a bug first: a test that fails anyway catches nothing.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.mutants.planted import BY_NAME, MUTANTS, Mutant, apply

PAGE = Path(__file__).resolve().parents[2] / "docs/testing.md"
BEGIN, END = "<!-- mutants: written by make test-mutants -->\n", "<!-- mutants: end -->\n"
# What the tests of MUTANTS import, so that a fork finds it ready.
_IMPORTS = (
    "driftline.adapters.memory",
    "driftline.encode.stage",
    "driftline.index.stage",
    "driftline.index.housekeeping",
    "driftline.retrieval.engine",
    "driftline.core.provision",
    "driftline.core.receipts",
    "driftline.drift.affine",
    "hypothesis.strategies",
    "tests.build",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`failed` names the tests that failed; `error` is what went wrong before any ran."""

    failed: tuple[str, ...]
    seconds: float
    error: str = ""


class _Failures:
    """A pytest plugin: which tests failed, and collection errors, which catch nothing."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid.rpartition("::")[2])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(str(report.longrepr)[-300:])


def run_tests(paths: Sequence[str], mutant: Mutant | None) -> Outcome:
    """Run the tests in a fork, stopping at the first failure where a bug is planted."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            pickle.dump(_in_child(paths, mutant), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        content = answer.read()
    os.waitpid(child, 0)
    result: Outcome = pickle.loads(content) if content else Outcome((), 0.0, "the process that ran the tests died")
    return result


def _in_child(paths: Sequence[str], mutant: Mutant | None) -> Outcome:
    begun = time.monotonic()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    # Always the same examples, and no time spent on making a failure small.
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.load_profile("mutants")
    try:
        if mutant is not None:
            apply(mutant.name)
    except Exception as error:
        return Outcome((), 0.0, f"{type(error).__name__}: {error}")
    seen = _Failures()
    stop = ["-x"] if mutant is not None else []
    # A bug may well make a loop wait for ever: that, too, is a test that fails.
    pytest.main(["-q", "-p", "no:cacheprovider", "--timeout=60", "--timeout-method=signal", *stop, *paths], [seen])
    return Outcome(tuple(seen.failed), time.monotonic() - begun, "; ".join(seen.broken))


def table(rows: Sequence[tuple[Mutant, Outcome]]) -> str:
    lines = ["| part | planted bug | what it breaks | caught by | s |", "|---|---|---|---|---|"]
    for mutant, outcome in rows:
        caught = f"`{outcome.failed[0]}`" if outcome.failed else f"**nothing** {outcome.error}"
        lines.append(f"| {mutant.part} | {mutant.name} | {mutant.breaks} | {caught} | {outcome.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def record(content: str) -> None:
    """Put the table between its marks in docs/testing.md."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(head + BEGIN + "\n" + content + "\n" + END + tail, encoding="utf-8")


def main(names: Sequence[str]) -> int:
    wanted = [BY_NAME[name] for name in names] or list(MUTANTS)
    for module in _IMPORTS:
        __import__(module)
    paths = sorted({path for mutant in wanted for path in mutant.caught_by})
    sound = run_tests(paths, None)
    if sound.failed or sound.error:
        print(f"without any planted bug these fail already: {', '.join(sound.failed)} {sound.error}")
        return 1
    print(f"no bug planted: every test passes ({sound.seconds:.1f} s)")
    rows: list[tuple[Mutant, Outcome]] = []
    for mutant in wanted:
        rows.append((mutant, run_tests(mutant.caught_by, mutant)))
        print(_line(*rows[-1]), flush=True)
    missed = [mutant.name for mutant, outcome in rows if not outcome.failed]
    print(f"{len(rows) - len(missed)} of {len(rows)} planted bugs caught" + (f"; missed: {missed}" if missed else ""))
    if not names and not missed:
        record(table(rows))
    return 1 if missed else 0


def _line(mutant: Mutant, outcome: Outcome) -> str:
    caught: Any = outcome.failed[0] if outcome.failed else f"NOT CAUGHT {outcome.error}"
    return f"  {mutant.part:<12} {mutant.name:<22} {outcome.seconds:5.1f} s  {caught}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
