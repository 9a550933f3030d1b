"""The gRPC twin of the query API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from driftline.core import jsons
from driftline.core.errors import DriftlineError, InvalidRequest
from driftline.query import request as requests
from driftline.query.answer import Answer
from driftline.query.search import Searcher
from driftline.web.auth import Keys
from driftline.web.calls import authorize
from driftline.web.problems import problem_of
from driftline.wire.v1 import search_pb2, search_pb2_grpc

SERVICE = "driftline.v1.SearchService"


# What is left out where it is empty or 0.
_OPTIONAL = (
    "cursor", "tenant", "after", "timeout_seconds", "profile", "passages", "budget_ms", "explain_document",
)  # fmt: skip


def _input(given: Any, kind: str | None) -> dict[str, Any]:
    match kind:
        case "text":
            return {"text": given.text}
        case "vector":
            return {"vector": {"values": list(given.vector.values), "space": given.vector.space}}
        case "document":
            return {"document": given.document.id}
    return {}


def _body(r: Any, where: str = "") -> requests.SearchBody:
    """The request as the REST body it stands for. Raises InvalidRequest."""
    raw: dict[str, Any] = {"limit": r.limit or 10, "offset": r.offset, "explain": r.explain}
    if r.HasField("composed"):
        raw["query"] = [_input(t, t.WhichOneof("term")) | {"weight": t.weight or 1.0} for t in r.composed.terms]
    else:
        raw |= _input(r, r.WhichOneof("query"))
    if r.rerank:
        raw["rerank"] = r.rerank
    if r.filter_json:
        raw["filter"] = jsons.parse(r.filter_json, f"{where}.filter_json".lstrip("."))
    if r.output_fields:
        raw["output_fields"] = list(r.output_fields)
    if r.HasField("min_score"):
        raw["min_score"] = r.min_score
    if r.plan_json:
        raw["plan"] = jsons.parse(r.plan_json, f"{where}.plan_json".lstrip("."))
    if r.vector_name:
        raw["index"] = r.vector_name
    raw |= {name: getattr(r, name) for name in _OPTIONAL if getattr(r, name)}
    return requests.parse(raw, where)


def _response(answer: Answer) -> search_pb2.SearchResponse:
    hits = [
        search_pb2.Hit(
            id=hit.id,
            score=hit.score,
            version=hit.version,
            chunk=hit.chunk,
            text=hit.text,
            fields_json=orjson.dumps(hit.fields or {}),
            indexes={name: search_pb2.IndexPlace(**place) for name, place in hit.indexes.items()},
            passages=[search_pb2.Passage(**passage) for passage in hit.passages],
        )
        for hit in answer.page.hits
    ]
    return search_pb2.SearchResponse(
        hits=hits,
        next_cursor=answer.page.next_cursor,
        took_ms=answer.took_ms,
        score_kind=answer.page.score_kind,
        left_out=answer.page.left_out,
        cached=answer.cached,
        explain_json="" if answer.explain is None else orjson.dumps(answer.explain).decode(),
    )


class SearchRpc(search_pb2_grpc.SearchServiceServicer):
    """Like REST's batch, one of gRPC answers each of its searches or tells its problem; a malformed one refuses all."""

    def __init__(self, keys: Keys, searcher: Searcher, max_batch: int) -> None:
        self._keys = keys
        self._searcher = searcher
        self._max_batch = max_batch
        self._batches = ThreadPoolExecutor(8, thread_name_prefix="grpc-batch")

    def Search(self, request: Any, context: Any) -> Any:
        authorize(self._keys, context, "search")
        return _response(self._searcher.search(request.collection, _body(request)))

    def BatchSearch(self, request: Any, context: Any) -> Any:
        authorize(self._keys, context, "search")
        if not 1 <= len(request.searches) <= self._max_batch:
            raise InvalidRequest("invalid_search", f"expected a list of 1 to {self._max_batch}", "searches")
        searches = [(r.collection, _body(r, f"searches[{i}]")) for i, r in enumerate(request.searches)]
        return search_pb2.BatchSearchResponse(results=self._batches.map(self._one, searches))

    def _one(self, search: tuple[str, requests.SearchBody]) -> search_pb2.SearchResponse:
        try:
            return _response(self._searcher.search(*search))
        except DriftlineError as error:
            body = problem_of(error)
            problem = search_pb2.SearchProblem(
                code=body["code"], detail=body["detail"], field=body.get("field", ""), status=body["status"]
            )
            return search_pb2.SearchResponse(problem=problem)

    def GetDocument(self, request: Any, context: Any) -> Any:
        authorize(self._keys, context, "search")
        found = self._searcher.document(request.collection, request.id, request.tenant or None)
        return search_pb2.GetDocumentResponse(
            id=found.id, version=found.version, fields_json=found.fields_json, chunks=len(found.chunks)
        )


def register(servicer: SearchRpc, server: Any) -> None:
    search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
