"""A step of the pipeline as the runner sees it: records in, what to publish out. It knows nothing of topics read,
offsets or retries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from driftline.core.errors import InvalidRecord
from driftline.core.records import Incoming, Outgoing

In = TypeVar("In")
In_contra = TypeVar("In_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is dead-lettered, and what is published in its place.

    `origin` names whose record it is, as precisely as the stage knows: a collection and tenant, a source.
    """

    error: InvalidRecord
    instead: tuple[Outgoing, ...] = ()
    origin: str = ""


Result = tuple[Outgoing, ...] | Refused


@dataclass(slots=True)
class Processed:
    """One result per input, in order. `settle` is called afterwards, in batch order, and may wait for what the
    batch wrote to become visible; it returns more to publish."""

    results: Sequence[Result]
    settle: Callable[[], Sequence[Outgoing]] | None = None


class Stage(Protocol[In_contra]):
    """One step of the pipeline. `process` and `reject` are called on the runner's worker threads, of which there may
    be several; a batch may come again, whole or in parts, so both must be idempotent."""

    def process(self, batch: Sequence[In_contra]) -> Processed:
        """Answer every input.

        Raises Unavailable to have the whole batch tried again. Anything else it raises is laid at the door of a
        record: the batch is taken apart until the guilty ones are alone, and those go to `reject`.
        """
        ...

    def reject(self, item: In_contra, error: InvalidRecord) -> Processed:
        """The answer to a record that cannot be processed: a single `Refused`, with what has to be told all the
        same, such as its receipt."""
        ...

    def reset(self) -> None:
        """Forget what was learnt from earlier batches: ownership changed, or a batch will come again."""
        ...


Decode = Callable[[Incoming], In]
