"""The whole pipeline in memory, stage by stage and by random histories against an oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.adapters.memory import (
    MemoryCache,
    MemoryEmbedder,
    MemoryLog,
    MemoryPublisher,
    MemoryStore,
    MemorySubscriber,
)
from driftline.core import codec
from driftline.core.collections import Collection
from driftline.core.control import space_record
from driftline.core.errors import Fenced, InvalidRecord, PartlyUnavailable, Unavailable
from driftline.core.health import Health
from driftline.core.ports import Embedder, Guard
from driftline.core.records import Generation, Incoming, Outcome, Priority, Receipt, document_key, now_us, record_key
from driftline.core.runner import Runner
from driftline.core.settings import RunnerSettings
from driftline.core.stage import Refused
from driftline.core.store import StoreTarget, VectorQuery, WritePlan
from driftline.core.topics import CHANGES, DEFERRED, DOCUMENTS, RECEIPTS, VECTORS
from driftline.encode.lane import DeferredStage, decode_deferred
from driftline.encode.settings import EncodeSection
from driftline.encode.stage import EncodeStage
from driftline.encode.stage import decode as decode_change
from driftline.index.settings import IndexSection
from driftline.index.stage import IndexStage
from driftline.index.stage import decode as decode_vector
from tests.build import BASE, Encoders, a_change, a_collection, a_vector_record, a_view, publish_change


class Pipeline:
    """Ingest's topic, encode, index and a store, all in memory."""

    def __init__(
        self, collection: Collection | None = None, encoders: Embedder | None = None, others: Sequence[Collection] = ()
    ) -> None:
        self.collection = collection or a_collection()
        self.view = a_view(self.collection, *others)
        self.log = MemoryLog(2)
        self.embedder = MemoryEmbedder()
        self.cache = MemoryCache()
        self.store = MemoryStore()
        self.lease = 10.0
        self.behind = False
        # What was put off is due as soon as a test moves the clock.
        self.ahead_us = 0
        encoders = encoders or self.embedder
        self.encode = self.a_stage(encoders, Priority.CHANGE, lambda: self.behind)
        self.late = DeferredStage(self.a_stage(encoders, Priority.BACKGROUND), lambda: False, 0, self.clock)
        self.index = IndexStage(self.view, self.store, self.cache, lambda: self.lease, IndexSection(), self.clock)
        self.publisher = MemoryPublisher(self.log)

    def a_stage(
        self, encoders: Embedder, priority: Priority, is_behind: Callable[[], bool] | None = None
    ) -> EncodeStage:
        return EncodeStage(
            self.view, encoders, self.cache, EncodeSection(share_per_second=2), priority, is_behind, clock=self.clock
        )

    def clock(self) -> int:
        return now_us() + self.ahead_us

    def drain(self) -> None:
        """Run the stages until they have read everything; what is put off for a time stays."""
        self._run(CHANGES.name, "encode", self.encode, decode_change)
        self.ahead_us += 70_000_000
        self._run(DEFERRED.name, "deferred", self.late, decode_deferred)
        self._run(VECTORS.name, "index", self.index, decode_vector)

    def _run(self, topic: str, group: str, stage: object, decode: object) -> None:
        subscriber = MemorySubscriber(self.log, group, [topic])
        runner: Runner[object] = Runner(
            service=group, subscriber=subscriber, publisher=self.publisher, stage=stage, decode=decode,  # type: ignore[arg-type]
            settings=RunnerSettings(batch_records=7, batch_age_seconds=0, dead_letter_limit=1), health=Health(),
        )  # fmt: skip
        ends = {(r.topic, r.partition): r.offset + 1 for r in self.log.all(topic)}
        while any(self.log.committed.get((group, *tp), 0) < end for tp, end in ends.items()):
            runner._turn()
        runner.stop()
        runner.run()

    def receipts(self) -> list[Receipt]:
        return [x for r in self.log.all(RECEIPTS.name) for x in codec.decode_receipts(r.value)]

    def stored(self) -> dict[str, tuple[int, set[int]]]:
        """Document id -> (version, chunks) of everything searchable."""
        found: dict[str, tuple[int, set[int]]] = {}
        target = self.collection.target(self.collection.primary.complete, self.embedder.space)
        if self.store.count(target) is None:
            return {}
        for _, document_id, version, chunk in self.store.scan(target):
            found.setdefault(document_id, (version, set()))[1].add(chunk)
        return found


def test_an_accepted_document_becomes_searchable_with_a_receipt() -> None:
    p = Pipeline()
    position = publish_change(p.log, a_change("a", title="red shoes"))
    p.drain()
    (receipt,) = p.receipts()
    assert (receipt.position, receipt.outcome, receipt.version) == (
        position,
        Outcome.SEARCHABLE,
        BASE + position.offset,
    )
    target = p.collection.target(p.collection.primary.complete, p.embedder.space)
    ((hit,),) = p.store.search(target, VectorQuery(p.embedder._one("red shoes")[None], 5, None))
    assert hit.id == "a"
    assert hit.score == pytest.approx(1.0)


