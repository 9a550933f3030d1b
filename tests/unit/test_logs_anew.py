"""Logs that are made anew, and how far a log has been indexed."""

from __future__ import annotations

from driftline.adapters.memory import MemoryLog, MemoryLogReader, MemoryPublisher
from driftline.core import codec
from driftline.core.control import ControlView, log_record
from driftline.core.provision import incarnations, register_log
from driftline.core.receipts import ReceiptTail
from driftline.core.records import LogIncarnation, Operation, Outcome, Outgoing, Position, Receipt
from driftline.core.topics import CHANGES, RECEIPTS
from tests.build import BASE


def registered(log: MemoryLog, topic_id: str, at_us: int) -> int:
    return register_log(
        CHANGES.name, topic_id, MemoryLogReader(log), MemoryPublisher(log), clock=lambda: at_us
    ).base_version


def test_the_same_log_keeps_its_base_and_a_new_one_starts_at_the_present() -> None:
    log = MemoryLog(1)
    assert registered(log, "t1", BASE) == BASE
    assert registered(log, "t1", BASE + 5_000_000) == BASE
    later = BASE + 200_000_000_000
    assert registered(log, "t2", later) == later


def test_a_log_made_anew_outranks_its_former_life_even_with_a_clock_that_is_behind() -> None:
    log = MemoryLog(1)
    registered(log, "t1", BASE)
    # Above every version that its partitions may have assigned, not just the first.
    assert registered(log, "t2", BASE - 3_600_000_000) >= BASE + 10**11
    assert incarnations(MemoryLogReader(log))[CHANGES.name].topic_id == "t2"


def test_an_unreadable_control_record_does_not_hide_the_logs() -> None:
    log = MemoryLog(1)
    registered(log, "t1", BASE)
    log.append(Outgoing("control", b"x", b"\xff\xff", 0))
    log.append(Outgoing("control", b"x", None, 0))
    assert registered(log, "t1", BASE + 1) == BASE


def a_receipt(offset: int) -> Receipt:
    return Receipt(Position(0, offset), "things", "", f"d{offset}", Operation.UPSERT, offset, Outcome.SEARCHABLE)


def told(log: MemoryLog, *offsets: int) -> None:
    value = codec.encode_receipts([a_receipt(offset) for offset in offsets])
    MemoryPublisher(log).publish([Outgoing(RECEIPTS.name, b"0", value, 0)])


def test_a_position_is_indexed_once_it_or_a_later_one_of_its_partition_has_a_receipt() -> None:
    log = MemoryLog(1)
    told(log, 3)
    tail = ReceiptTail(MemoryLogReader(log))
    tail.start(10)
    try:
        assert tail.wait_indexed(Position(0, 3), 5)
        assert not tail.wait_indexed(Position(0, 7), 0.05)
        assert not tail.wait_indexed(Position(1, 0), 0.05)
        log.append(Outgoing(RECEIPTS.name, b"0", b"\xff\xff", 0))
        told(log, 7)
        assert tail.wait_indexed(Position(0, 7), 5)
        found = tail.wait(Position(0, 7), 5)
        assert found is not None
        assert found.id == "d7"
    finally:
        tail.close()


def test_receipts_of_a_logs_former_life_tell_nothing_of_the_next() -> None:
    log, view = MemoryLog(1), ControlView()
    told(log, 0, 1, 2)
    tail = ReceiptTail(MemoryLogReader(log))
    view.on_log_made_anew(CHANGES.name, tail.forget)
    tail.start(10)
    try:
        for topic_id in ("t1", "t1"):
            view.apply(log_record(LogIncarnation(CHANGES.name, topic_id, BASE)).value)
        assert tail.wait(Position(0, 1), 5) is not None
        view.apply(log_record(LogIncarnation(CHANGES.name, "t2", BASE + 10**11)).value)
        assert tail.wait(Position(0, 1), 0) is None
        assert not tail.wait_indexed(Position(0, 1), 0.01)
        told(log, 1)
        assert tail.wait(Position(0, 1), 5) is not None
    finally:
        tail.close()
