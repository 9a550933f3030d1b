"""The records of the pipeline, as frozen values. Protobuf stays inside `core.codec`.

Times are integers in microseconds since the Unix epoch, UTC (suffix `_us`).
"""

from __future__ import annotations

import enum
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from driftline.core.vectors import Vectors

Clock = Callable[[], int]


def now_us() -> int:
    """The wall clock, microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


_TOKEN = re.compile(r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,18})")
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1


class Operation(enum.IntEnum):
    UPSERT = 1
    DELETE = 2


class Outcome(enum.IntEnum):
    SEARCHABLE = 1
    SUPERSEDED = 2
    REJECTED = 3


class Priority(enum.IntEnum):
    """Whose texts an encoder takes first: somebody waits for a search, a change is to be seen soon, the rest waits."""

    SEARCH = 1
    CHANGE = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where an event stands in the `changes` log; the identity of the event."""

    partition: int
    offset: int

    def token(self) -> str:
        """The text a client passes back as `after` to read its own write."""
        return f"{self.partition}.{self.offset}"

    @classmethod
    def parse(cls, token: str) -> Position:
        """Read a token, exactly as `token` writes it. Raises ValueError.

        Python's `int` would also take signs, blanks, underscores and the digits of other scripts.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise ValueError("expected `partition.offset`")
        position = cls(int(found[1]), int(found[2]))
        if position.partition > _INT32_MAX or position.offset > _INT64_MAX:
            raise ValueError("no log has such a position")
        return position


@dataclass(frozen=True, slots=True)
class MediaReference:
    field: str
    uri: str
    media_type: str = ""
    content_sha256: str = ""


# The source of a change that `driftline verify --repair` sent again.
REPAIR = "repair"


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """An upsert or a delete. `version` 0 means: from the position in the log. `origin` and `not_before_us` are those of
    a change that was put off: where it stood first, and the time before which it is not to be tried."""

    collection: str
    collection_uid: str
    tenant: str
    id: str
    operation: Operation
    version: int
    fields_json: bytes
    accepted_at_us: int
    source: str = ""
    media: tuple[MediaReference, ...] = ()
    origin: Position | None = None
    backfill_generation: int = 0
    not_before_us: int = 0


@dataclass(frozen=True, slots=True)
class NamedVectors:
    """Vectors of a document for one generation, one per chunk: dense are float32 (chunks, dimension). None of them says
    that the document has nothing for this index.

    `chunks` are the texts where they differ from the record's: another encoder may cut a document otherwise.
    """

    name: str
    space: str
    generation: int
    values: Vectors
    chunks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """One change event on its way to the index: embedded, a delete, or rejected."""

    position: Position
    collection: str
    collection_uid: str
    tenant: str
    id: str
    operation: Operation
    version: int
    fields_json: bytes
    accepted_at_us: int
    read_at_us: int
    encoded_at_us: int
    source: str = ""
    chunks: tuple[str, ...] = ()
    vectors: tuple[NamedVectors, ...] = ()
    media: tuple[MediaReference, ...] = ()
    rejected_reason: str = ""
    rejected_detail: str = ""
    backfill_generation: int = 0


@dataclass(frozen=True, slots=True)
class SearchedQuery:
    """A text that somebody searched for, with the ids of the best hits."""

    collection: str
    collection_uid: str
    tenant: str
    text: str
    searched_at_us: int
    hits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one change event."""

    position: Position
    collection: str
    tenant: str
    id: str
    operation: Operation
    version: int
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    superseded_by: int = 0
    chunks: int = 0
    accepted_at_us: int = 0
    read_at_us: int = 0
    encoded_at_us: int = 0
    written_at_us: int = 0
    searchable_at_us: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record as it was. `cut_from` is the size of its value in bytes where the letter holds only the
    beginning, else 0."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    reason: str
    detail: str
    service: str
    failed_at_us: int
    cut_from: int = 0


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space. Identity is the fingerprint; the rest says how to use it.

    `max_tokens` counts the encoder's own tokens, special ones included; `max_batch` is in texts. `kind` is "dense" or
    "sparse"; `dimension` is 1 where it is sparse. `analyzer` is the JSON of what makes a sparse vector of a text
    without a model, see `retrieval.lexical`.
    """

    fingerprint: str
    encoder: str
    encoder_version: str
    dimension: int
    normalized: bool
    pooling: str
    query_prefix: str
    document_prefix: str
    max_tokens: int
    max_batch: int
    kind: str = "dense"
    analyzer: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """One space bound to an index of a collection, held by one collection of the vector store. `vector_name` is the
    name of the index."""

    number: int
    vector_name: str
    space: str
    store: str


class Carry(enum.IntEnum):
    """How the text of a search reaches the vectors of a generation."""

    OWN = 1
    MAPPED = 2
    ENSEMBLE = 3


@dataclass(frozen=True, slots=True)
class Leg:
    """One generation that searches read. `compensation` is the id of the map and the calibration it needs."""

    generation: int
    carry: Carry = Carry.OWN
    compensation: str = ""


@dataclass(frozen=True, slots=True)
class CompensationPart:
    """A piece of a stored compensation; `part` counts from 0 to `parts` - 1."""

    id: str
    part: int
    parts: int
    content: bytes


@dataclass(frozen=True, slots=True)
class UpgradeRecord:
    """The state of a collection's upgrade, as the upgrade service wrote it."""

    collection: str
    collection_uid: str
    state_json: str


@dataclass(frozen=True, slots=True)
class StatisticsRecord:
    """What is known of the texts of a lexical index, as `retrieval.lexical` writes it."""

    collection_uid: str
    generation: int
    content: bytes


@dataclass(frozen=True, slots=True)
class LogIncarnation:
    """One life of a log. A version assigned from it is `base_version` + offset.

    The base is the time of creation in microseconds, so a re-created log outranks its predecessor as long
    as no partition ever averaged a million events a second.
    """

    topic: str
    topic_id: str
    base_version: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """A record as it was polled."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def size(self) -> int:
        return len(self.key) + len(self.value or b"")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. `topic` is the logical name; `partition` None lets the key decide."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def size(self) -> int:
        """Bytes that count against the broker's limit, give or take the frame."""
        return len(self.key) + len(self.value or b"") + sum(len(k) + len(v) for k, v in self.headers)


def document_key(tenant: str, document_id: str) -> str:
    """Primary key of a document in a store: 32 hexadecimal digits, safe in any expression.

    128 bits: two of a billion documents collide with a probability below 2e-21. What is hashed is injective: a tenant
    never holds the NUL that ends it, since a record that holds one anyway has it escaped.
    """
    tenant = tenant.replace("\x01", "\x01\x01").replace("\x00", "\x01\x02")
    return hashlib.blake2b(f"{tenant}\x00{document_id}".encode(), digest_size=16).hexdigest()


def record_key(collection_uid: str, tenant: str, document_id: str) -> bytes:
    """Key of a document's records in Kafka: all its changes share a partition, and so keep their order.

    Injective, since compaction keeps one record a key: the tenant ends at the first slash after the uid, and one that
    is part of it is written %2F, as in a URL.
    """
    tenant = tenant.replace("%", "%25").replace("/", "%2F")
    return f"{collection_uid}/{tenant}/{document_id}".encode()
