"""From what a caller sent to a change event. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftline.core.collections import Collection, check_document, check_tenant, check_version
from driftline.core.errors import InvalidRequest
from driftline.core.limits import MAX_NAME
from driftline.core.records import ChangeEvent, Operation
from driftline.core.values import check_id, shown

_BULK_KEYS = {"operation", "id", "fields", "version", "tenant"}


def upsert(
    collection: Collection,
    document_id: Any,
    fields: Any,
    version: Any,
    tenant: str | None,
    now_us: int,
    source: str,
) -> ChangeEvent:
    """Raises InvalidRequest naming the field."""
    return ChangeEvent(
        collection.name,
        collection.uid,
        check_tenant(collection.definition, tenant),
        check_id(document_id),
        Operation.UPSERT,
        check_version(collection.definition, version),
        check_document(collection.definition, fields),
        now_us,
        source,
    )


def delete(
    collection: Collection, document_id: Any, version: Any, tenant: str | None, now_us: int, source: str
) -> ChangeEvent:
    """Raises InvalidRequest naming the field."""
    return ChangeEvent(
        collection.name,
        collection.uid,
        check_tenant(collection.definition, tenant),
        check_id(document_id),
        Operation.DELETE,
        check_version(collection.definition, version),
        b"",
        now_us,
        source,
    )


def bulk_line(collection: Collection, line: Any, tenant: str | None, now_us: int) -> ChangeEvent:
    """A line of a bulk request: `{"operation": "upsert"|"delete", "id": ..., "fields": {...}, "version": ...}`."""
    if not isinstance(line, Mapping):
        raise InvalidRequest("wrong_type", f"expected an object, found {type(line).__name__}", "line")
    _only(line, _BULK_KEYS)
    own_tenant = line.get("tenant", tenant)
    if own_tenant is not None and not isinstance(own_tenant, str):
        raise InvalidRequest("wrong_type", "expected a string", "tenant")
    operation = line.get("operation", "upsert")
    if operation == "delete":
        if "fields" in line:
            raise InvalidRequest("unknown_key", "a delete has no fields", "fields")
        return delete(collection, line.get("id"), line.get("version"), own_tenant, now_us, "http")
    if operation != "upsert":
        raise InvalidRequest("invalid_operation", f"expected upsert or delete, found {shown(operation)}", "operation")
    return upsert(collection, line.get("id"), line.get("fields"), line.get("version"), own_tenant, now_us, "http")


def put_body(body: Any) -> tuple[Any, Any]:
    """(fields, version) of a PUT body: `{"fields": {...}, "version": ...}`."""
    if not isinstance(body, Mapping):
        raise InvalidRequest("wrong_type", f"expected an object, found {type(body).__name__}", "body")
    _only(body, {"fields", "version"})
    if "fields" not in body:
        raise InvalidRequest("missing_field", "expected an object of fields", "fields")
    return body["fields"], body.get("version")


def _only(body: Mapping[str, Any], known: set[str]) -> None:
    unknown = min((key for key in body if key not in known), default=None)
    if unknown is not None:
        raise InvalidRequest("unknown_key", f"expected only {', '.join(sorted(known))}", unknown[:MAX_NAME])
