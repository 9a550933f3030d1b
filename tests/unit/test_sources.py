from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftline.core import codec
from driftline.core.control import log_record
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.records import ChangeEvent, Incoming, LogIncarnation, Operation
from driftline.core.runner import Refused
from driftline.ingest.sources import Source, SourceStage, read_sources, source_log
from tests.build import BASE, a_collection, a_view


def a_stage(base: int = BASE, **source: Any) -> SourceStage:
    view = a_view(a_collection())
    view.apply(log_record(LogIncarnation(source_log("orders"), "t", base)).value)
    return SourceStage([Source.model_validate({"topic": "orders", "collection": "things"} | source)], view)


def a_record(value: bytes | None, key: bytes = b"k1", offset: int = 5) -> Incoming:
    return Incoming("orders", 0, offset, key, value)


def event_of(stage: SourceStage, record: Incoming) -> ChangeEvent:
    (result,) = stage.process([stage.decode(record)]).results
    assert isinstance(result, tuple), result
    return codec.decode_change(result[0].value)


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


def test_an_external_version_is_taken_from_the_record() -> None:
    stage = a_stage(version="rev", fields={"title": "t"})
    assert event_of(stage, a_record(b'{"t": "x", "rev": 42}')).version == 42


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
    with pytest.raises(ValueError, match=expected):
        read_sources(file)
