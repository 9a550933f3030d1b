"""Who goes first when more comes in than can be embedded at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from driftline.core.records import ChangeEvent, Operation

Producer = tuple[str, str]


def producer_of(event: ChangeEvent) -> Producer:
    """Whose change it is: a tenant of a collection."""
    return event.collection_uid, event.tenant


def over_their_share(events: Sequence[ChangeEvent], allowed: int) -> set[int]:
    """Indices of the upserts beyond the first `allowed` of each producer. Deletes cost nothing, and stay.

    Used on a batch that was full when it was cut, so that more is waiting behind it: whoever sent a few documents has
    them embedded at once, whoever sent fifty thousand gets what the others leave.
    """
    counts: Counter[Producer] = Counter()
    over: set[int] = set()
    for i, event in enumerate(events):
        if event.operation is Operation.DELETE:
            continue
        producer = producer_of(event)
        counts[producer] += 1
        if counts[producer] > allowed:
            over.add(i)
    return over