def test_the_documents_topic_holds_accepted_versions_only() -> None:
    p = Pipeline()
    publish_change(p.log, a_change("a", version=5))
    p.drain()
    publish_change(p.log, a_change("a", version=3))
    p.drain()
    assert [codec.decode_change(r.value).version for r in p.log.all(DOCUMENTS.name)] == [5]
    assert [r.outcome for r in p.receipts()] == [Outcome.SEARCHABLE, Outcome.SUPERSEDED]


def test_a_text_that_fails_takes_only_its_own_document_with_it() -> None:
    p = Pipeline()
    p.embedder.refused_texts = {"cursed"}
    for i in range(10):
        publish_change(p.log, a_change(f"d{i}", title="cursed" if i == 4 else f"fine {i}"))
    p.drain()
    outcomes = {r.id: (r.outcome, r.reason) for r in p.receipts()}
    assert outcomes.pop("d4") == (Outcome.REJECTED, "encode_failed")
    assert set(outcomes.values()) == {(Outcome.SEARCHABLE, "")}
    (letter,) = [codec.decode_dead_letter(r.value) for r in p.log.all("dead-letters")]
    assert letter.reason == "encode_failed"


def test_an_event_of_a_deleted_collection_never_reaches_its_successor() -> None:
    p = Pipeline()
    publish_change(p.log, replace(a_change("a"), collection_uid="gone"))
    p.drain()
    assert p.stored() == {}
    assert [r.reason for r in p.receipts()] == ["unknown_collection"]


def test_texts_are_embedded_once_while_the_cache_has_them() -> None:
    p = Pipeline()
    publish_change(p.log, a_change("a", title="same words"))
    p.drain()
    publish_change(p.log, a_change("b", title="same words"))
    p.drain()
    assert p.embedder.requests == [1]


def test_what_got_through_before_an_outage_is_not_embedded_again() -> None:
    p = Pipeline()
    texts = [f"text number {i}" for i in range(40)]
    for i, text in enumerate(texts):
        publish_change(p.log, a_change(f"d{i}", title=text))
    plain = p.embedder.embed
    failing = [True]

    def half(encoder: str, space: str, requests: Any, priority: Priority) -> Any:
        answers = plain(encoder, space, requests, priority)
        if failing.pop() if failing else False:
            answers[-1] = Unavailable("triton", "gone", 0.01)
        return answers

    p.embedder.embed = half  # type: ignore[method-assign]
    changes = [decode_change(r) for r in p.log.all(CHANGES.name)]
    with pytest.raises(Unavailable):
        p.encode.process(changes)
    p.embedder.requests.clear()
    assert len(p.encode.process(changes).results) == 40
    assert sum(p.embedder.requests) < 40


def test_a_cache_that_is_down_fails_nothing() -> None:
    p = Pipeline()
    p.cache.down = True
    publish_change(p.log, a_change("a"))
    p.drain()
    assert [r.outcome for r in p.receipts()] == [Outcome.SEARCHABLE]


def test_encode_waits_for_the_log_to_be_registered() -> None:
    from driftline.core.control import ControlView

    stage = EncodeStage(ControlView(), MemoryEmbedder(), MemoryCache(), EncodeSection())
    with pytest.raises(Unavailable, match="topics create"):
        stage.process([])


def test_a_model_of_another_space_is_not_used_and_only_its_collection_waits() -> None:
    other_space = MemoryEmbedder(48, "better")
    other = replace(
        a_collection(other_space.space, name="others", embedding={"encoder": "better", "fields": ["title"]}), uid="u2"
    )
    p = Pipeline(encoders=Encoders(MemoryEmbedder(), other_space), others=[other])
    p.view.apply(space_record(other_space.space).value)
    right = other_space.space
    other_space.space = replace(right, fingerprint="another")
    publish_change(p.log, a_change("a"))
    position = publish_change(p.log, a_change("b", collection=other))
    p.drain()
    p.drain()
    assert [(r.id, r.outcome) for r in p.receipts()] == [("a", Outcome.SEARCHABLE)]
    other_space.space = right
    p.drain()
    (late,) = p.receipts()[1:]
    assert (late.id, late.outcome, late.position) == ("b", Outcome.SEARCHABLE, position)
    assert late.version == BASE + position.offset


