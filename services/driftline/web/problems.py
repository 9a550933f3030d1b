"""Errors as RFC 9457 problem bodies: `type`, `title`, `status`, `code`, `detail`, and the `field` that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftline.core import metrics
from driftline.core.errors import (
    Conflict,
    Denied,
    DriftlineError,
    InvalidRequest,
    Overloaded,
    SpaceMismatch,
    Unavailable,
)

_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    409: "Conflict",
    405: "Method not allowed",
    408: "Too slow",
    413: "Too large",
    415: "Unsupported encoding",
    422: "Invalid request",
    429: "Too many requests",
    431: "Headers too large",
    503: "Unavailable",
}
# What was sent may be told back in a problem: a name of 200 kB is not.
_LONGEST_DETAIL = 1_000
_LONGEST_FIELD = 200


def problem(status: int, code: str, detail: str, field: str = "", retry_after: float = 0) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": f"https://driftline.dev/problems/{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": _cut(detail, _LONGEST_DETAIL),
    }
    if field:
        body["field"] = _cut(field, _LONGEST_FIELD)
    if retry_after:
        body["retry_after_seconds"] = retry_after
    return body


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[:longest] + "..."


def problem_of(error: DriftlineError) -> dict[str, Any]:
    """The problem body of an error; its `status` is the HTTP status."""
    match error:
        case Denied():
            return problem(error.status, "denied", error.detail)
        case InvalidRequest():
            return problem(error.status, error.code, error.detail, error.field)
        case Conflict():
            return problem(409, error.code, error.detail)
        case Overloaded():
            return problem(429, "overloaded", error.detail, retry_after=error.retry_after_seconds)
        case SpaceMismatch():
            metrics.SPACE_REFUSALS.inc()
            return problem(503, "space_mismatch", str(error), retry_after=error.retry_after_seconds)
        case Unavailable():
            return problem(503, "unavailable", str(error), retry_after=error.retry_after_seconds)
        case _:
            return problem(500, "internal", "an unexpected error; it is in the log of the service")


def headers_of(body: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Content-Type": "application/problem+json"}
    if "retry_after_seconds" in body:
        headers["Retry-After"] = str(max(1, round(body["retry_after_seconds"])))
    if body["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
