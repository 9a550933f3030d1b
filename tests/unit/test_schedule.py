"""The fault tests' schedule: the same seed gives the same faults, and every kind comes."""

from __future__ import annotations

import pytest

from tests.faults.schedule import SERVERS, SERVICES, TOPICS, WEIGHTS, faults_wanted, schedule, seed_wanted


def test_a_seed_gives_the_same_faults_again() -> None:
    assert schedule(7, 60) == schedule(7, 60)
    assert schedule(7, 60) != schedule(8, 60)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_and_names_what_there_is(seed: int) -> None:
    faults = schedule(seed, 40)
    assert len(faults) == 40
    assert {fault.kind for fault in faults} == set(WEIGHTS)
    for fault in faults:
        assert fault.victim in (*SERVICES, *SERVERS, *TOPICS)
        assert fault.server in ("", *SERVERS)
        assert str(fault)


def test_every_part_is_hit_by_what_the_long_form_strikes_on_three_days() -> None:
    faults = [fault for seed in (1, 2, 3) for fault in schedule(seed, 100)]
    for kind in ("kill", "freeze"):
        assert {f.victim for f in faults if f.kind == kind} == {*SERVICES, *SERVERS}
    assert {f.server for f in faults if f.kind == "cut"} == set(SERVERS)
    assert {f.victim for f in faults if f.kind == "poison"} == set(TOPICS)


def test_kinds_without_weight_never_come() -> None:
    assert {fault.kind for fault in schedule(1, 50, {"kill": 1, "disk": 0})} == {"kill"}


def test_the_parameters_are_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_SEED", "")
    assert 20_200_101 < seed_wanted() < 99_991_231
    monkeypatch.setenv("DRIFTLINE_SEED", "5")
    monkeypatch.setenv("DRIFTLINE_FAULTS", "9")
    assert (seed_wanted(), faults_wanted(100)) == (5, 9)
