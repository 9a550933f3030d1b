"""Putting a change off: it goes to `deferred`, with the version and position it has, and takes its turn there.

Order does not suffer: versions decide what wins, so a change that comes late changes nothing that is newer.
"""

from __future__ import annotations

from dataclasses import replace

from driftline.core import codec
from driftline.core.records import ChangeEvent, Outgoing, Position, record_key
from driftline.core.topics import DEFERRED


def deferred(
    event: ChangeEvent,
    version: int,
    position: Position,
    partition: int,
    not_before_us: int = 0,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Outgoing:
    """The record that asks for `event` once more, not before that time.

    `version` is the event's own, resolved; `position` the one its receipt is waited for at. It stays on its
    `partition`, where the document's other changes are.
    """
    again = replace(event, version=version, origin=position, not_before_us=not_before_us)
    key = record_key(event.collection_uid, event.tenant, event.id)
    return Outgoing(DEFERRED.name, key, codec.encode_change(again), partition, headers)
