"""Who goes first when more comes in than can be embedded at once, and what the background may have."""

from __future__ import annotations

import threading

import pytest

from driftline.core import codec
from driftline.core.records import Outcome
from driftline.core.topics import CHANGES, DEFERRED, VECTORS
from driftline.encode.pace import Pace, Unpaced
from driftline.encode.share import Shares
from driftline.encode.stage import decode as decode_change
from tests.build import a_change, a_collection, publish_change
from tests.unit.test_pipeline import Pipeline


def test_who_floods_waits_and_everybody_else_goes_first() -> None:
    shared = a_collection(tenancy=True)
    p = Pipeline(shared)
    p.behind = True
    for i in range(6):
        publish_change(p.log, a_change(f"f{i}", tenant="flood", collection=shared))
    publish_change(p.log, a_change("f0", delete=True, tenant="flood", collection=shared))
    publish_change(p.log, a_change("q", tenant="quiet", collection=shared))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    embedded = {codec.decode_vector(r.value).id for r in p.log.all(VECTORS.name)}
    put_off = [codec.decode_change(r.value) for r in p.log.all(DEFERRED.name)]
    # Two of the flood a batch, of which there were one or two a partition; its delete costs nothing and stays.
    assert {"q", "f0"} <= embedded
    assert put_off
    assert all(e.tenant == "flood" and e.version and e.origin for e in put_off)
    p.drain()
    assert set(p.stored()) == {"q", *(f"f{i}" for i in range(1, 6))}
    assert {r.outcome for r in p.receipts()} <= {Outcome.SEARCHABLE, Outcome.SUPERSEDED}


def test_what_was_put_off_is_embedded_whatever_its_share_also_by_a_slow_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine that embeds 20 texts a second, a flood was put off again and again, to four documents a second."""
    monkeypatch.setattr("driftline.encode.stage._FEW", 2)
    shared = a_collection(tenancy=True)
    p = Pipeline(shared)
    for stage in (p.encode, p.late._stage):
        stage._jobs.texts_per_second = 20
    p.behind = True
    for i in range(60):
        publish_change(p.log, a_change(f"f{i}", tenant="flood", collection=shared))
    p.drain()
    assert len(p.log.all(DEFERRED.name)) == 58
    assert len(p.stored()) == 60


def test_nobody_is_put_off_where_there_can_be_nobody_else() -> None:
    p = Pipeline()
    p.behind = True
    for i in range(30):
        publish_change(p.log, a_change(f"f{i}"))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    assert p.log.all(DEFERRED.name) == []


def test_a_share_comes_back_with_time() -> None:
    now = 0.0
    shares = Shares(2, lambda: now)
    flood = [a_change(f"f{i}") for i in range(5)]
    assert shares.over(flood) == {2, 3, 4}
    assert shares.over([a_change("g", delete=True), *flood]) == {1, 2, 3, 4, 5}
    now = 0.5
    assert shares.over(flood) == {1, 2, 3, 4}
    now = 60.0
    assert shares.over(flood) == {2, 3, 4}


def test_a_producer_that_floods_is_not_who_the_background_makes_room_for() -> None:
    shared = a_collection(tenancy=True)
    p = Pipeline(shared)
    p.behind = True
    for i in range(12):
        publish_change(p.log, a_change(f"f{i}", tenant="flood", collection=shared))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    p.encode._embedded_at = 0.0
    publish_change(p.log, a_change("g", tenant="flood", collection=shared))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    assert not p.encode.is_fresh(60)
    publish_change(p.log, a_change("q", tenant="quiet", collection=shared))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    assert p.encode.is_fresh(60)


def test_the_background_has_one_request_in_flight_while_fresh_changes_come() -> None:
    fresh = True
    pace = Pace(1, lambda: fresh)
    assert (pace.width(8), Unpaced().width(8)) == (1, 8)
    begun, done = threading.Event(), threading.Event()

    def second() -> None:
        begun.set()
        with pace.turn():
            done.set()

    with pace.turn():
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait(5)
        assert not done.wait(0.05)
    assert done.wait(5)
    fresh = False
    with pace.turn(), pace.turn():
        assert pace.width(8) == 8
    thread.join(5)
