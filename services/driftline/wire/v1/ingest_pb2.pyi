from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PutDocumentRequest(_message.Message):
    __slots__ = ("collection", "tenant", "id", "fields_json", "version", "wait_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_JSON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenant: str
    id: str
    fields_json: bytes
    version: int
    wait_seconds: float
    def __init__(self, collection: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., fields_json: _Optional[bytes] = ..., version: _Optional[int] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class PutDocumentResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ...) -> None: ...

class DeleteDocumentRequest(_message.Message):
    __slots__ = ("collection", "tenant", "id", "version", "wait_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenant: str
    id: str
    version: int
    wait_seconds: float
    def __init__(self, collection: _Optional[str] = ..., tenant: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class DeleteDocumentResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ...) -> None: ...

class BulkRequest(_message.Message):
    __slots__ = ("put", "delete")
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    put: PutDocumentRequest
    delete: DeleteDocumentRequest
    def __init__(self, put: _Optional[_Union[PutDocumentRequest, _Mapping]] = ..., delete: _Optional[_Union[DeleteDocumentRequest, _Mapping]] = ...) -> None: ...

class BulkResponse(_message.Message):
    __slots__ = ("accepted", "problem")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    problem: Problem
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("token", "version", "state", "reason")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    token: str
    version: int
    state: str
    reason: str
    def __init__(self, token: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("code", "detail", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    field: str
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...
