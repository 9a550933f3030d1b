"""What a request or a record may hold is bounded where it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from driftline.adapters.milvus.filter import expression, literal
from driftline.core import codec, control_codec, limits
from driftline.core.collections import check_document, check_tenant, check_version, parse_definition
from driftline.core.control import ControlView, collection_record
from driftline.core.errors import InvalidRecord, InvalidRequest
from driftline.core.filters import matches
from driftline.core.records import Generation, Leg, LogIncarnation, NamedVectors, Operation, Position, Space
from driftline.core.values import check_id, check_value, shown
from driftline.query import request
from driftline.retrieval.filters import parse
from tests.build import a_change, a_collection, a_definition, a_vector_record, a_view


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def refusal(error: pytest.ExceptionInfo[InvalidRequest]) -> tuple[str, str]:
    return error.value.code, error.value.field


# Names, ids and tenants


@pytest.mark.parametrize("name", ["ab\n", "a\x00", "Ab", "", "a" * 64, "a b", "ä"])
def test_a_name_is_matched_as_a_whole(name: str) -> None:
    with pytest.raises(InvalidRequest):
        a_definition(name=name)
    with pytest.raises(InvalidRequest):
        a_definition(embedding={"encoder": name + "\n", "fields": ["title"]})
    with pytest.raises(InvalidRequest):
        parse_definition({"name": "x", "fields": {name + "\n": {"type": "text"}}, "embedding": {
            "encoder": "e", "fields": [name + "\n"]}})  # fmt: skip


@pytest.mark.parametrize("character", ["\x00", "\n", "\x1f", "\x7f", "\x85", "\x9f", "\u2028", "\u2029", "\ud800"])
def test_control_characters_are_refused_in_ids_and_tenants(character: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_id(f"a{character}b")
    assert refusal(caught) == ("invalid_id", "id")
    with pytest.raises(InvalidRequest) as caught:
        check_tenant(a_definition(tenancy=True), f"a{character}b")
    assert refusal(caught) == ("invalid_tenant", "tenant")


def test_ids_and_tenants_of_every_script_are_taken() -> None:
    assert check_id("a/b:ä\u4e2d\U0001f600 \u200d") == "a/b:ä\u4e2d\U0001f600 \u200d"
    assert check_tenant(a_definition(tenancy=True), "ä" * 64) == "ä" * 64
    with pytest.raises(InvalidRequest):
        check_tenant(a_definition(tenancy=True), "ä" * 65)


# Definitions


@pytest.mark.parametrize(
    "change, field",
    [
        ({"description": "x" * (limits.MAX_DESCRIPTION + 1)}, "description"),
        ({"fields": {f"f{i}": {"type": "text"} for i in range(limits.MAX_FIELDS + 1)}}, "fields"),
        ({"embedding": {"encoder": "e", "fields": ["title"] * (limits.MAX_FIELDS + 1)}}, "embedding.fields"),
        ({"x" * 10_000: 1}, "x" * 200),
        ({"embedding": {"encoder": "e" * 129, "fields": ["title"]}}, "embedding"),
    ],
)
def test_a_definition_is_bounded(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        a_definition(**change)
    assert refusal(caught) == ("invalid_definition", field)
    assert len(caught.value.detail) < 1_000


@pytest.mark.parametrize("raw", [None, 1, "x", [], [[]]])
def test_a_definition_that_is_no_object_is_refused(raw: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected an object"):
        parse_definition(raw)


# Documents


@pytest.mark.parametrize("field", ["title", "kind", "year", "price", "sold", "seen", "tags", "codes"])
def test_a_document_nested_deep_is_refused_by_its_type(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_document(a_definition(), {field: nested(900)})
    assert refusal(caught) == ("wrong_type", field)


@pytest.mark.parametrize(
    "field, value",
    [
        ("kind", "x" * 4_097), ("tags", ["x"] * 1_025), ("tags", ["x" * 4_097]), ("codes", [1] * 1_025),
        ("codes", [2**63]), ("year", 2**63), ("year", -(2**63)), ("year", 10**400), ("year", True),
        ("price", 10**400), ("price", float("inf")), ("seen", "x" * 1_000_000), ("seen", 5),
        ("seen", "0000-01-01"), ("seen", "10000-01-01"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_document(a_definition(), {"title": "x", field: value})
    assert refusal(caught) == ("wrong_type", field)
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    "text, microseconds",
    [
        ("1970-01-01T00:00:00.000001", 1),
        ("0001-01-01T00:00:00+23:59", -62135596800000000 - 86340 * 10**6),
        ("9999-12-31T23:59:59.999999-23:59", 253402300799999999 + 86340 * 10**6),
    ],
)
def test_dates_are_whole_microseconds_to_the_ends_of_time(text: str, microseconds: int) -> None:
    assert check_value("datetime", text, "seen") == microseconds


def test_a_value_of_any_size_and_depth_is_shown_by_its_beginning() -> None:
    for value in (nested(900), "x" * 10_000_000, list(range(1_000_000)), {"a": nested(900)}, 10**4_000):
        assert len(shown(value)) < 80


@pytest.mark.parametrize("version", [False, True, 0.0, 1.5, "1", 2**53, -1, nested(900)])
def test_a_wrong_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidRequest):
        check_version(a_definition(versions="external"), version)


# Filters and searches


@pytest.mark.parametrize(
    "raw",
    [
        {"field": "year", "eq": -(2**63)},
        {"field": "year", "eq": 2**63},
        {"field": "codes", "contains": -(2**63)},
        {"or": [{"field": "year", "in": list(range(1_024))}] * 5},
        {"or": [{"field": "kind", "in": ["x" * 4_000] * 65}]},
        {"field": nested(900), "eq": 1},
        {"field": "year", "eq": nested(900)},
        {"field": "year", "x" * 100_000: 1},
        {"x" * 100_000: 1},
        nested(900),
    ],
)
def test_a_filter_is_bounded(raw: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(a_definition(), raw)
    assert caught.value.code == "invalid_filter"
    assert len(caught.value.detail) < 300


def test_an_integer_in_a_filter_on_floats_is_written_as_a_float() -> None:
    filter_ = parse(a_definition(), {"field": "price", "eq": 18446744073709551615})
    assert filter_ is not None
    assert expression(filter_) == '(attributes["price"] == 1.8446744073709552e+19)'
    assert matches(filter_, {"price": check_value("float", 18446744073709551615, "price")})


@pytest.mark.parametrize("value", [-(2**63) + 1, 2**63 - 1, 1e22, 5e-324, -0.0, 5.0])
def test_a_literal_is_what_the_value_was(value: float) -> None:
    text = literal(value)
    assert type(value)(text) == value
    assert isinstance(value, int) or any(mark in text for mark in ".e")


@pytest.mark.parametrize(
    "body, field",
    [
        ({"text": "a", "cursor": "x" * 73}, "cursor"),
        ({"text": "a", "after": "1" * 65}, "after"),
        ({"text": "a", "tenant": "x" * 1_025}, "tenant"),
        ({"document": "x" * 1_025}, "document"),
        ({"text": "a", "output_fields": ["title"] * 257}, "output_fields"),
        ({"text": "x" * 20_001}, "text"),
        ({"vector": {"values": [1] * 32_769}}, "vector.values"),
        ({"vector": {"values": ["x"] * 32_768}}, "vector.values[0].float"),
        ({"vector": {"values": [1e16]}}, "vector.values"),
        ({"vector": {"values": [float("nan")]}}, "vector.values"),
        ({"text": "a", "x" * 100_000: 1}, "x" * 200),
    ],
)
def test_a_search_is_bounded(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request.parse(body)
    assert caught.value.field == field


@pytest.mark.parametrize("cursor", ["", "a", "ä", "YQ", "====", "x" * 64])
def test_a_cursor_that_was_never_given_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request.place_of(request.parse({"text": "a", "cursor": cursor}))
    assert caught.value.code == "invalid_cursor"


def test_a_cursor_goes_back_and_forth() -> None:
    body = request.parse({"text": "a", "limit": 5})
    assert request.place_of(
        request.parse({"text": "a", "limit": 5, "cursor": request.make_cursor(body, 9_995, 100)})
    ) == (9_995, 100)


# Records of the pipeline's own topics


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 513}, {"tenant": "x" * 129}, {"fields_json": b" " * 60_001}, {"version": -1},
        {"collection_uid": "x" * 256}, {"source": "x" * 301}, {"backfill_generation": -1},
        {"origin": Position(-1, 0)}, {"origin": Position(0, -1)}, {"collection": "x" * 256},
    ],
)  # fmt: skip
def test_a_change_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    value = codec.encode_change(replace(a_change(), **change))
    with pytest.raises(InvalidRecord) as caught:
        codec.decode_change(value)
    assert caught.value.reason == "out_of_bounds"


def _vectors(chunks: int, dimension: int, **changes: Any) -> NamedVectors:
    return replace(NamedVectors("default", "s", 1, np.zeros((chunks, dimension), dtype=np.float32)), **changes)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 513}, {"version": -1}, {"position": Position(-1, 0)}, {"fields_json": b" " * 60_001},
        {"chunks": ("x",) * 1_001}, {"chunks": ("x" * 65_001,)}, {"vectors": (_vectors(1, 32_769),)},
        {"vectors": (_vectors(1, 4, generation=0),)}, {"vectors": (_vectors(1, 4, space="x" * 256),)},
        {"vectors": (_vectors(1, 4),) * 65},
    ],
)  # fmt: skip
def test_a_vector_record_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    value = codec.encode_vector(replace(a_vector_record(), **change))
    with pytest.raises(InvalidRecord) as caught:
        codec.decode_vector(value)
    assert caught.value.reason == "out_of_bounds"


@pytest.mark.parametrize("fields_json", [b"[" * 1_000 + b"]" * 1_000, b"[]", b"{", b'{"title": ' + b"[" * 100])
def test_fields_that_are_no_object_are_refused_by_the_stages(fields_json: bytes) -> None:
    from driftline.core.collections import fields_of

    with pytest.raises(InvalidRecord) as caught:
        fields_of(fields_json)
    assert caught.value.reason == "invalid_json"


# The control topic


def _applied(value: bytes) -> ControlView:
    view = a_view()
    view.apply(value)
    return view


@pytest.mark.parametrize(
    "definition_json",
    ["", "[]", "{}", "[" * 1_000, '{"name": "things"}', "\x00", '{"name": "other", "fields": {"t": {"type": "text"}}, '
     '"embedding": {"encoder": "e", "fields": ["t"]}}'],
)  # fmt: skip
def test_a_collection_whose_definition_is_none_is_left_out(definition_json: str) -> None:
    good = a_collection()
    parts = control_codec.CollectionParts("things", "u1", definition_json, good.generations, 0, False)
    assert _applied(control_codec.encode_collection(parts)).collections() == []


@pytest.mark.parametrize(
    "change",
    [
        {"generations": ()},
        {"generations": (Generation(1, "default", "s", "a"), Generation(1, "default", "s", "b"))},
        {"generations": (Generation(0, "default", "s", "a"),)},
        {"generations": (Generation(1, "default", "s", "x" * 256),)},
        {"generations": (Generation(1, "default", "", "a"),)},
        {"legs": (Leg(2),)},
        {"uid": ""},
        {"next_generation": -1},
    ],
)
def test_a_collection_that_searches_could_not_be_answered_from_is_left_out(change: dict[str, Any]) -> None:
    record = collection_record(replace(a_collection(), **change))
    assert record.value is not None
    assert _applied(record.value).collections() == []


@pytest.mark.parametrize("change", [{"dimension": 0}, {"dimension": 32_769}, {"max_tokens": 0}, {"max_batch": 0}])
def test_a_space_that_nothing_could_be_encoded_for_is_left_out(change: dict[str, Any]) -> None:
    space = Space("f", "e", "1", 8, True, "mean", "", "", 128, 4)
    with pytest.raises(InvalidRecord):
        control_codec.decode_control(control_codec.encode_space(replace(space, **change)))


@pytest.mark.parametrize("base", [-1, 2**62 + 1])
def test_a_log_whose_versions_would_overflow_is_left_out(base: int) -> None:
    value = control_codec.encode_log(LogIncarnation("t", "i", base))
    with pytest.raises(InvalidRecord):
        control_codec.decode_control(value)


def test_a_record_without_an_operation_is_refused() -> None:
    value = codec.encode_change(replace(a_change(), operation=0))
    with pytest.raises(InvalidRecord, match="operation"):
        codec.decode_change(value)
    assert codec.decode_change(codec.encode_change(a_change(delete=True))).operation is Operation.DELETE


def test_fields_survive_at_their_largest() -> None:
    fields = {"title": "x" * (limits.MAX_FIELDS_BYTES - len(b'{"title":""}'))}
    assert len(check_document(a_definition(), fields)) == limits.MAX_FIELDS_BYTES
    assert orjson.loads(codec.decode_change(codec.encode_change(a_change(**fields))).fields_json) == fields
