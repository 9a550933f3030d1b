"""A record that cannot be processed, on its way to `dead-letters`: whole, with the reason, as one record."""

from __future__ import annotations

import logging

from driftline.core import codec, metrics
from driftline.core.errors import InvalidRecord
from driftline.core.records import DeadLetter, Incoming, Outgoing
from driftline.core.topics import DEAD_LETTERS

log = logging.getLogger(__name__)

_ENVELOPE = 8_192
_DETAIL = 2_000
_KEY = 64_000
_HEADERS = 256_000


def dead_letter(record: Incoming, error: InvalidRecord, service: str, largest: int, now_us: int) -> Outgoing:
    """The letter for a record. `largest` is the size in bytes that it may have.

    A record of somebody else's topic may be larger than that: then the letter holds the beginning of its value and the
    size of the whole, which lies in that topic at the position that the letter tells.
    """
    metrics.DEAD_LETTERS.labels(error.reason).inc()
    log.warning(
        "dead letter",
        extra={
            "reason": error.reason,
            "detail": error.detail[:_DETAIL],
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
        },
    )
    value = record.value or b""
    headers = _fitting(record.headers)
    room = largest - _ENVELOPE - len(record.key[:_KEY]) - sum(len(k) * 4 + len(v) for k, v in headers)
    kept = value[: max(0, room)]
    letter = DeadLetter(
        record.topic,
        record.partition,
        record.offset,
        record.key[:_KEY],
        kept,
        headers,
        error.reason,
        error.detail[:_DETAIL],
        service,
        now_us,
        cut_from=len(value) if len(kept) < len(value) or len(record.key) > _KEY else 0,
    )
    key = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return Outgoing(DEAD_LETTERS.name, key, codec.encode_dead_letter(letter), 0)


def _fitting(headers: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
    """As many of the headers, in order, as there is room for."""
    room = _HEADERS
    kept = []
    for key, value in headers:
        room -= len(key) + len(value)
        if room < 0:
            break
        kept.append((key, value))
    return tuple(kept)
