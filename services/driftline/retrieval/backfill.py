"""The record that asks for a document to be embedded for another generation. Pure."""

from __future__ import annotations

from driftline.core import codec
from driftline.core.collections import Collection
from driftline.core.records import ChangeEvent, Operation, Outgoing, record_key
from driftline.core.store import StoredDocument
from driftline.core.topics import BACKFILL


def backfill_record(collection: Collection, document: StoredDocument, generation: int) -> Outgoing:
    """`document` as an older generation holds it. index applies it only if that is still so."""
    event = ChangeEvent(
        collection.name, collection.uid, document.tenant, document.id, Operation.UPSERT, document.version,
        document.fields_json, 0, "backfill", backfill_generation=generation,
    )  # fmt: skip
    key = record_key(collection.uid, document.tenant, document.id)
    return Outgoing(BACKFILL.name, key, codec.encode_change(event))
