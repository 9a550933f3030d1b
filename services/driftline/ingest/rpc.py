"""The gRPC twin of the ingest API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from driftline.core import jsons
from driftline.core.control import ControlView
from driftline.core.errors import DriftlineError
from driftline.core.records import ChangeEvent, Clock, now_us
from driftline.ingest import validate
from driftline.ingest.accept import Accepted, Acceptor
from driftline.web.auth import Keys
from driftline.web.calls import authorize
from driftline.web.problems import problem_of
from driftline.wire.v1 import ingest_pb2, ingest_pb2_grpc


class IngestRpc(ingest_pb2_grpc.IngestServiceServicer):
    def __init__(
        self,
        keys: Keys,
        view: ControlView,
        acceptor: Acceptor,
        max_wait_seconds: float,
        clock: Clock = now_us,
    ) -> None:
        self._keys = keys
        self._view = view
        self._acceptor = acceptor
        self._max_wait = max_wait_seconds
        self._clock = clock

    def _put_event(self, r: Any) -> ChangeEvent:
        fields = jsons.parse(r.fields_json, "fields_json")
        collection = self._view.collection(r.collection)
        return validate.upsert(collection, r.id, fields, r.version, r.tenant or None, self._clock(), "grpc")

    def _delete_event(self, r: Any) -> ChangeEvent:
        collection = self._view.collection(r.collection)
        return validate.delete(collection, r.id, r.version, r.tenant or None, self._clock(), "grpc")

    def _take(self, event: ChangeEvent, wait_seconds: float) -> ingest_pb2.Accepted:
        accepted = self._acceptor.accept([event])[0]
        if wait_seconds > 0:
            accepted = self._acceptor.wait(accepted, min(wait_seconds, self._max_wait))
        return _told(accepted, event)

    def PutDocument(self, request: Any, context: Any) -> Any:
        authorize(self._keys, context, "write")
        return ingest_pb2.PutDocumentResponse(accepted=self._take(self._put_event(request), request.wait_seconds))

    def DeleteDocument(self, request: Any, context: Any) -> Any:
        authorize(self._keys, context, "write")
        taken = self._take(self._delete_event(request), request.wait_seconds)
        return ingest_pb2.DeleteDocumentResponse(accepted=taken)

    def Bulk(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        """One answer per change, unlike over HTTP: who does not read them is sent no more, and may send no more."""
        authorize(self._keys, context, "write")
        for change in request_iterator:
            try:
                put = change.WhichOneof("change") == "put"
                event = self._put_event(change.put) if put else self._delete_event(change.delete)
                accepted = self._acceptor.accept([event], paced=True)[0]
                yield ingest_pb2.BulkResponse(accepted=_told(accepted, event))
                # What is not read is not sent: the client waits by itself.
                time.sleep(self._acceptor.ahead_seconds([event]))
            except DriftlineError as error:
                body = problem_of(error)
                problem = ingest_pb2.Problem(code=body["code"], detail=body["detail"], field=body.get("field", ""))
                yield ingest_pb2.BulkResponse(problem=problem)


def _told(accepted: Accepted, event: ChangeEvent) -> ingest_pb2.Accepted:
    body = accepted.as_json(event.id)
    return ingest_pb2.Accepted(
        token=body["token"], version=body["version"], state=body["state"], reason=body.get("reason", "")
    )


def register(servicer: IngestRpc, server: Any) -> None:
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]


SERVICE = "driftline.v1.IngestService"
