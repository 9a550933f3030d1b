"""What the oracle of the fault tests says of receipts."""

from __future__ import annotations

import pytest

from driftline.core.records import Operation, Outcome, Position, Receipt
from tests.oracle import check_receipts

S, P, R = Outcome.SEARCHABLE, Outcome.SUPERSEDED, Outcome.REJECTED


def receipts(*told: tuple[Outcome, int]) -> list[Receipt]:
    """In the order of the topic, with the second in which each was written."""
    return [
        Receipt(Position(0, 1), "c", "", "a", Operation.UPSERT, 1, outcome, written_at_us=second)
        for outcome, second in told
    ]


@pytest.mark.parametrize(
    "told",
    [
        [(S, 1)],
        [(R, 1), (R, 2)],
        [(S, 1), (P, 2)],
        [(S, 1), (S, 2), (P, 3), (P, 4)],
        # Late: written first, and delivered after its record was processed again.
        [(P, 2), (S, 1)],
        # A clock jumped back between the two.
        [(S, 9), (P, 2)],
    ],
)
def test_receipts_that_a_redelivery_explains(told: list[tuple[Outcome, int]]) -> None:
    check_receipts({"t": receipts(*told)})


@pytest.mark.parametrize(
    "told", [[(P, 1), (S, 2)], [(R, 1), (S, 2)], [(S, 1), (R, 2)], [(P, 1), (R, 2)], [(S, 1), (P, 2), (S, 3)]]
)
def test_receipts_that_nothing_explains(told: list[tuple[Outcome, int]]) -> None:
    with pytest.raises(AssertionError):
        check_receipts({"t": receipts(*told)})
