"""Spans. The trace of a change travels in Kafka's headers (W3C trace context) whether spans are exported or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from driftline.core.logs import traced


class Tracer(Protocol):
    """Exports spans."""

    def span(
        self, name: str, traceparent: str, links: Sequence[str], attributes: dict[str, str | int]
    ) -> AbstractContextManager[str]:
        """Begin a span under `traceparent` and end it with the block; gives the traceparent of what is inside."""
        ...


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Export spans through this from now on; None ends that."""
    global _tracer
    _tracer = tracer


@contextmanager
def span(name: str, traceparent: str = "", links: Sequence[str] = (), **attributes: str | int) -> Iterator[None]:
    """Work under a trace: logs carry its id, and what is published its header."""
    if _tracer is None:
        with traced(traceparent):
            yield
        return
    with _tracer.span(name, traceparent, links, attributes) as inner, traced(inner):
        yield
