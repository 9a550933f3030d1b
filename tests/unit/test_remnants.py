"""Rows that a lost delete left in the store: index takes them out again, and `driftline verify --repair` does."""

from __future__ import annotations

from driftline.adapters.memory import MemoryCache, MemoryEmbedder, MemoryStore
from driftline.cli.verify import differences, repairs
from driftline.core.codec import decode_change
from driftline.core.records import REPAIR, VectorRecord, document_key, now_us
from driftline.core.store import StoreTarget
from driftline.index.settings import IndexSection
from driftline.index.stage import IndexStage
from tests.build import a_change, a_collection, a_vector_record, a_view

A = document_key("", "a")


class Index:
    """The index stage over a store that loses deletes when told to."""

    def __init__(self) -> None:
        self.collection = a_collection()
        self.store = MemoryStore()
        self.ahead_us = 0
        view, section = a_view(self.collection), IndexSection()
        self.stage = IndexStage(view, self.store, MemoryCache(), lambda: 10.0, section, self.clock)

    def clock(self) -> int:
        return now_us() + self.ahead_us

    def write(self, *records: VectorRecord) -> None:
        self.stage.process(records)

    def lose(self, *records: VectorRecord) -> None:
        self.store.loses_deletes = True
        self.write(*records)
        self.store.loses_deletes = False

    @property
    def target(self) -> StoreTarget:
        return self.collection.target(self.collection.primary.complete, MemoryEmbedder().space)

    def rows(self) -> set[tuple[str, int, int]]:
        """Id, version, chunk."""
        return {(id_, version, chunk) for _, id_, version, chunk in self.store.scan(self.target)}


def test_a_lost_trim_is_made_again_with_a_later_batch() -> None:
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=4))
    index.lose(a_vector_record("a", version=2, chunks=2))
    index.write(a_vector_record("b"))
    assert ("a", 1, 3) in index.rows()
    index.ahead_us += 31_000_000
    index.write(a_vector_record("c"))
    assert index.rows() == {("a", 2, 0), ("a", 2, 1), ("b", 1, 0), ("c", 1, 0)}


def test_a_trim_that_is_lost_twice_is_made_a_third_time() -> None:
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=2))
    index.lose(a_vector_record("a", version=2, delete=True))
    index.ahead_us += 31_000_000
    index.lose(a_vector_record("b"))
    assert index.rows() == {("a", 1, 0), ("a", 1, 1), ("b", 1, 0)}
    index.ahead_us += 600_000_000
    index.write(a_vector_record("c"))
    assert index.rows() == {("b", 1, 0), ("c", 1, 0)}


def test_rows_that_were_written_again_since_stay() -> None:
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=4))
    index.lose(a_vector_record("a", version=2, chunks=1))
    index.write(a_vector_record("a", version=3, chunks=3))
    index.ahead_us += 31_000_000
    index.write(a_vector_record("c"))
    assert index.rows() == {("a", 3, 0), ("a", 3, 1), ("a", 3, 2), ("c", 1, 0)}


def test_nothing_is_taken_out_again_of_what_another_process_may_have_written() -> None:
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=4))
    index.write(a_vector_record("a", version=2, chunks=1))
    index.stage.reset()
    other = IndexStage(a_view(index.collection), index.store, MemoryCache(), lambda: 10.0, IndexSection(), index.clock)
    other.process([a_vector_record("a", version=3, chunks=4)])
    index.stage.reset()
    index.ahead_us += 31_000_000
    index.write(a_vector_record("c"))
    assert index.rows() == {("a", 3, 0), ("a", 3, 1), ("a", 3, 2), ("a", 3, 3), ("c", 1, 0)}


def test_a_repair_takes_out_every_row_that_is_not_the_documents() -> None:
    """Its head tells the new number of chunks: the same version once more would have trimmed nothing."""
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=4), a_vector_record("b", version=1, chunks=3))
    index.lose(a_vector_record("a", version=2, chunks=2), a_vector_record("b", version=2, delete=True))
    index.stage.reset()
    log = {A: a_change("a", version=2), document_key("", "b"): a_change("b", version=2, delete=True)}
    wrong = differences(index.store, index.target, log)
    assert [(i, problem) for _, i, problem in wrong] == [("a", "orphaned chunks"), ("b", "resurrected")]
    sent = {e.id: e.source for e in (decode_change(record.value) for record in repairs(log, wrong))}
    assert sent == {"a": REPAIR, "b": REPAIR}
    index.write(a_vector_record("a", version=2, chunks=2), a_vector_record("b", version=2, delete=True))
    assert ("a", 1, 3) in index.rows()
    index.write(
        a_vector_record("a", version=2, chunks=2, source=sent["a"]),
        a_vector_record("b", version=2, delete=True, source=sent["b"]),
    )
    assert differences(index.store, index.target, log) == []


def test_the_tail_of_a_deleted_document_is_repaired() -> None:
    index = Index()
    index.write(a_vector_record("a", version=1, chunks=4))
    index.lose(a_vector_record("a", version=2, chunks=2))
    index.write(a_vector_record("a", version=3, delete=True))
    index.stage.reset()
    log = {A: a_change("a", version=3, delete=True)}
    assert [problem for _, _, problem in differences(index.store, index.target, log)] == ["orphaned chunks"]
    index.write(a_vector_record("a", version=3, delete=True, source=REPAIR))
    assert index.rows() == set()
