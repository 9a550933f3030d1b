from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Carry(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CARRY_UNSPECIFIED: _ClassVar[Carry]
    CARRY_OWN: _ClassVar[Carry]
    CARRY_MAPPED: _ClassVar[Carry]
    CARRY_ENSEMBLE: _ClassVar[Carry]
CARRY_UNSPECIFIED: Carry
CARRY_OWN: Carry
CARRY_MAPPED: Carry
CARRY_ENSEMBLE: Carry

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

class Leg(_message.Message):
    __slots__ = ("generation", "carry", "compensation")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CARRY_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    carry: Carry
    compensation: str
    def __init__(self, generation: _Optional[int] = ..., carry: _Optional[_Union[Carry, str]] = ..., compensation: _Optional[str] = ...) -> None: ...

class CollectionRecord(_message.Message):
    __slots__ = ("name", "uid", "definition_json", "generations", "created_at_us", "deleted", "legs", "next_generation", "retired", "unfinished")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_JSON_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_US_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    LEGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    definition_json: str
    generations: _containers.RepeatedCompositeFieldContainer[Generation]
    created_at_us: int
    deleted: bool
    legs: _containers.RepeatedCompositeFieldContainer[Leg]
    next_generation: int
    retired: _containers.RepeatedCompositeFieldContainer[Generation]
    unfinished: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., definition_json: _Optional[str] = ..., generations: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., created_at_us: _Optional[int] = ..., deleted: _Optional[bool] = ..., legs: _Optional[_Iterable[_Union[Leg, _Mapping]]] = ..., next_generation: _Optional[int] = ..., retired: _Optional[_Iterable[_Union[Generation, _Mapping]]] = ..., unfinished: _Optional[_Iterable[str]] = ...) -> None: ...

class SpaceRecord(_message.Message):
    __slots__ = ("fingerprint", "encoder", "encoder_version", "dimension", "normalized", "pooling", "query_prefix", "document_prefix", "max_tokens", "max_batch", "kind", "analyzer")
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
    KIND_FIELD_NUMBER: _ClassVar[int]
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
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
    kind: str
    analyzer: str
    def __init__(self, fingerprint: _Optional[str] = ..., encoder: _Optional[str] = ..., encoder_version: _Optional[str] = ..., dimension: _Optional[int] = ..., normalized: _Optional[bool] = ..., pooling: _Optional[str] = ..., query_prefix: _Optional[str] = ..., document_prefix: _Optional[str] = ..., max_tokens: _Optional[int] = ..., max_batch: _Optional[int] = ..., kind: _Optional[str] = ..., analyzer: _Optional[str] = ...) -> None: ...

class StatisticsRecord(_message.Message):
    __slots__ = ("collection_uid", "generation", "content")
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    collection_uid: str
    generation: int
    content: bytes
    def __init__(self, collection_uid: _Optional[str] = ..., generation: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("topic", "topic_id", "base_version")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TOPIC_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    topic: str
    topic_id: str
    base_version: int
    def __init__(self, topic: _Optional[str] = ..., topic_id: _Optional[str] = ..., base_version: _Optional[int] = ...) -> None: ...

class CompensationPart(_message.Message):
    __slots__ = ("id", "part", "parts", "content")
    ID_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    part: int
    parts: int
    content: bytes
    def __init__(self, id: _Optional[str] = ..., part: _Optional[int] = ..., parts: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class UpgradeRecord(_message.Message):
    __slots__ = ("collection", "collection_uid", "state_json")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UID_FIELD_NUMBER: _ClassVar[int]
    STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    collection: str
    collection_uid: str
    state_json: str
    def __init__(self, collection: _Optional[str] = ..., collection_uid: _Optional[str] = ..., state_json: _Optional[str] = ...) -> None: ...

class ControlRecord(_message.Message):
    __slots__ = ("collection", "space", "log", "compensation", "upgrade", "statistics")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    COMPENSATION_FIELD_NUMBER: _ClassVar[int]
    UPGRADE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    collection: CollectionRecord
    space: SpaceRecord
    log: LogRecord
    compensation: CompensationPart
    upgrade: UpgradeRecord
    statistics: StatisticsRecord
    def __init__(self, collection: _Optional[_Union[CollectionRecord, _Mapping]] = ..., space: _Optional[_Union[SpaceRecord, _Mapping]] = ..., log: _Optional[_Union[LogRecord, _Mapping]] = ..., compensation: _Optional[_Union[CompensationPart, _Mapping]] = ..., upgrade: _Optional[_Union[UpgradeRecord, _Mapping]] = ..., statistics: _Optional[_Union[StatisticsRecord, _Mapping]] = ...) -> None: ...