def test_a_store_that_cannot_be_written_holds_up_its_own_collection_only() -> None:
    others = [
        replace(
            a_collection(name="others"),
            uid="u2",
            generations=(Generation(1, "default", MemoryEmbedder().space.fingerprint, "other_1"),),
        )
    ]
    p = Pipeline(others=others)
    broken = PartlyUnavailable("milvus", "the collection is not loaded")
    plain = p.store.apply

    def apply(target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        if target.store == "other_1" and broken is not None:
            raise broken
        return plain(target, plan, guard)

    p.store.apply = apply  # type: ignore[method-assign]
    positions = [publish_change(p.log, a_change(f"b{i}", collection=others[0])) for i in range(5)]
    for i in range(5):
        publish_change(p.log, a_change(f"a{i}"))
    p.drain()
    assert {r.id: r.outcome for r in p.receipts()} == {f"a{i}": Outcome.SEARCHABLE for i in range(5)}
    # A newer version passes the waiting ones, and wins.
    broken = None  # type: ignore[assignment]
    p.ahead_us += 70_000_000
    newest = publish_change(p.log, a_change("b0", title="newer", collection=others[0]))
    p._run(CHANGES.name, "encode", p.encode, decode_change)
    p._run(VECTORS.name, "index", p.index, decode_vector)
    p.drain()
    told = {r.position: r for r in p.receipts()}
    assert told[newest].outcome is Outcome.SEARCHABLE
    assert told[positions[0]].outcome is Outcome.SUPERSEDED
    assert {told[x].outcome for x in positions[1:]} == {Outcome.SEARCHABLE}
    assert not p.log.all("dead-letters")


def test_a_row_that_the_store_refuses_is_set_aside_alone_with_a_receipt() -> None:
    p = Pipeline()
    plain = p.store.apply

    def apply(target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        if any(d.id == "d4" for d in plan.upserts):
            raise InvalidRecord("store_refused", "told so", suspect=True)
        return plain(target, plan, guard)

    p.store.apply = apply  # type: ignore[method-assign]
    for i in range(10):
        publish_change(p.log, a_change(f"d{i}"))
    p.drain()
    outcomes = {r.id: (r.outcome, r.reason) for r in p.receipts()}
    assert outcomes.pop("d4") == (Outcome.REJECTED, "store_refused")
    assert set(outcomes.values()) == {(Outcome.SEARCHABLE, "")}
    (letter,) = [codec.decode_dead_letter(r.value) for r in p.log.all("dead-letters")]
    assert (letter.reason, letter.topic) == ("store_refused", VECTORS.name)


def test_a_record_that_makes_a_stage_fail_is_set_aside_alone() -> None:
    p = Pipeline()
    plain = p.index._sort_in

    def sort_in(groups: Any, i: int, record: Any) -> Any:
        if record.id == "d2":
            raise KeyError("a bug that one record shows")
        return plain(groups, i, record)

    p.index._sort_in = sort_in  # type: ignore[method-assign]
    for i in range(6):
        publish_change(p.log, a_change(f"d{i}"))
    p.drain()
    outcomes = {r.id: (r.outcome, r.reason) for r in p.receipts()}
    assert outcomes.pop("d2") == (Outcome.REJECTED, "unexpected")
    assert set(outcomes.values()) == {(Outcome.SEARCHABLE, "")}


def test_a_change_without_a_version_is_refused_where_versions_are_external() -> None:
    versioned = a_collection(versions="external")
    p = Pipeline(versioned)
    publish_change(p.log, a_change("a", collection=versioned))
    publish_change(p.log, a_change("a", version=4, collection=versioned))
    p.drain()
    assert [(r.version, r.outcome) for r in p.receipts()][-1] == (4, Outcome.SEARCHABLE)
    assert p.receipts()[0].reason == "version_required"


def test_vectors_of_another_space_or_dimension_are_dead_lettered() -> None:
    p = Pipeline()
    right = a_vector_record("a", collection=p.collection)
    (named,) = right.vectors
    wrong = [
        replace(right, vectors=(replace(named, space="other"),)),
        replace(right, vectors=(replace(named, values=np.ones((1, 3), dtype=np.float32)),)),
        replace(right, vectors=()),
        replace(right, fields_json=b"[]"),
    ]
    results = p.index.process(wrong).results
    reasons = [r.error.reason for r in results if isinstance(r, Refused)]
    assert reasons == ["wrong_space", "wrong_dimension", "missing_vectors", "invalid_json"]


def test_index_writes_nothing_without_a_lease() -> None:
    p = Pipeline()
    p.lease = 0.5
    with pytest.raises(Fenced):
        p.index.process([a_vector_record("a", collection=p.collection)])
    assert p.stored() == {}


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_crash_inside_a_write_heals_on_replay(step: int) -> None:
    p = Pipeline()
    p.index.process([a_vector_record("a", version=1, chunks=4, collection=p.collection)])
    p.store.crash_after = step
    smaller = a_vector_record("a", version=2, chunks=2, collection=p.collection)
    with pytest.raises(Unavailable):
        p.index.process([smaller])
    p.index.reset()
    p.index.process([smaller])
    assert p.stored() == {"a": (2, {0, 1})}


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_crash_inside_a_delete_heals_on_replay_and_nothing_resurrects(step: int) -> None:
    p = Pipeline()
    p.index.process([a_vector_record("a", version=1, chunks=3, collection=p.collection)])
    p.store.crash_after = step
    gone = a_vector_record("a", version=2, delete=True, collection=p.collection)
    with pytest.raises(Unavailable):
        p.index.process([gone])
    p.index.reset()
    p.index.process([gone])
    p.index.process([a_vector_record("a", version=1, chunks=3, collection=p.collection)])
    assert p.stored() == {}


def test_rejected_records_get_their_receipt_from_index() -> None:
    p = Pipeline()
    record = a_vector_record("a", rejected_reason="empty_text", rejected_detail="nothing", collection=p.collection)
    processed = p.index.process([record])
    assert processed.results == [()]
    assert processed.settle is not None
    (batch,) = processed.settle()
    (receipt,) = codec.decode_receipts(batch.value)
    assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, "empty_text")


event = st.tuples(
    st.sampled_from(["a", "b", "c", "d"]),
    st.one_of(st.just(0), st.integers(1, 8)),
    st.sampled_from(["upsert", "upsert", "delete"]),
    st.integers(1, 4),
)


@given(st.lists(event, min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=10), st.integers(0, 2**20))
@settings(max_examples=60, deadline=None)
def test_random_histories_end_as_the_oracle_whatever_is_read_twice(
    history: list[tuple[str, int, str, int]], replays: list[int], seed: int
) -> None:
    """Upserts, deletes, duplicates, late external versions, fewer chunks; batches read twice, as after a crash."""
    chunking = {"mode": "sentences", "max_tokens": 16, "overlap_tokens": 0}
    collection = a_collection(embedding={"encoder": "hashing", "fields": ["title"], "chunking": chunking})
    p = Pipeline(collection)
    for stage in (p.encode, p.late._stage):
        stage._tokenizers[p.embedder.space.fingerprint] = lambda text: [(0, len(text))] * 14
    expected: dict[str, tuple[int, bool, int]] = {}
    for document_id, version, operation, sentences in history:
        title = " ".join(f"{document_id} sentence {i}." for i in range(sentences))
        change = a_change(
            document_id, version=version, delete=operation == "delete", collection=collection, title=title
        )
        position = publish_change(p.log, change)
        resolved = version or BASE + position.offset
        rank = (resolved, operation == "delete")
        if rank >= expected.get(document_id, (0, False, 0))[:2]:
            expected[document_id] = (*rank, 0 if operation == "delete" else sentences)
    p.drain()
    rng = np.random.default_rng(seed)
    for group, topic in (("encode", CHANGES.name), ("index", VECTORS.name)):
        for partition in range(p.log.partitions):
            end = p.log.committed.get((group, topic, partition), 0)
            if end and replays:
                p.log.committed[(group, topic, partition)] = int(rng.integers(0, end))
    p.index.reset()
    p.drain()
    want = {i: (v, set(range(n))) for i, (v, deleted, n) in expected.items() if not deleted}
    assert p.stored() == want
    assert {r.position for r in p.receipts()} == {
        codec.decode_vector(r.value).position for r in p.log.all(VECTORS.name)
    }


def test_an_invalid_event_in_the_log_is_set_aside() -> None:
    with pytest.raises(InvalidRecord, match="undecodable"):
        decode_change(Incoming("changes", 0, 0, b"", b"\xff\xff"))


texts = st.text(alphabet=st.sampled_from("ab/%2F\x00\x01\x02é"), max_size=6)


@given(texts, texts, texts, texts)
@settings(max_examples=1_000, deadline=None)
def test_keys_tell_any_two_documents_apart(tenant: str, document: str, other_tenant: str, other: str) -> None:
    same = (tenant, document) == (other_tenant, other)
    assert (record_key("u1", tenant, document) == record_key("u1", other_tenant, other)) is same
    assert (document_key(tenant, document) == document_key(other_tenant, other)) is same


def test_keys_that_were_written_before_are_still_those() -> None:
    """Of every tenant without a slash, a percent sign or a control character; ids may hold anything."""
    assert record_key("u1", "acme", "a/b%2F") == b"u1/acme/a/b%2F"
    assert record_key("u1", "", "https://x/y") == b"u1//https://x/y"
    assert document_key("acme", "a/b") == hashlib.blake2b(b"acme\x00a/b", digest_size=16).hexdigest()
