"""Sources: a user's own topic mapped onto change events.

Where the collection assigns versions, a source's event carries the position in the user's log as its version, so
redelivery after a crash changes nothing; a topic that was deleted and created again gets a higher base, so its new
events never look old. Where versions are external, every record has to bring one, deletes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from driftline.core import jsons, yamls
from driftline.core.collections import Collection
from driftline.core.control import ControlView
from driftline.core.errors import ConfigError, InvalidRecord, InvalidRequest, NotFound, Unavailable
from driftline.core.records import Clock, Incoming, Outgoing, now_us
from driftline.core.stage import Processed, Refused, Result
from driftline.core.values import shown
from driftline.ingest import validate
from driftline.ingest.accept import outgoing


class Source(BaseModel):
    """One topic to read. `fields` maps a document's field to a path in the record; left out: the whole value.

    A path in the value is one in the row after the change; of a Debezium delete, in the row before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = Field(min_length=1, max_length=249, description="the user's topic, by its full name")
    collection: str
    format: Literal["json", "debezium"] = "json"
    id: str = Field("$key", description="$key, $key.PATH, or a path in the value")
    tenant: str | None = Field(None, description="a path in the value, or $key.PATH")
    version: str | None = Field(
        None,
        description="of collections with external versions: a path in the value, $key.PATH, $header.NAME, or "
        "$source.PATH of a Debezium envelope",
    )
    fields: dict[str, str] | None = None


def read_sources(path: Path) -> list[Source]:
    """Raises OSError, and ConfigError with the place of the first mistake."""
    raw = yamls.parse(path.read_text(encoding="utf-8"), str(path))
    entries = raw.get("sources") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: expected a mapping with a list of `sources`")
    try:
        return [Source.model_validate(entry) for entry in entries]
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def source_log(topic: str) -> str:
    """Name of a source's log in the control topic."""
    return f"source:{topic}"


@dataclass(frozen=True, slots=True)
class _Row:
    """What a value says: the row that it is about, whether that was deleted, and where the change came from."""

    values: Mapping[str, Any]
    deleted: bool
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A record of a user's topic: its key, and its row; None for a null value."""

    record: Incoming
    source: Source
    key: Any
    row: _Row | None

    @property
    def deleted(self) -> bool:
        return self.row is None or self.row.deleted

    def at(self, path: str) -> Any:
        """What stands at a path of the source; None where nothing does."""
        if path.startswith("$key."):
            return _path(_as_mapping(self.key), path.removeprefix("$key."))
        if path.startswith("$header."):
            name = path.removeprefix("$header.")
            return next((v.decode("utf-8", "replace") for k, v in self.record.headers if k == name), None)
        if path.startswith("$source."):
            return None if self.row is None else _path(self.row.origin, path.removeprefix("$source."))
        return None if self.row is None else _path(self.row.values, path)


