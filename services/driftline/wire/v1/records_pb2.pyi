from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_UNSPECIFIED: _ClassVar[Operation]
    OPERATION_UPSERT: _ClassVar[Operation]
    OPERATION_DELETE: _ClassVar[Operation]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SEARCHABLE: _ClassVar[Outcome]
    OUTCOME_SUPERSEDED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
OPERATION_UNSPECIFIED: Operation
OPERATION_UPSERT: Operation
OPERATION_DELETE: Operation
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SEARCHABLE: Outcome
OUTCOME_SUPERSEDED: Outcome
OUTCOME_REJECTED: Outcome

class Position(_message.Message):
    __slots__ = ("partition", "offset")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    partition: int
    offset: int
    def __init__(self, partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class MediaReference(_message.Message):
    __slots__ = ("field", "uri", "media_type", "content_sha256")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SHA256_FIELD_NUMBER: _ClassVar[int]
    field: str
    uri: str
    media_type: str
    content_sha256: str
    def __init__(self, field: _Optional[str] = ..., uri: _Optional[str] = ..., media_type: _Optional[str] = ..., content_sha256: _Optional[str] = ...) -> None: ...

class ChangeEvent(_message.Message):
    __slots__ = ("collection", "collection_uid", "tenant", "id", "operation", "version", "fields_json", "media", "accepted_at_us", "source", "origin", "backfill_generation", "not_before_us")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    BACKFILL_GENERATION_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_US_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_uid: str
    tenant: str
    id: str
    operation: Operation
    version: int
    fields_json: bytes
    media: _containers.RepeatedCompositeFieldContainer[MediaReference]
    accepted_at_us: int
    source: str
    origin: Position
    backfill_generation: int
    not_before_us: int
    def __init__(self, collection: _Optional[str] = ..., collection_uid: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., operation: _Optional[_Union[Operation, str]] = ..., version: _Optional[int] = ..., fields_json: _Optional[bytes] = ..., media: _Optional[_Iterable[_Union[MediaReference, _Mapping]]] = ..., accepted_at_us: _Optional[int] = ..., source: _Optional[str] = ..., origin: _Optional[_Union[Position, _Mapping]] = ..., backfill_generation: _Optional[int] = ..., not_before_us: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("ordinal", "text")
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ordinal: int
    text: str
    def __init__(self, ordinal: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class NamedVectors(_message.Message):
    __slots__ = ("name", "space", "generation", "dimension", "values", "chunks", "nothing", "counts", "terms", "weights")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    NOTHING_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    space: str
    generation: int
    dimension: int
    values: bytes
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    nothing: bool
    counts: _containers.RepeatedScalarFieldContainer[int]
    terms: bytes
    weights: bytes
    def __init__(self, name: _Optional[str] = ..., space: _Optional[str] = ..., generation: _Optional[int] = ..., dimension: _Optional[int] = ..., values: _Optional[bytes] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., nothing: _Optional[bool] = ..., counts: _Optional[_Iterable[int]] = ..., terms: _Optional[bytes] = ..., weights: _Optional[bytes] = ...) -> None: ...

class VectorRecord(_message.Message):
    __slots__ = ("position", "collection", "collection_uid", "tenant", "id", "operation", "version", "fields_json", "media", "chunks", "vectors", "accepted_at_us", "read_at_us", "encoded_at_us", "source", "rejected_reason", "rejected_detail", "backfill_generation")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    READ_AT_US_FIELD_NUMBER: _ClassVar[int]
    ENCODED_AT_US_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_REASON_FIELD_NUMBER: _ClassVar[int]
    REJECTED_DETAIL_FIELD_NUMBER: _ClassVar[int]
    BACKFILL_GENERATION_FIELD_NUMBER: _ClassVar[int]
    position: Position
    collection: str
    collection_uid: str
    tenant: str
    id: str
    operation: Operation
    version: int
    fields_json: bytes
    media: _containers.RepeatedCompositeFieldContainer[MediaReference]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    vectors: _containers.RepeatedCompositeFieldContainer[NamedVectors]
    accepted_at_us: int
    read_at_us: int
    encoded_at_us: int
    source: str
    rejected_reason: str
    rejected_detail: str
    backfill_generation: int
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., collection: _Optional[str] = ..., collection_uid: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., operation: _Optional[_Union[Operation, str]] = ..., version: _Optional[int] = ..., fields_json: _Optional[bytes] = ..., media: _Optional[_Iterable[_Union[MediaReference, _Mapping]]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., vectors: _Optional[_Iterable[_Union[NamedVectors, _Mapping]]] = ..., accepted_at_us: _Optional[int] = ..., read_at_us: _Optional[int] = ..., encoded_at_us: _Optional[int] = ..., source: _Optional[str] = ..., rejected_reason: _Optional[str] = ..., rejected_detail: _Optional[str] = ..., backfill_generation: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("position", "collection", "tenant", "id", "operation", "version", "outcome", "reason", "detail", "superseded_by", "chunks", "accepted_at_us", "read_at_us", "encoded_at_us", "written_at_us", "searchable_at_us")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_BY_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_AT_US_FIELD_NUMBER: _ClassVar[int]
    READ_AT_US_FIELD_NUMBER: _ClassVar[int]
    ENCODED_AT_US_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_AT_US_FIELD_NUMBER: _ClassVar[int]
    SEARCHABLE_AT_US_FIELD_NUMBER: _ClassVar[int]
    position: Position
    collection: str
    tenant: str
    id: str
    operation: Operation
    version: int
    outcome: Outcome
    reason: str
    detail: str
    superseded_by: int
    chunks: int
    accepted_at_us: int
    read_at_us: int
    encoded_at_us: int
    written_at_us: int
    searchable_at_us: int
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., collection: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., operation: _Optional[_Union[Operation, str]] = ..., version: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., superseded_by: _Optional[int] = ..., chunks: _Optional[int] = ..., accepted_at_us: _Optional[int] = ..., read_at_us: _Optional[int] = ..., encoded_at_us: _Optional[int] = ..., written_at_us: _Optional[int] = ..., searchable_at_us: _Optional[int] = ...) -> None: ...

class ReceiptBatch(_message.Message):
    __slots__ = ("receipts",)
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    receipts: _containers.RepeatedCompositeFieldContainer[Receipt]
    def __init__(self, receipts: _Optional[_Iterable[_Union[Receipt, _Mapping]]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "key", "value", "headers", "reason", "detail", "service", "failed_at_us", "cut_from")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_US_FIELD_NUMBER: _ClassVar[int]
    CUT_FROM_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    reason: str
    detail: str
    service: str
    failed_at_us: int
    cut_from: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., service: _Optional[str] = ..., failed_at_us: _Optional[int] = ..., cut_from: _Optional[int] = ...) -> None: ...

class SearchedQuery(_message.Message):
    __slots__ = ("collection", "collection_uid", "tenant", "text", "searched_at_us", "hits")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_AT_US_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_uid: str
    tenant: str
    text: str
    searched_at_us: int
    hits: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., collection_uid: _Optional[str] = ..., tenant: _Optional[str] = ..., text: _Optional[str] = ..., searched_at_us: _Optional[int] = ..., hits: _Optional[_Iterable[str]] = ...) -> None: ...
