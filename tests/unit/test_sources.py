from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from driftline.core import codec
from driftline.core.control import log_record
from driftline.core.errors import ConfigError, InvalidRecord, Unavailable
from driftline.core.records import ChangeEvent, Incoming, LogIncarnation, Operation
from driftline.core.stage import Refused, Result
from driftline.ingest.sources import Source, SourceStage, read_sources, source_log
from tests.build import BASE, a_collection, a_view


def a_stage(base: int = BASE, versions: str = "assigned", **source: Any) -> SourceStage:
    view = a_view(a_collection(versions=versions))
    view.apply(log_record(LogIncarnation(source_log("orders"), "t", base)).value)
    return SourceStage(Source.model_validate({"topic": "orders", "collection": "things"} | source), view)


def a_record(
    value: bytes | None, key: bytes = b"k1", offset: int = 5, headers: tuple[tuple[str, bytes], ...] = ()
) -> Incoming:
    return Incoming("orders", 0, offset, key, value, headers)


def result_of(stage: SourceStage, record: Incoming) -> Result:
    (result,) = stage.process([stage.decode(record)]).results
    return result


def event_of(stage: SourceStage, record: Incoming) -> ChangeEvent:
    result = result_of(stage, record)
    assert isinstance(result, tuple), result
    return codec.decode_change(result[0].value)


def reason_of(stage: SourceStage, record: Incoming) -> str:
    result = result_of(stage, record)
    assert isinstance(result, Refused), result
    return result.error.reason


def test_a_plain_record_becomes_an_upsert_with_its_offset_as_version() -> None:
    event = event_of(a_stage(fields={"title": "a.b"}), a_record(b'{"a": {"b": "hello"}, "c": 1}'))
    assert (event.id, event.fields_json, event.version) == ("k1", b'{"title":"hello"}', BASE + 5)
    assert event.source == "kafka:orders"


def test_a_recreated_topic_outranks_its_predecessor() -> None:
    old = event_of(a_stage(BASE), a_record(b'{"title": "x"}', offset=900_000))
    new = event_of(a_stage(BASE + 60_000_000), a_record(b'{"title": "x"}', offset=0))
    assert new.version > old.version


def test_a_null_value_is_a_delete() -> None:
    assert event_of(a_stage(), a_record(None)).operation is Operation.DELETE


@pytest.mark.parametrize("wrap", ['{"payload": %s}', "%s"])
def test_debezium_creates_updates_and_deletes(wrap: str) -> None:
    stage = a_stage(format="debezium", id="$key.pk", fields={"title": "name"})
    row = wrap % '{"op": "u", "before": null, "after": {"pk": 7, "name": "x"}}'
    event = event_of(stage, a_record(row.encode(), key=b'{"payload": {"pk": 7}}'))
    assert (event.id, event.operation) == ("7", Operation.UPSERT)
    gone = wrap % '{"op": "d", "before": {"pk": 7}, "after": null}'
    assert event_of(stage, a_record(gone.encode(), key=b'{"pk": 7}')).operation is Operation.DELETE


@pytest.mark.parametrize("path, value", [("rev", 42), ("rev", "42"), ("$key.rev", 7), ("$header.rev", 9)])
def test_an_external_version_is_taken_from_the_record(path: str, value: object) -> None:
    stage = a_stage(versions="external", version=path, id="$key.pk", fields={"title": "t"})
    record = a_record(orjson.dumps({"t": "x", "rev": value}), b'{"pk": 1, "rev": 7}', headers=(("rev", b"9"),))
    assert event_of(stage, record).version == int(str(value))


def test_a_delete_brings_its_version_as_an_upsert_does() -> None:
    """Else it would get one from the position, which outranks every external one: what is written after it would stay
    deleted for as long as its tombstone is remembered."""
    stage = a_stage(versions="external", version="rev", format="debezium", id="$key.pk", fields={"title": "name"})
    gone = {"op": "d", "before": {"pk": 7, "rev": 6}, "after": None}
    event = event_of(stage, a_record(orjson.dumps(gone), b'{"pk": 7}'))
    assert (event.operation, event.version) == (Operation.DELETE, 6)
    # The null value that follows it says nothing new.
    assert result_of(stage, a_record(None, b'{"pk": 7}')) == ()


