"""Following `receipts` without a group: every replica sees every outcome, so any of them can wait for one."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping

from driftline.core import codec
from driftline.core.errors import InvalidRecord
from driftline.core.follow import Follower
from driftline.core.ports import LogReader
from driftline.core.records import Incoming, Position, Receipt
from driftline.core.topics import RECEIPTS

log = logging.getLogger(__name__)


class ReceiptTail(Follower):
    """Remembers the last receipts, bounded, and how far back they reach.

    A receipt is read from a log, so a notification cannot be lost, only late; every wait has a deadline.
    """

    def __init__(self, reader: LogReader, remembered: int = 100_000) -> None:
        super().__init__(reader, RECEIPTS.name)
        self._remembered = remembered
        self._receipts: OrderedDict[Position, Receipt] = OrderedDict()
        # By partition of `changes`: up to here events count as indexed, since their receipts came before this process
        # began to read, or were forgotten since.
        self._before: dict[int, int] = {}
        self._first: Mapping[int, int] = {}
        self._epochs: dict[str, dict[int, int]] = {}
        self._changed = threading.Condition()

    def check(self, position: Position) -> None:
        """Raises ValueError for a position that no event can have: `changes` has no such partition.

        `receipts` has as many partitions as `changes`, for an event's receipt is written to that of the event.
        """
        if position.partition not in self._first:
            raise ValueError(f"there is no partition {position.partition}")

    def wait(self, position: Position, timeout_seconds: float) -> Receipt | None:
        """The event's receipt, or None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: position in self._receipts, timeout_seconds)
            return self._receipts.get(position)

    def wait_indexed(self, position: Position, timeout_seconds: float) -> bool:
        """Whether the event of this position is indexed, after waiting at most this long.

        Its own receipt counts, not a later one's: an event that was put off is overtaken by others. Of an event that is
        older than what is remembered it is assumed.
        """

        def indexed() -> bool:
            return position in self._receipts or position.offset <= self._before.get(position.partition, -1)

        with self._changed:
            return self._changed.wait_for(indexed, timeout_seconds)

    def forget(self) -> None:
        """`changes` was made anew: its positions begin again, and what is known is of positions of its former life."""
        with self._changed:
            self._receipts.clear()
            self._before.clear()

    def epoch(self, collection: str) -> str:
        """Changes with every receipt of the collection that this process has seen, and never comes back."""
        with self._changed:
            seen = sorted(self._epochs.get(collection, {}).items())
        return ",".join(f"{partition}:{offset}" for partition, offset in seen)

    def begin(self, ends: Mapping[int, int]) -> Mapping[int, int]:
        """One record back: it holds the last receipts, and so says how far indexing has come."""
        self._first = ends
        return {partition: max(0, end - 1) for partition, end in ends.items()}

    def take(self, record: Incoming) -> None:
        try:
            receipts = codec.decode_receipts(record.value)
        except InvalidRecord as error:
            log.error("unreadable receipts", extra={"error": str(error), "offset": record.offset})
            return
        self._remember(receipts, older=record.offset < self._first[record.partition])

    def _remember(self, receipts: list[Receipt], older: bool) -> None:
        """`older`: they were written before this process began to read."""
        with self._changed:
            for receipt in receipts:
                self._receipts[receipt.position] = receipt
                partition, offset = receipt.position.partition, receipt.position.offset
                if older:
                    self._before[partition] = max(offset, self._before.get(partition, -1))
                seen = self._epochs.setdefault(receipt.collection, {})
                seen[partition] = max(offset, seen.get(partition, -1))
            while len(self._receipts) > self._remembered:
                position, _ = self._receipts.popitem(last=False)
                self._before[position.partition] = max(position.offset, self._before.get(position.partition, -1))
            self._changed.notify_all()