class SourceStage:
    """Maps records of one source onto change events."""

    def __init__(self, source: Source, view: ControlView, clock: Clock = now_us) -> None:
        self._source = source
        self._view = view
        self._clock = clock
        paths = (source.id, source.tenant or "", source.version or "")
        self._key_is_json = any(path.startswith("$key.") for path in paths)

    def reset(self) -> None:
        """Nothing is remembered between batches."""

    def decode(self, record: Incoming) -> _Parsed:
        try:
            key: Any = jsons.parse(record.key, "key") if self._key_is_json and record.key else record.key.decode()
            value = jsons.parse(record.value, "value") if record.value else None
        except UnicodeDecodeError as error:
            raise InvalidRecord("invalid_utf8", f"key: {error}") from error
        except InvalidRequest as error:
            raise InvalidRecord(error.code, str(error)) from error
        return _Parsed(record, self._source, key, _row(self._source.format, value))

    def process(self, batch: Sequence[_Parsed]) -> Processed:
        try:
            collection = self._view.collection(self._source.collection)
        except NotFound as error:
            # The collection may yet be created: a record that waits is better than one set aside.
            raise Unavailable("control", f"source {self._source.topic!r}: {error}", 5.0) from error
        self._check_versions(collection)
        results: list[Result] = []
        for parsed in batch:
            try:
                results.append(self._result(collection, parsed))
            except InvalidRequest as error:
                results.append(self._refused(InvalidRecord(error.code, str(error))))
        return Processed(results)

    def reject(self, item: _Parsed, error: InvalidRecord) -> Processed:
        del item
        return Processed([self._refused(error)])

    def _refused(self, error: InvalidRecord) -> Refused:
        return Refused(error, origin=self._source.topic)

    def _check_versions(self, collection: Collection) -> None:
        """A source that does not fit its collection is the operator's mistake: its records wait for the mend."""
        external = collection.definition.versions == "external"
        if external != (self._source.version is not None):
            advice = "give the source a `version`" if external else "take `version` out of the source"
            raise Unavailable(
                "control",
                f"source {self._source.topic!r}: collection {collection.name!r} has versions: "
                f"{collection.definition.versions}; {advice} and restart ingest",
                30.0,
            )

    def _result(self, collection: Collection, parsed: _Parsed) -> tuple[Outgoing, ...]:
        if self._is_repeated_delete(parsed):
            return ()
        source, record = self._source, parsed.record
        document_id = self._id(parsed)
        name = f"kafka:{source.topic}"
        tenant = _text(parsed.at(source.tenant)) if source.tenant else None
        external = self._external(parsed)
        if parsed.row is None or parsed.deleted:
            event = validate.delete(collection, document_id, external, tenant, self._clock(), name)
        else:
            values = parsed.row.values
            fields = _mapped(values, source.fields) if source.fields is not None else values
            event = validate.upsert(collection, document_id, fields, external, tenant, self._clock(), name)
        if source.version is None:
            event = replace(event, version=self._view.log_base(source_log(source.topic)) + record.offset)
        return (outgoing(event),)

    def _is_repeated_delete(self, parsed: _Parsed) -> bool:
        """Debezium follows each delete with a null value, for compaction. It says nothing new, and has neither a row to
        read an id from nor a version."""
        source = self._source
        in_the_key = source.id == "$key" or source.id.startswith("$key.")
        return source.format == "debezium" and parsed.row is None and (source.version is not None or not in_the_key)

    def _external(self, parsed: _Parsed) -> Any:
        path = self._source.version
        if path is None:
            return None
        found = parsed.at(path)
        if found is None:
            change = "delete" if parsed.deleted else "upsert"
            raise InvalidRequest("version_required", f"the {change} has no version at {path!r}", "version")
        # Headers are text, and so are decimal numbers in some converters.
        return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() else found

    def _id(self, parsed: _Parsed) -> str:
        where = self._source.id
        if where == "$key":
            return str(parsed.key)
        if parsed.row is None and not where.startswith("$key."):
            raise InvalidRequest("missing_id", f"a null value has no {where!r} to take the id from; use $key", "id")
        return _text(parsed.at(where)) or ""


def _row(form: str, value: Any) -> _Row | None:
    if value is None:
        return None
    if form == "debezium":
        return _debezium(value)
    if not isinstance(value, dict):
        raise InvalidRecord("wrong_type", f"expected an object, found {type(value).__name__}")
    return _Row(value, False, {})


def _debezium(envelope: Any) -> _Row:
    """The row after the change, of a delete the one before it. Takes envelopes with and without a schema."""
    payload = envelope.get("payload", envelope) if isinstance(envelope, dict) else None
    if not isinstance(payload, dict) or "op" not in payload:
        raise InvalidRecord("not_debezium", "expected a Debezium envelope with `op` and `after`")
    op = payload["op"]
    if op not in ("c", "u", "r", "d"):
        raise InvalidRecord("not_debezium", f"expected op c, u, r or d, found {shown(op)}")
    side = "before" if op == "d" else "after"
    values = payload.get(side)
    if op == "d" and values is None:
        # A table without REPLICA IDENTITY FULL tells the key alone.
        values = {}
    if not isinstance(values, dict):
        raise InvalidRecord("not_debezium", f"op {op!r} without {side!r}: expected the row as an object")
    origin = payload.get("source")
    return _Row(values, op == "d", origin if isinstance(origin, dict) else {})


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
