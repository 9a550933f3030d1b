"""Searching several generations as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from driftline.adapters.memory import MemoryEmbedder, MemoryStore
from driftline.core.collections import Collection
from driftline.core.control import ControlView, collection_record, compensation_records, space_record
from driftline.core.errors import InvalidRecord, InvalidRequest, Unavailable
from driftline.core.keys import query_embedding
from driftline.core.ports import EmbedAnswer
from driftline.core.records import Carry, Generation, Leg, Space, document_key
from driftline.core.store import StoredDocument, WritePlan
from driftline.drift.affine import ScaledProcrustes
from driftline.drift.base import Pairs
from driftline.drift.calibration import Calibration
from driftline.drift.selection import mixed
from driftline.drift.stored import Compensation, identity_of, read
from driftline.retrieval.embeddings import CachedEncoder, Kept
from driftline.retrieval.engine import Engine
from driftline.retrieval.inputs import Text, Vector
from driftline.retrieval.leg_search import Wanted
from driftline.retrieval.legs import Query
from tests.build import a_collection, a_view

OLD, NEW = MemoryEmbedder(48, "old"), MemoryEmbedder(64, "new")
_TEXT = "red blue green shoes hats coats wool silk cotton big small cheap dear warm cold light heavy long"
WORDS = _TEXT.split()
TITLES = [f"{a} {b} {c}" for a in WORDS[:6] for b in WORDS[6:12] for c in WORDS[12:]]
SCALE = Calibration((0.0, 1.0), (0.0, 0.5))


def compensation(old_weight: float = 0.0) -> bytes:
    texts = [*TITLES, *WORDS]
    pairs = Pairs(np.stack([NEW._one(t) for t in texts]), np.stack([OLD._one(t) for t in texts]))
    fitted = ScaledProcrustes.fit(pairs)
    return Compensation(fitted, NEW.space.fingerprint, OLD.space.fingerprint, SCALE, old_weight, 0.3).to_bytes()


class World:
    """Generation 1 of the old space holds every title, generation 2 of the new one some."""

    def __init__(self, *carries: Carry, backfilled: int = 0, old_weight: float = 0.0) -> None:
        content = compensation(old_weight)
        self.id = identity_of(content)
        base = a_collection(OLD.space)
        second = Generation(2, "default", NEW.space.fingerprint, "test_things_u1_2")
        legs = tuple(
            Leg(2 - i, carry, "" if i == 0 and carry is Carry.OWN else self.id) for i, carry in enumerate(carries)
        )
        self.collection = replace(base, generations=(*base.generations, second), legs=legs)
        self.view = a_view(self.collection, space=OLD.space)
        self.view.apply(space_record(NEW.space).value)
        for record in compensation_records(self.id, content):
            self.view.apply(record.value)
        self.store = MemoryStore()
        self.encoded: list[str] = []
        self.refused = ""
        cache = Kept(0)
        self.queries = CachedEncoder(self.ask, cache, "query", query_embedding, cache.put)
        self.put(1, TITLES)
        self.put(2, TITLES[:backfilled])

    def put(self, generation: int, titles: list[str], version: int = 1) -> None:
        embedder = OLD if generation == 1 else NEW
        target = self.collection.target(self.collection.primary.generation(generation), embedder.space)
        self.store.ensure(target)
        documents = [
            StoredDocument(document_key("", t), "", t, version, b"{}", {}, (t,), embedder._one(t)[None]) for t in titles
        ]
        self.store.apply(target, WritePlan(tuple(documents)), lambda: 1.0)

    def ask(self, space: Space, requests: Sequence[Sequence[str]]) -> list[EmbedAnswer]:
        self.encoded.append(space.encoder)
        if space.encoder == self.refused:
            return [InvalidRecord("encode_failed", "refused", suspect=True) for _ in requests]
        embedder = OLD if space.encoder == "old" else NEW
        return embedder.embed(space.encoder, space.fingerprint, requests)

    def find(
        self,
        query: str | Query,
        needed: int = 10,
        legs: tuple[Leg, ...] | None = None,
        to_rerank: bool = False,
    ) -> list[tuple[str, float]]:
        asked = Text(query) if isinstance(query, str) else query
        wanted = Wanted(needed, to_rerank=to_rerank)
        engine = Engine(self.view, self.store, self.queries)
        found = engine.search(self.collection.primary, legs or self.collection.primary.routes, asked, wanted)
        self.legs = found.legs
        return [(hit.id, hit.score) for hit in found.hits[:needed]]


def test_what_the_new_model_will_rank_is_looked_for_with_both_models() -> None:
    w = World(Carry.OWN, Carry.OWN, old_weight=1.0)
    kept = read(w.view.compensation(w.id))
    own, newest = OLD._one(TITLES[7])[None], NEW._one(TITLES[7])[None]
    query = mixed(own, kept.compensator.apply(newest), kept.finder_weight)
    expected = {title: SCALE.apply(float(query[0] @ OLD._one(title))) for title in TITLES}
    for title, score in w.find(TITLES[7], to_rerank=True):
        assert score == pytest.approx(float(expected[title]), abs=1e-4)
    for title, score in w.find(TITLES[7]):
        assert score == pytest.approx(float(SCALE.apply(float(own[0] @ OLD._one(title)))), abs=1e-4)


def test_the_status_quo_needs_only_the_old_encoder() -> None:
    w = World()
    found = w.find(TITLES[7], legs=(Leg(1),))
    assert found[0] == (TITLES[7], pytest.approx(1.0))
    assert w.encoded == ["old"]


def test_a_mapped_query_needs_only_the_new_encoder() -> None:
    w = World()
    found = w.find(TITLES[7], legs=(Leg(1, Carry.MAPPED, w.id),))
    assert found[0][0] == TITLES[7]
    assert w.encoded == ["new"]


def test_an_ensemble_asks_both_encoders() -> None:
    w = World(old_weight=0.5)
    assert w.find(TITLES[7], legs=(Leg(1, Carry.ENSEMBLE, w.id),))[0][0] == TITLES[7]
    assert sorted(w.encoded) == ["new", "old"]


def test_a_vector_of_the_newest_space_is_carried_and_nothing_is_encoded() -> None:
    w = World(Carry.OWN, Carry.OWN, backfilled=10)
    for title in (TITLES[3], TITLES[70]):
        assert w.find(Vector(NEW._one(title)[None], NEW.space.fingerprint))[0][0] == title
    assert w.encoded == []


def test_a_text_that_an_encoder_refuses_is_the_callers_fault() -> None:
    w = World(Carry.OWN, Carry.ENSEMBLE)
    w.refused = "new"
    with pytest.raises(InvalidRequest) as caught:
        w.find("red")
    assert (caught.value.code, caught.value.field) == ("encode_failed", "text")


def test_what_the_cache_said_of_a_query_is_not_asked_again() -> None:
    w = World()
    held = {OLD.space.fingerprint: OLD._one(TITLES[7]).tobytes()}
    assert w.find(Text("anything", held), legs=(Leg(1),))[0][0] == TITLES[7]
    assert w.encoded == []


@pytest.mark.parametrize("carry", [Carry.OWN, Carry.MAPPED, Carry.ENSEMBLE])
@pytest.mark.parametrize("backfilled", [0, 1, 100, len(TITLES) - 1, len(TITLES)])
def test_every_document_is_found_once_at_every_moment_of_a_backfill(carry: Carry, backfilled: int) -> None:
    w = World(Carry.OWN, carry, backfilled=backfilled, old_weight=0.5)
    for text in (TITLES[0], TITLES[-1], TITLES[50]):
        found = w.find(text, needed=len(TITLES))
        assert len(found) == len({i for i, _ in found}) == len(TITLES)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
    assert sum(leg.merged for leg in w.legs) == len(TITLES)
    assert w.legs[0].merged == backfilled


def test_what_the_new_generation_holds_is_not_found_by_its_old_vectors() -> None:
    """Its rank in the new space counts, even where that is too low to be found there."""
    w = World(Carry.OWN, Carry.OWN, backfilled=100)
    new_only = {i for i, _ in w.find("red wool big", needed=5)}
    assert len(new_only) == 5
    merged_from_old = [leg for leg in w.legs if leg.generation == 1]
    assert merged_from_old[0].merged <= 5
    # Titles 0..99 are in both: none of them may come in with its old score, which the calibration halves.
    scores = dict(w.find("red wool big", needed=len(TITLES)))
    for title in TITLES[:100]:
        assert scores[title] == pytest.approx(float(NEW._one("red wool big") @ NEW._one(title)), abs=1e-5)


def test_the_newest_version_counts_wherever_it_is() -> None:
    w = World(Carry.OWN, Carry.OWN, backfilled=10)
    w.put(1, [TITLES[3]], version=2)
    scores = dict(w.find(TITLES[3], needed=len(TITLES)))
    assert scores[TITLES[3]] == pytest.approx(0.5), "the old generation's newer version, on the calibrated scale"


def test_a_compensation_of_other_spaces_is_refused() -> None:
    w = World(Carry.OWN, Carry.MAPPED)
    other = MemoryEmbedder(64, "third")
    w.view.apply(space_record(other.space).value)
    wrong = replace(w.collection.generations[1], space=other.space.fingerprint)
    w.collection = replace(w.collection, generations=(w.collection.generations[0], wrong))
    w.store = MemoryStore()
    with pytest.raises(Unavailable, match="maps space"):
        w.find("red")


def test_a_route_without_its_compensation_waits_for_it() -> None:
    w = World(Carry.OWN, Carry.MAPPED)
    with pytest.raises(Unavailable, match="not in the control topic yet"):
        w.find("red", legs=(Leg(2), Leg(1, Carry.MAPPED, "f" * 32)))
    with pytest.raises(Unavailable, match="has no compensation"):
        w.find("red", legs=(Leg(2), Leg(1, Carry.OWN)))


def test_the_view_puts_the_parts_of_a_compensation_together_and_forgets_them() -> None:
    content = compensation() + b"\x00" * 1_500_000
    records = compensation_records("c" * 32, content)
    assert len(records) > 2
    view = ControlView()
    for record in records[:-1]:
        view.apply(record.value)
    with pytest.raises(Unavailable):
        view.compensation("c" * 32)
    view.apply(records[-1].value)
    assert view.compensation("c" * 32) == content
    view.forget(records[0].key)
    with pytest.raises(Unavailable):
        view.compensation("c" * 32)


def test_a_collection_keeps_its_generations_and_route_through_the_control_topic() -> None:
    w = World(Carry.OWN, Carry.ENSEMBLE)
    view = ControlView()
    changed = replace(w.collection, next_generation=4, retired=(Generation(3, "default", "s", "x"),))
    view.apply(collection_record(changed).value)
    found: Collection = view.collection("things")
    assert found == changed
    assert (found.primary.complete.number, found.primary.newest.number, found.unused_number) == (1, 2, 4)
