from __future__ import annotations

from dataclasses import replace

import pytest

from driftline.adapters.memory import MemoryLog, MemoryLogReader, MemoryPublisher
from driftline.core.control import ControlFollower, ControlView, ControlWriter, collection_record
from driftline.core.errors import NotFound, Unavailable
from tests.build import a_collection, a_follower
from tests.client import until


def test_a_collection_is_seen_replaced_and_gone() -> None:
    log, view = MemoryLog(1), ControlView()
    follower = a_follower(log, view)
    writer = ControlWriter(MemoryPublisher(log), follower)
    first = a_collection()
    seen: list[tuple[str, bool]] = []
    view.on_collection(lambda c: seen.append((c.uid, c.deleted)))
    writer.write([collection_record(first)])
    assert view.collection("things") == first
    writer.write([collection_record(replace(first, deleted=True))])
    with pytest.raises(NotFound):
        view.collection("things")
    assert view.incarnation("things", first.uid) is None
    second = replace(first, uid="u2")
    writer.write([collection_record(second)])
    assert view.incarnation("things", "u2") == second
    assert view.incarnation("things", first.uid) is None
    assert seen == [("u1", False), ("u1", True), ("u2", False)]
    follower.close()


def test_an_event_waits_for_a_collection_that_may_only_not_have_been_read_yet() -> None:
    log, view = MemoryLog(1), ControlView()
    reader = MemoryLogReader(log)
    with pytest.raises(Unavailable, match="not known yet"):
        view.incarnation("things", "u1")
    MemoryPublisher(log).publish([collection_record(a_collection())])
    follower = ControlFollower(reader, view)
    follower.start(10)
    assert view.incarnation("things", "u1") is not None
    follower.close()


def test_an_event_of_a_collection_that_surely_is_not_there_does_not_wait_for_ever() -> None:
    view = ControlView()
    follower = a_follower(MemoryLog(1), view)

    def known_to_be_unknown() -> bool:
        try:
            return view.incarnation("things", "gone") is None
        except Unavailable:
            return False

    assert not known_to_be_unknown()
    until(known_to_be_unknown, 10)
    follower.close()


def test_a_record_that_cannot_be_read_is_left_out() -> None:
    view = ControlView()
    for value in (None, b"\xff\xff", b""):
        view.apply(value)
    assert view.collections() == []