def test_a_position_in_the_database_log_is_a_version_too() -> None:
    stage = a_stage(versions="external", version="$source.lsn", format="debezium", id="pk", fields={"title": "name"})
    made = {"op": "c", "after": {"pk": 7, "name": "x"}, "source": {"lsn": 33_000_001}}
    gone = {"op": "d", "before": {"pk": 7}, "source": {"lsn": 33_000_002}}
    assert event_of(stage, a_record(orjson.dumps(made))).version == 33_000_001
    assert event_of(stage, a_record(orjson.dumps(gone))).version == 33_000_002


@pytest.mark.parametrize("value", [None, b'{"title": "x"}', b'{"title": "x", "rev": null}'])
def test_a_change_without_a_version_is_refused_where_versions_are_external(value: bytes | None) -> None:
    assert reason_of(a_stage(versions="external", version="rev"), a_record(value)) == "version_required"


@pytest.mark.parametrize("rev", [0, -1, 2**53, 1.5, True, "1.5", "x", "٣", [1]])
def test_a_version_out_of_range_is_refused(rev: object) -> None:
    stage = a_stage(versions="external", version="rev", fields={"title": "t"})
    expected = ("invalid_version", "version_required")
    assert reason_of(stage, a_record(orjson.dumps({"t": "x", "rev": rev}))) in expected


@pytest.mark.parametrize("versions, source", [("external", {}), ("assigned", {"version": "rev"})])
def test_a_source_that_does_not_fit_its_collection_waits_for_the_mend(versions: str, source: dict[str, str]) -> None:
    stage = a_stage(versions=versions, **source)
    with pytest.raises(Unavailable, match=f"has versions: {versions}"):
        stage.process([stage.decode(a_record(b'{"title": "x", "rev": 3}'))])


@pytest.mark.parametrize(
    "envelope", [{"op": "u", "before": {"pk": 7}}, {"op": "u", "after": None}, {"op": "c"}, {"op": "d", "before": 3}]
)
def test_an_envelope_that_lacks_its_row_is_refused_and_deletes_nothing(envelope: dict[str, object]) -> None:
    stage = a_stage(format="debezium", id="$key.pk", fields={"title": "name"})
    with pytest.raises(InvalidRecord, match="not_debezium"):
        stage.decode(a_record(orjson.dumps(envelope), b'{"pk": 7}'))


def test_a_key_that_is_no_json_is_no_matter_where_it_is_not_read() -> None:
    assert event_of(a_stage(id="pk", fields={"title": "t"}), a_record(b'{"pk": 1, "t": "x"}', b"plain")).id == "1"


@pytest.mark.parametrize("value", [b"{broken", b"\xff", b"[1]"])
def test_a_record_that_is_no_object_is_refused(value: bytes) -> None:
    stage = a_stage()
    with pytest.raises(InvalidRecord):
        stage.decode(a_record(value))


def test_a_document_that_does_not_fit_is_refused_alone() -> None:
    stage = a_stage()
    records = [a_record(b'{"title": 3}'), a_record(b'{"title": "fine"}')]
    first, second = stage.process([stage.decode(r) for r in records]).results
    assert isinstance(first, Refused)
    assert first.error.reason == "wrong_type"
    assert isinstance(second, tuple)


def test_records_wait_for_their_collection() -> None:
    stage = a_stage(collection="not_yet")
    with pytest.raises(Unavailable, match="not_yet"):
        stage.process([stage.decode(a_record(b'{"title": "x"}'))])


@pytest.mark.parametrize(
    "content, expected",
    [
        ("[]", "sources"),
        ("sources: [{topic: x}]", "collection"),
        ("sources: [{topic: x, collection: y, color: red}]", "color"),
    ],
)
def test_a_wrong_sources_file_says_where(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=expected):
        read_sources(file)
