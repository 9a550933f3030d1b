"""What a replica knows of events from their receipts."""

from __future__ import annotations

from driftline.adapters.memory import MemoryLog, MemoryLogReader
from driftline.core import codec
from driftline.core.receipts import ReceiptTail
from driftline.core.records import Operation, Outcome, Outgoing, Position, Receipt
from driftline.core.topics import RECEIPTS
from tests.client import until


def put(log: MemoryLog, *offsets: int) -> None:
    receipts = [Receipt(Position(0, o), "things", "", "a", Operation.UPSERT, 1, Outcome.SEARCHABLE) for o in offsets]
    log.append(Outgoing(RECEIPTS.name, b"", codec.encode_receipts(receipts), 0))


def test_what_was_indexed_before_the_start_counts_as_indexed() -> None:
    log = MemoryLog(1)
    put(log, 3, 4)
    tail = ReceiptTail(MemoryLogReader(log))
    tail.start(10)
    try:
        assert tail.wait_indexed(Position(0, 2), 5)
        assert not tail.wait_indexed(Position(0, 5), 0.01)
        put(log, 6)
        assert tail.wait_indexed(Position(0, 6), 5)
        assert not tail.wait_indexed(Position(0, 5), 0.01), "it was overtaken, not indexed"
        put(log, 5)
        assert tail.wait_indexed(Position(0, 5), 5)
    finally:
        tail.close()


def test_what_was_forgotten_counts_as_indexed() -> None:
    log = MemoryLog(1)
    tail = ReceiptTail(MemoryLogReader(log), remembered=3)
    tail.start(10)
    try:
        put(log, *range(10))
        until(lambda: tail.wait(Position(0, 9), 0) is not None, 5)
        assert tail.wait(Position(0, 2), 0) is None
        assert tail.wait_indexed(Position(0, 2), 0)
    finally:
        tail.close()
