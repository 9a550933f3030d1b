"""Changing the definition of a live collection, and the model of one index of several."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from driftline.core.collections import CollectionDefinition, parse_definition
from driftline.core.errors import Conflict, InvalidRequest, NotFound
from driftline.core.records import Leg
from driftline.core.topics import CHANGES
from driftline.encode.stage import decode as decode_change
from driftline.index.housekeeping import Housekeeper
from driftline.upgrade.changes import changes
from driftline.upgrade.quality import judged_plan
from driftline.upgrade.state import read_state
from tests.build import a_change, a_collection, a_definition, publish_change
from tests.unit.upgrading import TITLES, World

DENSE = {"encoder": "hashing", "fields": ["title", "body"]}
WORDS = {"analyzer": "english", "fields": ["body"]}
KINDS = {"analyzer": {"language": "none"}, "fields": ["kind"]}
HYBRID = [{"search": {"of": [{"index": "dense"}, {"index": "words"}]}}]


@pytest.fixture
def world() -> Iterator[World]:
    made = World(definition={"indexes": {"dense": DENSE, "words": WORDS}})
    for i, title in enumerate(TITLES[:40]):
        publish_change(made.log, a_change(title, title=title, body=f"words of {title}", kind=f"k{i % 3}"))
    made.drain()
    yield made
    made.close()


def to(world: World, **changed: Any) -> CollectionDefinition:
    return parse_definition(world.now.definition.as_given() | changed)


def add_kinds(world: World) -> None:
    indexes = world.now.definition.as_given()["indexes"] | {"kinds": KINDS}
    told = world.controller.apply("things", to(world, indexes=indexes))
    assert told.told == ("index kinds is being filled",)


def held(world: World, index: str) -> dict[str, int]:
    generation = world.now.index(index).complete
    target = world.now.target(generation, world.view.space(generation.space))
    return {i: version for _, i, version, chunk in world.store.scan(target) if chunk == 0}


def test_an_index_is_added_and_searched_once_it_holds_everything(world: World) -> None:
    add_kinds(world)
    for _ in range(5):
        world.controller.tick()
    assert set(world.now.definition.named_indexes) == {"dense", "words", "kinds"}
    assert [index.name for index in world.now.finished] == ["dense", "words"]
    world.run_until("finished")
    assert [index.name for index in world.now.finished] == ["dense", "words", "kinds"]
    dense = held(world, "dense")
    assert held(world, "kinds") == {title: dense[title] for title in TITLES[:40]}
    assert world.state.progress.refused == 0, "a document with nothing for the index is no refusal"


def test_changes_while_an_index_is_filled_win_over_its_backfill(world: World) -> None:
    add_kinds(world)
    rng = random.Random(3)
    expected = dict.fromkeys(TITLES[:40], True)
    for turn in range(30):
        world.controller.tick()
        for title in rng.sample(TITLES[:60], 4):
            if rng.random() < 0.4:
                publish_change(world.log, a_change(title, delete=True))
                expected.pop(title, None)
            else:
                kind = {"kind": "k"} if rng.random() < 0.7 else {}
                publish_change(world.log, a_change(title, title=f"{title} again {turn}", **kind))
                expected.pop(title, None)
                if kind:
                    expected[title] = True
        if turn % 2:
            world._run(CHANGES.name, "encode", world.encode, decode_change)
        world.backfill()
    world.drain()
    world.run_until("finished")
    assert held(world, "kinds").keys() == expected.keys()
    dense = held(world, "dense")
    assert held(world, "kinds") == {title: dense[title] for title in expected}


def test_documents_that_only_the_second_index_has_are_filled_in_too(world: World) -> None:
    indexes = {"titles": {"analyzer": "english", "fields": ["title"]}, "kinds": KINDS}
    other = World([], {"indexes": indexes})
    publish_change(other.log, a_change("a", kind="only a kind"))
    publish_change(other.log, a_change("b", title="only a title"))
    other.drain()
    both = {"both": {"analyzer": "english", "fields": ["title", "kind"]}}
    other.controller.apply("things", to(other, indexes=other.now.definition.as_given()["indexes"] | both))
    other.run_until("finished")
    assert held(other, "both").keys() == {"a", "b"}
    other.close()


def test_going_back_takes_an_index_that_was_being_filled_out_again(world: World) -> None:
    add_kinds(world)
    world.controller.tick()
    world.controller.tick()
    world.controller.rollback("things")
    assert set(world.now.definition.named_indexes) == {"dense", "words"}
    assert world.now.unfinished == ()
    retired = [g for g in world.now.retired if g.vector_name == "kinds"]
    Housekeeper(world.view, world.store, 8).retire(world.now)
    assert all(world.store.count(world.now.target(g, world.view.space(g.space))) is None for g in retired)


def test_one_index_is_added_at_a_time(world: World) -> None:
    add_kinds(world)
    more = world.now.definition.as_given()["indexes"] | {"kinds": KINDS, "more": KINDS}
    with pytest.raises(Conflict, match="'kinds' is being filled"):
        world.controller.apply("things", to(world, indexes=more))
    with pytest.raises(Conflict, match="is being filled"):
        world.controller.start("things", "better", {})
    world.run_until("finished")
    world.controller.apply("things", to(world, indexes=more))


def test_an_index_whose_encoder_is_unknown_changes_nothing(world: World) -> None:
    before = world.now
    indexes = before.definition.as_given()["indexes"] | {"more": {"encoder": "nope", "fields": ["title"]}}
    with pytest.raises(InvalidRequest) as caught:
        world.controller.apply("things", to(world, indexes=indexes, description="not this either"))
    assert caught.value.field == "indexes.more.encoder"
    assert world.now == before
    with pytest.raises(NotFound):
        world.controller.state("things")


def test_an_index_is_removed_with_its_store(world: World) -> None:
    told = world.controller.apply("things", to(world, indexes={"dense": DENSE}))
    assert told.told == ("index words removed",)
    assert [index.name for index in world.now.indexes] == ["dense"]
    assert [g.vector_name for g in world.now.retired] == ["words"]
    publish_change(world.log, a_change("a", title="t", body="b"))
    world.drain()
    assert "a" in held(world, "dense")


def test_fields_profiles_and_the_description_change_at_once(world: World) -> None:
    fields = world.now.definition.as_given()["fields"] | {"extra_note": {"type": "text"}}
    definition = to(world, fields=fields, profiles={"default": HYBRID}, description="more")
    told = world.controller.apply("things", definition)
    assert told.told == ("description changed", "field extra_note added", "profile default added")
    assert world.now.definition == definition
    assert world.controller.apply("things", definition).told == ()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"metric": "ip"}, "metric"),
        ({"tenancy": True}, "tenancy"),
        ({"versions": "external"}, "versions"),
        ({"indexes": {"dense": DENSE | {"fields": ["title"]}, "words": WORDS}}, "indexes.dense"),
        ({"indexes": {"dense": DENSE | {"encoder": "better"}, "words": WORDS}}, "indexes.dense"),
        ({"indexes": {"other": DENSE}}, "indexes"),
        ({"indexes": {"dense": DENSE, "words": WORDS, "a": KINDS, "b": KINDS}}, "indexes.b"),
        (
            {"profiles": {"default": [{"search": {"of": [{"index": "nope"}]}}]}},
            "profiles.default[0].search.of[0].index",
        ),
    ],
)
def test_what_cannot_be_changed_is_refused_with_its_place(changed: dict[str, Any], field: str) -> None:
    collection = a_collection(indexes={"dense": DENSE, "words": WORDS})
    raw = collection.definition.as_given() | changed
    with pytest.raises(InvalidRequest) as caught:
        changes(collection, parse_definition(raw))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("title", {"type": "keyword"}),
        ("kind", {"type": "keyword"}),
        ("title", {"type": "text", "required": True}),
        ("fresh", {"type": "text", "required": True}),
    ],
)
def test_fields_that_stored_documents_contradict_are_refused(name: str, field: dict[str, Any]) -> None:
    collection = a_collection(indexes={"dense": DENSE})
    given = collection.definition.as_given()
    with pytest.raises(InvalidRequest) as caught:
        changes(collection, parse_definition(given | {"fields": given["fields"] | {name: field}}))
    assert caught.value.field.startswith(f"fields.{name}")
    assert caught.value.status == 409


def test_a_definition_by_embedding_is_one_of_an_index_named_default() -> None:
    collection = a_collection()
    given = collection.definition.as_given()
    embedding = given.pop("embedding")
    same = parse_definition(given | {"indexes": {"default": embedding}})
    assert changes(collection, same).told == ()
    assert a_definition().named_indexes == same.named_indexes


# The model of one index


def test_the_model_of_one_index_changes_and_the_others_stay(world: World) -> None:
    world.controller.apply("things", to(world, profiles={"default": HYBRID}))
    words = world.now.index("words")
    world.controller.start("things", "better", {"index": "dense"})
    routes = []

    def note() -> None:
        routes.append((world.now.index("dense").routes, world.now.index("words").routes))

    world.run_until("complete", note)
    assert {other for _, other in routes} == {words.routes}
    assert len({own for own, _ in routes}) > 1
    newest = max(g.number for g in world.now.index("dense").generations)
    assert world.versions(newest) == held(world, "dense")
    world.controller.finish("things", force=True)
    assert world.now.index("dense").routes == (Leg(newest),)
    assert world.now.index("words").generations == words.generations


def test_what_is_judged_is_what_users_are_served(world: World) -> None:
    assert judged_plan(world.now.index("dense"))[0].of[0].index == "dense"
    world.controller.apply("things", to(world, profiles={"default": HYBRID}))
    plan = judged_plan(world.now.index("dense"))
    assert [part.index for part in plan[0].of] == ["dense", "words"]
    world.controller.apply("things", to(world, profiles={"default": [{"search": {"of": [{"index": "words"}]}}]}))
    assert judged_plan(world.now.index("dense"))[0].of[0].index == "dense", "the profile has no part of it"


def test_words_have_no_model_to_change(world: World) -> None:
    with pytest.raises(InvalidRequest, match="has an analyzer"):
        world.controller.start("things", "better", {"index": "words"})
    with pytest.raises(NotFound, match="no index"):
        world.controller.start("things", "better", {"index": "nope"})


def test_a_state_of_before_there_were_indexes_is_of_the_one_named_default() -> None:
    world = World()
    world.controller.start("things", "better", {})
    record = world.state.record()
    old = record.state_json.replace('"index":"default",', "").replace('"added":null,', "")
    assert old != record.state_json
    assert read_state(type(record)(record.collection, record.collection_uid, old)) == world.state
    world.close()
