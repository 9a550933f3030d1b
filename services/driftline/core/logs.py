"""Structured JSON logs on standard error, one object a line, with the trace id of the work at hand."""

from __future__ import annotations

import contextvars
import logging
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson

TRACE_HEADER = "traceparent"
_trace: contextvars.ContextVar[str] = contextvars.ContextVar("driftline_trace", default="")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := _trace.get():
            line["trace_id"] = trace.split("-")[1]
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(service: str, level: str) -> None:
    """Send every log to standard error as JSON. Vendors' clients are kept at warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    for name in ("kafka", "pymilvus", "uvicorn", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # kafka-python logs a routine disconnect and a rejoin as errors; the runner reports what matters.
    logging.getLogger("kafka.net").setLevel(logging.ERROR)


def new_traceparent() -> str:
    """A W3C trace context header: version, 16-byte trace id, 8-byte span id, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def current_traceparent() -> str:
    return _trace.get()


def traceparent_of(headers: Sequence[tuple[str, bytes]]) -> str:
    return next((v.decode("ascii", "replace") for k, v in headers if k == TRACE_HEADER), "")


@contextmanager
def traced(traceparent: str) -> Iterator[None]:
    """Log under this trace. A malformed header is replaced, never trusted."""
    parts = traceparent.split("-")
    good = len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16
    token = _trace.set(traceparent if good else new_traceparent())
    try:
        yield
    finally:
        _trace.reset(token)
