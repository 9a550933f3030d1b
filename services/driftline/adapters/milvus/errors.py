"""What the errors of Milvus and pymilvus mean: told by code and by type, never by a message's text.

Codes are those of Milvus' `pkg/util/merr`, unchanged from 2.3 on, and the older ones of `common.proto` where a server
gives no other. What Milvus 2.3.5 really answers was seen by making each error happen:

    what was done                                       what came                            meaning
    server stopped, or its name unknown                 code 2 from an RpcError              UNREACHABLE
    server frozen (SIGSTOP)                             RpcError DEADLINE_EXCEEDED           UNREACHABLE
    a request of 72 MB                                  RpcError RESOURCE_EXHAUSTED          UNREACHABLE
    unknown database                                    800                                  UNREACHABLE
    collection missing, or dropped by somebody else     100                                  PART
    collection not loaded; without an index             101; 700                             PART
    string or JSON too long, bad collection name        1100                                 REFUSED
    integer out of range, lone surrogate, field missing DataNotMatchException before sending REFUSED
    limit 0                                             ParamError before sending            REFUSED
    NaN, vector of another length, limit 16,385,        65535                                UNTOLD
      expression that cannot be parsed, integer of 2^63
    a query node that fails inside                      65535                                UNTOLD
    IndexError, Fenced and others under a call          code 1, made from that exception     that exception's
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

import grpc

from driftline.adapters.milvus.client import ErrorCode, MilvusException, common_pb2, exceptions


class Meaning(enum.Enum):
    UNREACHABLE = enum.auto()
    """Nobody can use Milvus now."""
    PART = enum.auto()
    """It answers, but this collection cannot be used now."""
    REFUSED = enum.auto()
    """This row, expression or parameter can never be taken."""
    UNTOLD = enum.auto()
    """Refused, or a failure inside Milvus: the code does not tell."""
    SETTING = enum.auto()
    """The address is not one."""
    BUG = enum.auto()
    """Raised by our own code, or pymilvus', while it made the call."""


_TYPES: tuple[tuple[tuple[type[Exception], ...], Meaning], ...] = (
    ((exceptions.ConnectionConfigException,), Meaning.SETTING),
    (
        (
            exceptions.ConnectError,
            exceptions.ConnectionNotExistException,
            exceptions.MilvusUnavailableException,
            exceptions.ServerVersionIncompatibleException,
            grpc.RpcError,
            grpc.FutureTimeoutError,
            ConnectionError,
        ),
        Meaning.UNREACHABLE,
    ),
    (
        (
            exceptions.CollectionNotExistException,
            exceptions.IndexNotExistException,
            exceptions.SchemaNotReadyException,
            exceptions.SchemaMismatchRetryableException,
        ),
        Meaning.PART,
    ),
    (
        (
            exceptions.DataNotMatchException,
            exceptions.DataTypeNotMatchException,
            exceptions.DataTypeNotSupportException,
            exceptions.ParamError,
            exceptions.PrimaryKeyException,
        ),
        Meaning.REFUSED,
    ),
)

# Not ready, unavailable, too many requests, internal, of another cluster, rate limit, unimplemented, clocks apart, no
# resources, no such database, not authenticated or permitted, cancelled, timed out.
_UNREACHABLE = frozenset({1, 2, 4, 5, 6, 8, 10, 11, 12, 800, 801, 802, 1400, 1401, 1800, 10_000, 10_001})
# Invalid, missing and too large parameters, fields, insert data and primary keys.
_REFUSED = frozenset({1100, 1101, 1102, 1700, 1701, 1801, 1802, 1804, 1806})
# Memory and disk limits and quotas (3, 7, 9), collections, partitions, resource groups, replicas, channels, segments,
# indexes, nodes, input and output, metrics, message queues, aliases: all of one collection.
_PART = frozenset({3, 7, 9}) | frozenset(range(100, 800)) | frozenset(range(900, 1100)) | frozenset(range(1200, 1400))

_LEGACY = {
    Meaning.UNREACHABLE: (
        "ConnectFailed", "PermissionDenied", "RateLimit", "NotReadyServe", "NotReadyCoordActivating",
        "TimeTickLongDelay", "DataCoordNA", "DDRequestRace",
    ),
    Meaning.PART: (
        "CollectionNotExists", "OutOfMemory", "IndexNotExist", "EmptyCollection", "CollectionNameNotFound",
        "NotShardLeader", "NoReplicaAvailable", "SegmentNotFound", "ForceDeny", "NodeIDNotMatch",
        "InsufficientMemoryToLoad", "MemoryQuotaExhausted", "DiskQuotaExhausted", "SchemaMismatch",
    ),
    Meaning.REFUSED: (
        "IllegalArgument", "IllegalDimension", "IllegalCollectionName", "IllegalTOPK", "IllegalRowRecord",
        "IllegalVectorID", "IllegalMetricType",
    ),
}  # fmt: skip
_LEGACY_CODES = {common_pb2.ErrorCode.Value(name): meaning for meaning, names in _LEGACY.items() for name in names}


def meaning_of(error: BaseException) -> tuple[Meaning, BaseException]:
    """What an error means, and the exception that says so: `error` itself, or what pymilvus made it from."""
    for link in _chain(error):
        for types, meaning in _TYPES:
            if isinstance(link, types):
                return meaning, link
        if not isinstance(link, MilvusException):
            return Meaning.BUG, link
        if not _wraps(link):
            return _of_code(link), link
    return Meaning.BUG, error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes. pymilvus raises `e from e`, so that an exception may be its own cause."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _wraps(error: MilvusException) -> bool:
    """Whether pymilvus made it from another exception, which says more: its code is none of the server's then."""
    made_here = isinstance(error.code, (ErrorCode, grpc.StatusCode))
    return made_here and error.__cause__ is not None and error.__cause__ is not error


def _of_code(error: MilvusException) -> Meaning:
    if isinstance(error.code, grpc.StatusCode):
        return Meaning.UNREACHABLE
    if isinstance(error.code, ErrorCode) and error.code is ErrorCode.UNEXPECTED_ERROR:
        # pymilvus' own, without a cause: it waited in vain for a collection to load, or for an index.
        return Meaning.PART
    # Milvus 2.3 marks what may be tried again with the 17th bit.
    code = int(error.code) & 0xFFFF
    if code == 0:
        return _LEGACY_CODES.get(error.compatible_code, Meaning.UNTOLD)
    if code in _UNREACHABLE:
        return Meaning.UNREACHABLE
    if code in _REFUSED:
        return Meaning.REFUSED
    if code in _PART:
        return Meaning.PART
    return Meaning.REFUSED if error.is_input_error else Meaning.UNTOLD
