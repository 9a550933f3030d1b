"""What the services need of the world. Adapters implement these; `adapters.memory` holds the twins.

A docstring here is a contract: both implementations are held to it by tests/contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.records import Incoming, Outgoing, Priority, Space
from driftline.core.store import Hit, StoredDocument, StoredVersion, StoreTarget, VectorQuery, WritePlan
from driftline.core.vectors import Vectors

TopicPartition = tuple[str, int]
Guard = Callable[[], float]
# Of one request: its vectors, or what went wrong with it.
EmbedAnswer = Vectors | InvalidRecord | Unavailable


class Publisher(Protocol):
    """Appends records to topics, acknowledged by all in-sync replicas."""

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        """Append all, in order per partition, and return (partition, offset) of each.

        Raises RecordTooLarge, with the index of the first such record, when one of them is larger than client or
        broker take: tried again it is refused again, so the caller leaves it out or puts something smaller in its
        place. Raises Unavailable when any of them was not acknowledged. In both cases others may have been appended.
        """
        ...

    def close(self) -> None: ...


class Subscriber(Protocol):
    """A member of a consumer group over one or more topics. Used by one thread, except `lease_seconds`.

    A partition that a rebalance leaves where it is keeps its position: whoever drops polled records in a rebalance
    callback must `rewind` to them there.
    """

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]:
        r"""Next records, in order per partition. Calls the rebalance callbacks of `subscribe`. Raises Unavailable.

        Whatever bytes a producer may send comes through: every compression of Kafka's clients, and header keys that
        are not UTF-8, whose other bytes are written as `\xNN`.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit next-to-read offsets. Raises Fenced when the group has moved on, else Unavailable."""
        ...

    def rewind(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read again from these offsets; partitions that are no longer assigned are left alone."""
        ...

    def pause(self) -> None:
        """Deliver nothing until `resume`, while `poll` keeps the membership."""
        ...

    def resume(self) -> None: ...

    def lease_seconds(self) -> float:
        """How long the group surely still counts this member as alive; <= 0: it may not any more.

        May be asked from any thread at any time: writers ask right before each write.
        """
        ...

    def lag(self) -> Mapping[TopicPartition, int]:
        """Records behind the end, of the assigned partitions whose end is known."""
        ...

    def close(self) -> None: ...


class LogReader(Protocol):
    """Reads whole topics without a group: the control topic, receipts, dead letters."""

    def ends(self, topic: str) -> Mapping[int, int]:
        """Next offset of each partition. On a compacted topic it may be too small, never too large."""
        ...

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Assign exactly these partitions, each to be read from its offset."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """Where an assigned partition is read from next: every record before it was given, or is gone. -1 while the
        broker does not say."""
        ...

    def poll(self, max_records: int, timeout_seconds: float) -> list[Incoming]: ...

    def close(self) -> None: ...


class TopicAdmin(Protocol):
    def describe(self, topic: str) -> tuple[str, int] | None:
        """(topic id, partitions) of a topic, None when it does not exist."""
        ...

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, str]) -> None:
        """Create it; a topic that exists already is left as it is."""
        ...

    def config(self, topic: str) -> Mapping[str, str]: ...

    def close(self) -> None: ...


class Embedder(Protocol):
    """Encodes texts. Thread-safe; several requests may be in flight. Every method raises Unavailable when the server
    cannot be reached, and NotLoaded when it has no such encoder loaded."""

    def describe(self, encoder: str) -> Space:
        """The space of a loaded encoder. Raises PartlyUnavailable when the model there is no encoder."""
        ...

    def load(self, encoder: str) -> None:
        """Load an encoder that is there, on every server. Raises NotLoaded with the reason."""
        ...

    def loaded_everywhere(self, encoder: str) -> bool:
        """Whether every server can use it: one that came since `load` may not. Raises Unavailable."""
        ...

    def unload(self, encoder: str) -> None:
        """Free what a loaded encoder takes, on every server; one that is not loaded is no error. Raises
        PartlyUnavailable where that cannot be done from here."""
        ...

    def tokenizer_json(self, encoder: str) -> str:
        """The encoder's own tokenizer, in the format of the `tokenizers` library."""
        ...

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[EmbedAnswer]:  # fmt: skip
        """Embed each request, several in flight: a row for each text, dense ones as float32 (texts, dimension), or what
        went wrong with it.

        Requests that wait are taken by priority; one that is being computed is not interrupted.

        In place of a request that the model itself refuses stands an InvalidRecord("encode_failed", suspect=True), of
        one that did not get through an Unavailable: the others are answers to keep. Raises NotLoaded, and
        SpaceMismatch when the loaded model is of another space.
        """
        ...

    def ping(self) -> None:
        """Raises Unavailable."""
        ...


