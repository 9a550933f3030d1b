"""The drift monitor: looks at what was written lately, through the map that is served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from driftline.core import codec
from driftline.core.errors import InvalidRecord
from driftline.core.follow import read_to_end
from driftline.core.ports import LogReader, VectorStore
from driftline.core.records import Operation, document_key
from driftline.core.store import StoredDocument, StoreTarget
from driftline.core.topics import DOCUMENTS
from driftline.core.vectors import as_dense
from driftline.drift.base import unit
from driftline.drift.monitor import Baseline, residual, shift
from driftline.drift.stored import Compensation
from driftline.upgrade.state import Drift

_LOOKED_AT = 200
_LEAST = 20


def recent_documents(reader: LogReader, collection_uid: str) -> list[str]:
    """Keys of the documents of a collection that were written last, at most 200. Raises Unavailable."""
    keys: dict[str, None] = {}
    for record in read_to_end(reader, DOCUMENTS.name, last=_LOOKED_AT):
        try:
            event = codec.decode_change(record.value)
        except InvalidRecord:
            continue
        if event.collection_uid == collection_uid:
            key = document_key(event.tenant, event.id)
            keys.pop(key, None)
            if event.operation is Operation.UPSERT:
                keys[key] = None
    return list(keys)[-_LOOKED_AT:]


def look(
    store: VectorStore, old: StoreTarget, new: StoreTarget, compensation: Compensation, keys: Sequence[str]
) -> Drift | None:
    """Compare documents that both generations hold in one version with the fit sample; None of too few of them."""
    if "baseline" not in compensation.sample or len(keys) < _LEAST:
        return None
    known = Baseline(**compensation.sample["baseline"])
    ours = {d.key: d for d in store.fetch(new, list(keys), with_vectors=True)}
    theirs = {d.key: d for d in store.fetch(old, list(keys), with_vectors=True)}
    # Of texts that both encoders cut alike, the first chunk.
    both = [k for k in keys if k in ours and k in theirs and _alike(ours[k], theirs[k])]
    if len(both) < _LEAST:
        return None
    today = unit(np.stack([as_dense(ours[k].vectors)[0] for k in both]))
    before = unit(np.stack([as_dense(theirs[k].vectors)[0] for k in both]))
    return Drift(
        documents=len(both),
        residual=round(residual(compensation.compensator, today, before), 4),
        residual_of_fit=round(known.residual, 4),
        shift=round(shift(known, today), 4),
    )


def _alike(ours: StoredDocument, theirs: StoredDocument) -> bool:
    return ours.version == theirs.version and ours.chunks[0] == theirs.chunks[0]
