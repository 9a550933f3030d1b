"""A poison record must not stop its partition: whatever a record makes a stage raise is that record's dead letter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from driftline.core.errors import Fenced, InvalidRecord, Unavailable
from driftline.core.records import Outgoing
from driftline.core.stage import Processed, Stage

log = logging.getLogger(__name__)
_In = TypeVar("_In")

# What the process suffers, not what a record does: no memory, no file descriptor, no disk.
_OF_THE_PROCESS = (MemoryError, OSError)
_DETAIL = 300


def unexpected(error: Exception) -> InvalidRecord:
    """The refusal of a record that made our code fail. Raises what no record is to blame for."""
    if isinstance(error, _OF_THE_PROCESS):
        raise error
    log.error("a record made us fail; it is set aside", exc_info=error)
    return InvalidRecord("unexpected", f"{type(error).__name__}: {str(error)[:_DETAIL]}", suspect=True)


def process(stage: Stage[_In], batch: Sequence[_In]) -> Processed:
    """`stage.process`, with the records that make it raise taken out. Raises Unavailable, Fenced, and what the
    process itself suffers.

    A batch of n with one guilty record is processed in about 2 log2(n) parts more; processing is idempotent.
    """
    try:
        processed = stage.process(batch)
    except (Unavailable, Fenced):
        raise
    except Exception as error:  # noqa: BLE001 - that is the point
        return _apart(stage, batch, error)
    if len(processed.results) != len(batch):
        # No record's doing: the stage has lost count, and nothing it answered can be told apart.
        raise RuntimeError(f"{len(batch)} inputs, {len(processed.results)} results")
    return processed


def _apart(stage: Stage[_In], batch: Sequence[_In], error: Exception) -> Processed:
    # What was written before it raised is not remembered as written: read it anew.
    stage.reset()
    if len(batch) == 1:
        return stage.reject(batch[0], error if isinstance(error, InvalidRecord) else unexpected(error))
    if isinstance(error, _OF_THE_PROCESS):
        raise error
    middle = len(batch) // 2
    return _joined([process(stage, batch[:middle]), process(stage, batch[middle:])])


def _joined(parts: Sequence[Processed]) -> Processed:
    results = [result for part in parts for result in part.results]
    settles = [part.settle for part in parts if part.settle is not None]

    def settle() -> list[Outgoing]:
        return [record for one in settles for record in one()]

    return Processed(results, settle if settles else None)