class VectorStore(Protocol):
    """Versioned documents with their chunk vectors.

    There is no conditional write: the caller owns the order (one writer per document at a time). Apart from that,
    every method may be called from any thread, also several at once.

    Every method that is asked of the store may raise

    * Unavailable: the store cannot be reached, is not ready, took too long, or asks everybody to slow down;
    * PartlyUnavailable: it answers, but `target` cannot be used now: it is missing though `ensure` made it, not
      loaded, over a quota, or the store refuses to make it. Only what needs this target waits.

    Neither tells whether a write took place. What a method says beyond that is in its own docstring; anything else
    that is raised is a bug.
    """

    def ensure(self, target: StoreTarget) -> None:
        """Create the store if it is missing. Raises SpaceMismatch when one exists for another space."""
        ...

    def drop(self, target: StoreTarget) -> None:
        """Delete the store and all that is in it; one that is missing is no error."""
        ...

    def versions(
        self, target: StoreTarget, keys: Sequence[str], visible_from: int | None
    ) -> Mapping[str, StoredVersion]:
        """Stored versions, tombstones included; absent keys are absent.

        `visible_from` is a timestamp of `apply`: every write up to it is seen. None: every acknowledged write is.
        """
        ...

    def apply(self, target: StoreTarget, plan: WritePlan, guard: Guard) -> int:
        """Write a plan and return a timestamp from which it is visible; replaying a plan changes nothing.

        `guard` is called on this thread right before each write, returns the seconds it may take, and raises Fenced.

        Raises InvalidRecord("store_refused", suspect=True) when the store can never take a row of the plan: a value
        that is too long, out of range or of another type, a vector of another length or not finite. Which document
        it is, the store need not tell: apply the plan's parts to find it. Some of the plan may have been written.
        """
        ...

    def wait_visible(self, target: StoreTarget, timestamp: int) -> None:
        """Return when every later search sees the writes up to `timestamp`."""
        ...

    def search(self, target: StoreTarget, query: VectorQuery) -> list[list[Hit]]:
        """Nearest chunks of each query vector, best first; fewer than the limit only when there are no more. Of sparse
        vectors only those that share a term with the query; a server that has none may miss some of them
        (docs/decisions/0019-sparse-vectors.md).

        A row counts if the row of chunk 0 has its version and more chunks than its number, and there is no tombstone
        of that version or a higher one: what a lost delete left behind is never shown.

        Raises SpaceMismatch on another dimension, and InvalidRequest on a filter, a limit or a vector that the store
        can never take.
        """
        ...

    def fetch(self, target: StoreTarget, keys: Sequence[str], with_vectors: bool) -> list[StoredDocument]:
        """The live documents among `keys`; every acknowledged write is seen. Rows count as in `search`."""
        ...

    def rows_up_to(self, target: StoreTarget, keys: Sequence[str]) -> Mapping[str, int]:
        """One more than the highest chunk number of each key, of all rows that are there, whether they count or not;
        absent keys are absent. Every acknowledged write is seen. Reads the whole store: for repairs only."""
        ...

    def scan(self, target: StoreTarget) -> Iterator[tuple[str, str, int, int]]:
        """(key, id, version, chunk ordinal) of every stored row."""
        ...

    def count(self, target: StoreTarget) -> int | None:
        """Live documents; None while there is no such store."""
        ...

    def purge_tombstones(self, before_us: int) -> int:
        """Forget tombstones written before that time; returns how many."""
        ...

    def ping(self) -> None:
        """Raises Unavailable."""
        ...


class Cache(Protocol):
    """Best effort: no method ever raises; a cache that is down is an empty one."""

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]: ...

    def set_many(self, items: Mapping[str, bytes], ttl_seconds: int) -> None: ...

    def increment(self, key: str) -> None: ...

    def healthy(self) -> bool: ...
