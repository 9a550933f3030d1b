"""What the OpenAPI documents say beyond what FastAPI finds out itself: bodies that we parse, and problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

Responses = dict[int | str, dict[str, Any]]

_COMPONENTS = "#/components/schemas/"
_PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `code` is for programs, `detail` for people.",
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "a fixed word"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "where in the request"},
        "retry_after_seconds": {"type": "number", "description": "as the header Retry-After"},
    },
}
_REASONS = {
    400: "not HTTP, not UTF-8 or not JSON",
    401: "no API key, or an unknown one",
    403: "the key's role does not allow it",
    404: "no such collection or document",
    408: "the body did not come in time",
    409: "contradicts what is stored",
    413: "too large",
    415: "the body is compressed",
    422: "understood, and wrong: `field` says where",
    429: "the service is at its bound; nothing was done",
    503: "something that is needed cannot be reached now",
}
# Every route behind a key can give these.
_ALWAYS = (400, 401, 403, 422, 429, 503)
# Those that read a body too.
BODY = (408, 413, 415)


def answers(described: dict[int, str], *problems: int, kind: str = "application/json") -> Responses:
    """The answers of a route: its good ones with their descriptions, and the problems it can give beside the usual."""
    found: Responses = {status: {"description": text, "content": {kind: {}}} for status, text in described.items()}
    for status in sorted({*_ALWAYS, *problems}):
        content = {"application/problem+json": {"schema": {"$ref": _COMPONENTS + "Problem"}}}
        if status in found:
            content |= found[status]["content"]
        found[status] = {"description": described.get(status, _REASONS[status]), "content": content}
    return found


def json_body(model: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """For a route's `openapi_extra`: a JSON body of this model or schema."""
    schema = model if isinstance(model, dict) else model.model_json_schema(ref_template=_COMPONENTS + "{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; what the bodies' schemas refer to is among the components."""
    if app.openapi_schema is None:
        spec = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = spec.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = _PROBLEM
        for operations in spec["paths"].values():
            for operation in operations.values():
                for body in operation.get("requestBody", {}).get("content", {}).values():
                    schemas |= body.get("schema", {}).pop("$defs", {})
        app.openapi_schema = spec
    return app.openapi_schema
