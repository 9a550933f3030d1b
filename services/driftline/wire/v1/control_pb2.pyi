from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Generation(_message.Message):
    __slots__ = ("number", "vector_name", "space", "store")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    VECTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    number: int
    vector_name: str
    space: str
    store: str
    def __init__(self, number: _Optional[int] = ..., vector_name: _Optional[str] = ..., space: _Optional[str] = ..., store: _Optional[str] = ...) -> None: ...

class CollectionRecord(_message.Message):
    __slots__ = ("name", "uid", "definition_json", "generations", "created_at_us", "deleted")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    definition_json: str
    generations: _containers.RepeatedCompositeFieldContainer[Generation]
    created_at_us: int
    deleted: bool
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., definition_json: _Optional[str] = ..., generations: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., created_at_us: _Optional[int] = ..., deleted: _Optional[bool] = ...) -> None: ...

class SpaceRecord(_message.Message):
    __slots__ = ("fingerprint", "encoder", "encoder_version", "dimension", "normalized", "pooling", "query_prefix", "document_prefix", "max_tokens", "max_batch")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    ENCODER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    POOLING_FIELD_NUMBER: _ClassVar[int]
    QUERY_PREFIX_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
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
    def __init__(self, fingerprint: _Optional[str] = ..., encoder: _Optional[str] = ..., encoder_version: _Optional[str] = ..., dimension: _Optional[int] = ..., normalized: _Optional[bool] = ..., pooling: _Optional[str] = ..., query_prefix: _Optional[str] = ..., document_prefix: _Optional[str] = ..., max_tokens: _Optional[int] = ..., max_batch: _Optional[int] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("topic", "topic_id", "base_version")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_id: str
    base_version: int
    def __init__(self, topic: _Optional[str] = ..., topic_id: _Optional[str] = ..., base_version: _Optional[int] = ...) -> None: ...

class ControlRecord(_message.Message):
    __slots__ = ("collection", "space", "log")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    collection: CollectionRecord
    space: SpaceRecord
    log: LogRecord
    def __init__(self, collection: _Optional[_Union[CollectionRecord, _Mapping]] = ..., space: _Optional[_Union[SpaceRecord, _Mapping]] = ..., log: _Optional[_Union[LogRecord, _Mapping]] = ...) -> None: ...
