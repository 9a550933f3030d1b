"""Following `receipts` without a group: every replica sees every outcome, so any of them can wait for one."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

from driftline.core import codec
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.ports import LogReader
from driftline.core.records import Position, Receipt
from driftline.core.topics import RECEIPTS

log = logging.getLogger(__name__)


class ReceiptTail:
    """Remembers how far each partition of `changes` is indexed and, bounded, the last receipts.

    A receipt is read from a log, so a notification cannot be lost, only late; every wait has a deadline.
    """

    def __init__(self, reader: LogReader, remembered: int = 100_000) -> None:
        self._reader = reader
        self._remembered = remembered
        self._receipts: OrderedDict[Position, Receipt] = OrderedDict()
        self._watermarks: dict[int, int] = {}
        self._epochs: dict[str, dict[int, int]] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._started = threading.Event()
        self._positions: dict[tuple[str, int], int] = {}
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)

    def start(self, timeout_seconds: float = 60.0) -> None:
        """Return when the tail stands at the end. Raises Unavailable."""
        self._thread.start()
        if not self._started.wait(timeout_seconds):
            raise Unavailable("kafka", f"the receipts could not be read within {timeout_seconds:.0f} s")

    def wait(self, position: Position, timeout_seconds: float) -> Receipt | None:
        """The event's receipt, or None when there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: position in self._receipts, timeout_seconds)
            return self._receipts.get(position)

    def wait_indexed(self, position: Position, timeout_seconds: float) -> bool:
        """Whether everything up to this position is indexed, after waiting at most this long.

        Receipts of a partition are written in the order of `changes`, so the highest one covers all before it.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._watermarks.get(position.partition, -1) >= position.offset, timeout_seconds
            )

    def epoch(self, collection: str) -> str:
        """Changes with every receipt of the collection that this process has seen, and never comes back."""
        with self._changed:
            seen = sorted(self._epochs.get(collection, {}).items())
        return ",".join(f"{partition}:{offset}" for partition, offset in seen)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._positions:
                    # One record back: it holds the last receipts, and so says how far indexing has come.
                    ends = self._reader.ends(RECEIPTS.name)
                    self._positions = {(RECEIPTS.name, p): max(0, end - 1) for p, end in ends.items()}
                self._reader.seek(self._positions)
                self._follow()
            except Unavailable as error:
                log.warning("receipts cannot be read", extra={"error": str(error)})
                self._stop.wait(1.0)

    def _follow(self) -> None:
        begun = time.monotonic()
        while not self._stop.is_set():
            records = self._reader.poll(500, 0.1 if not self._started.is_set() else 0.5)
            for record in records:
                self._positions[(record.topic, record.partition)] = record.offset + 1
                try:
                    self._take(codec.decode_receipts(record.value))
                except InvalidRecord as error:
                    log.error("unreadable receipts", extra={"error": str(error), "offset": record.offset})
            if not records or time.monotonic() - begun > 5:
                self._started.set()

    def _take(self, receipts: list[Receipt]) -> None:
        with self._changed:
            for receipt in receipts:
                self._receipts[receipt.position] = receipt
                partition, offset = receipt.position.partition, receipt.position.offset
                if offset > self._watermarks.get(partition, -1):
                    self._watermarks[partition] = offset
                seen = self._epochs.setdefault(receipt.collection, {})
                seen[partition] = max(offset, seen.get(partition, -1))
            while len(self._receipts) > self._remembered:
                self._receipts.popitem(last=False)
            self._changed.notify_all()
