from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VectorInput(_message.Message):
    __slots__ = ("values", "space")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    space: str
    def __init__(self, values: _Optional[_Iterable[float]] = ..., space: _Optional[str] = ...) -> None: ...

class DocumentInput(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class QueryTerm(_message.Message):
    __slots__ = ("text", "vector", "document", "weight")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    text: str
    vector: VectorInput
    document: DocumentInput
    weight: float
    def __init__(self, text: _Optional[str] = ..., vector: _Optional[_Union[VectorInput, _Mapping]] = ..., document: _Optional[_Union[DocumentInput, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class ComposedInput(_message.Message):
    __slots__ = ("terms",)
    TERMS_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.RepeatedCompositeFieldContainer[QueryTerm]
    def __init__(self, terms: _Optional[_Iterable[_Union[QueryTerm, _Mapping]]] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "tenant", "text", "vector", "document", "composed", "limit", "offset", "filter_json", "output_fields", "min_score", "after", "timeout_seconds", "explain", "vector_name", "cursor", "rerank", "profile", "plan_json", "passages", "budget_ms", "explain_document")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    COMPOSED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FILTER_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELDS_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    VECTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenant: str
    text: str
    vector: VectorInput
    document: DocumentInput
    composed: ComposedInput
    limit: int
    offset: int
    filter_json: str
    output_fields: _containers.RepeatedScalarFieldContainer[str]
    min_score: float
    after: str
    timeout_seconds: float
    explain: bool
    vector_name: str
    cursor: str
    rerank: int
    profile: str
    plan_json: str
    passages: int
    budget_ms: int
    explain_document: str
    def __init__(self, collection: _Optional[str] = ..., tenant: _Optional[str] = ..., text: _Optional[str] = ..., vector: _Optional[_Union[VectorInput, _Mapping]] = ..., document: _Optional[_Union[DocumentInput, _Mapping]] = ..., composed: _Optional[_Union[ComposedInput, _Mapping]] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., filter_json: _Optional[str] = ..., output_fields: _Optional[_Iterable[str]] = ..., min_score: _Optional[float] = ..., after: _Optional[str] = ..., timeout_seconds: _Optional[float] = ..., explain: _Optional[bool] = ..., vector_name: _Optional[str] = ..., cursor: _Optional[str] = ..., rerank: _Optional[int] = ..., profile: _Optional[str] = ..., plan_json: _Optional[str] = ..., passages: _Optional[int] = ..., budget_ms: _Optional[int] = ..., explain_document: _Optional[str] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("id", "score", "version", "chunk", "text", "fields_json", "indexes", "passages")
    class IndexesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: IndexPlace
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[IndexPlace, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    id: str
    score: float
    version: int
    chunk: int
    text: str
    fields_json: bytes
    indexes: _containers.MessageMap[str, IndexPlace]
    passages: _containers.RepeatedCompositeFieldContainer[Passage]
    def __init__(self, id: _Optional[str] = ..., score: _Optional[float] = ..., version: _Optional[int] = ..., chunk: _Optional[int] = ..., text: _Optional[str] = ..., fields_json: _Optional[bytes] = ..., indexes: _Optional[_Mapping[str, IndexPlace]] = ..., passages: _Optional[_Iterable[_Union[Passage, _Mapping]]] = ...) -> None: ...

class IndexPlace(_message.Message):
    __slots__ = ("score", "rank")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    score: float
    rank: int
    def __init__(self, score: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("index", "chunk", "score", "text")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    index: str
    chunk: int
    score: float
    text: str
    def __init__(self, index: _Optional[str] = ..., chunk: _Optional[int] = ..., score: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "next_cursor", "took_ms", "cached", "explain_json", "problem", "score_kind", "left_out")
    class LeftOutEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_JSON_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    next_cursor: str
    took_ms: float
    cached: bool
    explain_json: str
    problem: SearchProblem
    score_kind: str
    left_out: _containers.ScalarMap[str, str]
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., took_ms: _Optional[float] = ..., cached: _Optional[bool] = ..., explain_json: _Optional[str] = ..., problem: _Optional[_Union[SearchProblem, _Mapping]] = ..., score_kind: _Optional[str] = ..., left_out: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SearchProblem(_message.Message):
    __slots__ = ("code", "detail", "field", "status")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    field: str
    status: int
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., field: _Optional[str] = ..., status: _Optional[int] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("searches",)
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    searches: _containers.RepeatedCompositeFieldContainer[SearchRequest]
    def __init__(self, searches: _Optional[_Iterable[_Union[SearchRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SearchResponse]
    def __init__(self, results: _Optional[_Iterable[_Union[SearchResponse, _Mapping]]] = ...) -> None: ...

class GetDocumentRequest(_message.Message):
    __slots__ = ("collection", "tenant", "id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenant: str
    id: str
    def __init__(self, collection: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class GetDocumentResponse(_message.Message):
    __slots__ = ("id", "version", "fields_json", "chunks")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: int
    fields_json: bytes
    chunks: int
    def __init__(self, id: _Optional[str] = ..., version: _Optional[int] = ..., fields_json: _Optional[bytes] = ..., chunks: _Optional[int] = ...) -> None: ...
