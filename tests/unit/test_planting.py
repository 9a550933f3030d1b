"""The tools of the fault tests: a clock that is moved from outside, and an edit that plants a bug."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults import clock
from tests.mutants.edit import StaleMutantError, edit
from tests.mutants.planted import MUTANTS


def doubled(value: int) -> int:
    return value * 2


def halved(value: int) -> int:
    return value // 2


def test_a_moved_clock_is_what_the_process_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clock"
    clock.move(file, 0)
    monkeypatch.setenv(clock.VARIABLE, str(file))
    # Put back whatever `follow` replaces.
    monkeypatch.setattr(time, "time", time.time)
    monkeypatch.setattr(time, "time_ns", time.time_ns)
    true = time.time
    clock.follow()
    for moved in (3_000.0, -86_400.0, 0.0):
        clock.move(file, moved)
        assert time.time() - true() == pytest.approx(moved, abs=1)
        assert time.time_ns() / 1e9 - true() == pytest.approx(moved, abs=1)


def test_an_edit_changes_the_function_that_others_hold() -> None:
    held = doubled
    edit(doubled, "value * 2", "value * 3")
    assert held(2) == 6


def test_an_edit_of_what_is_not_there_is_an_error() -> None:
    with pytest.raises(StaleMutantError, match="0 times"):
        edit(halved, "value + 2", "value")


def test_planted_bugs_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 8
