"""The parts of `make soak` that judge: a leak must be seen, and no event may get lost in the bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.core.records import Operation, Outcome, Position, Receipt
from tests.bench.memory import growth
from tests.bench.settled import EARLY_SECONDS, Account, Freshness

AT = np.arange(0, 1_800, 5.0)


def samples(held: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(AT.tolist(), held.tolist(), strict=True))


def a_receipt(offset: int, outcome: Outcome = Outcome.SEARCHABLE) -> Receipt:
    return Receipt(Position(0, offset), "c", "", "d", Operation.UPSERT, 1, outcome)


def test_a_leak_in_steps_is_found_whatever_the_noise() -> None:
    """60 MB an hour, 2 MB at a time, over a sawtooth of 3 MB."""
    held = 100 + 2 * np.floor(60 * AT / 3600 / 2) + 3 * (AT % 70 / 70)
    found = growth(samples(held))
    assert found.low < 60 < found.high
    assert found.low > 40
    assert (found.start, found.most) == (100, held.max())


def test_a_warm_up_is_no_growth() -> None:
    held = 200 - 100 * np.exp(-AT / 60) + np.random.default_rng(1).normal(0, 0.3, len(AT))
    found = growth(samples(held))
    assert found.low < 0 < found.high
    assert found.high < 5


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    """The same residuals in another order tell more: a slow wave looks like a slope, white noise does not."""
    rng = np.random.default_rng(2)
    noise = np.repeat(rng.normal(0, 1, 36), 10)
    wave, white = growth(samples(noise)), growth(samples(rng.permutation(noise)))
    assert wave.high - wave.low > 1.5 * (white.high - white.low)


def test_an_event_is_settled_whichever_is_read_first() -> None:
    account = Account()
    account.accepted("a", 1, 1, "0.1")
    account.receive([a_receipt(1), a_receipt(2)], now=0)
    account.accepted("b", 1, 1, "0.2")
    assert (account.events, account.settled) == (2, 2)
    assert not account.waiting
    assert not account.early


def test_nothing_is_kept_of_a_receipt_that_comes_twice() -> None:
    account = Account()
    account.accepted("a", 1, 1, "0.1")
    account.receive([a_receipt(1)], now=0)
    account.receive([a_receipt(1)], now=1)
    account.receive([], now=EARLY_SECONDS + 2)
    assert (account.settled, account.repeated) == (1, 1)
    assert not account.early


def test_an_event_without_a_receipt_stays_and_the_oracle_knows_its_document() -> None:
    account = Account()
    account.accepted("a", 2, 3, "0.1")
    account.accepted("a", 1, 1, "0.2")
    account.receive([a_receipt(2, Outcome.SUPERSEDED)], now=0)
    assert account.waiting == {"0.1"}
    assert account.expected() == {"a": (2, 3)}
    assert not account.tokens


def test_a_rejection_is_kept() -> None:
    account = Account()
    account.accepted("a", 1, 1, "0.1")
    account.receive([a_receipt(1, Outcome.REJECTED)], now=0)
    assert len(account.rejected) == 1


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_freshness_is_right_to_three_per_cent(share: float) -> None:
    seconds = np.random.default_rng(3).lognormal(-1, 1, 20_000)
    freshness = Freshness()
    for part in range(4):
        freshness.add(seconds[part::4].tolist(), now=10.0 * part)
    exact = float(np.quantile(seconds, share))
    assert exact <= freshness.overall(share) * 1.001 <= exact * 1.035
    assert [at for at, _ in freshness.over_time(share)] == [0, 10, 20, 30]
