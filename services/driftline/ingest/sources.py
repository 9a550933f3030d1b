"""Sources: a user's own topic mapped onto change events.

A source's event carries the position in the user's log as its version, so redelivery after a crash changes
nothing; a topic that was deleted and created again gets a higher base, so its new events never look old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftline.core.collections import check_version
from driftline.core.control import ControlView
from driftline.core.errors import InvalidRecord, InvalidRequest, NotFound, Unavailable
from driftline.core.records import ChangeEvent, Clock, Incoming, now_us
from driftline.core.runner import Processed, Refused, Result
from driftline.ingest import validate
from driftline.ingest.accept import outgoing


class Source(BaseModel):
    """One topic to read. `fields` maps a document's field to a path in the record; left out: the whole value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = Field(min_length=1, description="the user's topic, by its full name")
    collection: str
    format: Literal["json", "debezium"] = "json"
    id: str = Field("$key", description="$key, $key.PATH, or a path in the value")
    tenant: str | None = Field(None, description="a path in the value")
    version: str | None = Field(None, description="a path in the value; left out: the position in the topic")
    fields: dict[str, str] | None = None


def read_sources(path: Path) -> list[Source]:
    """Raises ValueError with the place of the first mistake."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = raw.get("sources") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a mapping with a list of `sources`")
    try:
        return [Source.model_validate(entry) for entry in entries]
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def source_log(topic: str) -> str:
    """Name of a source's log in the control topic."""
    return f"source:{topic}"


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A record of a user's topic: its key, and its value or None for a delete."""

    record: Incoming
    source: Source
    key: Any
    value: Mapping[str, Any] | None


class SourceStage:
    """Maps records of sources onto change events."""

    def __init__(self, sources: Sequence[Source], view: ControlView, clock: Clock = now_us) -> None:
        self._sources = {source.topic: source for source in sources}
        self._view = view
        self._clock = clock

    def reset(self) -> None:
        """Nothing is remembered between batches."""

    def decode(self, record: Incoming) -> _Parsed:
        source = self._sources[record.topic]
        try:
            key = orjson.loads(record.key) if record.key and source.id != "$key" else record.key.decode()
            value = orjson.loads(record.value) if record.value else None
        except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
            raise InvalidRecord("malformed_json", str(error)) from error
        if source.format == "debezium":
            value = _debezium(value)
        if value is not None and not isinstance(value, dict):
            raise InvalidRecord("wrong_type", f"expected an object, found {type(value).__name__}")
        return _Parsed(record, source, key, value)

    def process(self, batch: Sequence[_Parsed]) -> Processed:
        results: list[Result] = []
        for parsed in batch:
            try:
                results.append((outgoing(self._event(parsed)),))
            except NotFound as error:
                # The collection may yet be created: a record that waits is better than one set aside.
                raise Unavailable("control", f"source {parsed.source.topic!r}: {error}", 5.0) from error
            except InvalidRequest as error:
                results.append(Refused(InvalidRecord(error.code, str(error))))
        return Processed(results)

    def _event(self, parsed: _Parsed) -> ChangeEvent:
        source, record, value = parsed.source, parsed.record, parsed.value
        collection = self._view.collection(source.collection)
        document_id = self._id(parsed)
        name = f"kafka:{source.topic}"
        tenant = _text(_path(value or _as_mapping(parsed.key), source.tenant)) if source.tenant else None
        version: Any = self._view.log_base(source_log(source.topic)) + record.offset
        external = _path(value, source.version) if source.version and value is not None else None
        if external is not None:
            version = check_version(external)
        if value is None:
            event = validate.delete(collection, document_id, None, tenant, self._clock(), name)
        else:
            fields = _mapped(value, source.fields) if source.fields is not None else value
            event = validate.upsert(collection, document_id, fields, None, tenant, self._clock(), name)
        return ChangeEvent(
            event.collection, event.collection_uid, event.tenant, event.id, event.operation, version,
            event.fields_json, event.accepted_at_us, event.source,
        )  # fmt: skip

    @staticmethod
    def _id(parsed: _Parsed) -> str:
        where = parsed.source.id
        if where == "$key":
            return str(parsed.key)
        if where.startswith("$key."):
            return _text(_path(_as_mapping(parsed.key), where.removeprefix("$key."))) or ""
        if parsed.value is None:
            raise InvalidRequest("missing_id", f"a delete carries no value to read {where!r} from; use $key", "id")
        return _text(_path(parsed.value, where)) or ""


def _debezium(envelope: Any) -> Any:
    """The row after the change, None for a delete. Takes envelopes with and without a schema."""
    if envelope is None:
        return None
    payload = envelope.get("payload", envelope) if isinstance(envelope, dict) else None
    if not isinstance(payload, dict) or "op" not in payload:
        raise InvalidRecord("not_debezium", "expected a Debezium envelope with `op` and `after`")
    if payload["op"] == "d":
        return None
    if payload["op"] not in ("c", "u", "r"):
        raise InvalidRecord("not_debezium", f"unknown op {payload['op']!r}")
    return payload.get("after")


def _as_mapping(key: Any) -> Mapping[str, Any]:
    found = key.get("payload", key) if isinstance(key, dict) else {}
    return found if isinstance(found, dict) else {}


def _path(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _mapped(value: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    found = {name: _path(value, path) for name, path in fields.items()}
    return {name: v for name, v in found.items() if v is not None}
