"""A user of the services, as the end-to-end tests need one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import orjson

from driftline.cli.client import each_line
from driftline.local.stack import Stack


class User:
    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.ingest = httpx.Client(base_url=stack.ingest_url, timeout=90, trust_env=False)
        self.query = httpx.Client(base_url=stack.query_url, timeout=90, trust_env=False)
        self.upgrade = httpx.Client(base_url=stack.addresses["upgrade"], timeout=90, trust_env=False)

    def create(self, encoder: str = "hashing", **changes: Any) -> str:
        """A new collection; returns once index has made its store and searches answer."""
        name = f"c{uuid.uuid4().hex[:8]}"
        definition: dict[str, Any] = {
            "name": name,
            "fields": {
                "title": {"type": "text"},
                "body": {"type": "text"},
                "kind": {"type": "keyword", "filter": True},
                "year": {"type": "integer", "filter": True},
            },
            "embedding": {"encoder": encoder, "fields": ["title", "body"]},
        }
        answer = self.ingest.put(f"/v1/collections/{name}", json=definition | changes)
        assert answer.status_code == 201, answer.text
        until(lambda: self.query.post(f"/v1/collections/{name}/search", json={"text": "x"}).status_code == 200, 60)
        return name

    def put(
        self, collection: str, document_id: str, wait: bool = True, version: int | None = None, **fields: Any
    ) -> dict[str, Any]:
        body = {"fields": fields} | ({"version": version} if version else {})
        params = {"wait": "searchable", "timeout_seconds": "30"} if wait else {}
        answer = self.ingest.put(f"/v1/collections/{collection}/documents/{document_id}", json=body, params=params)
        assert answer.status_code in (200, 201, 202), answer.text
        result: dict[str, Any] = answer.json()
        return result

    def delete(self, collection: str, document_id: str, version: int | None = None) -> dict[str, Any]:
        params: dict[str, Any] = {"wait": "searchable", "timeout_seconds": "30"}
        if version:
            params["version"] = version
        answer = self.ingest.delete(f"/v1/collections/{collection}/documents/{document_id}", params=params)
        result: dict[str, Any] = answer.json()
        return result

    def bulk(self, collection: str, lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        answer = self.ingest.post(f"/v1/collections/{collection}/bulk", content=content)
        assert answer.status_code == 200, answer.text
        return each_line(answer.content)

    def search(self, collection: str, text: str = "", **body: Any) -> list[dict[str, Any]]:
        if text:
            body["text"] = text
        answer = self.query.post(f"/v1/collections/{collection}/search", json=body)
        assert answer.status_code == 200, answer.text
        hits: list[dict[str, Any]] = answer.json()["hits"]
        return hits

    def ids(self, collection: str, text: str, **body: Any) -> list[str]:
        return [hit["id"] for hit in self.search(collection, text, **body)]

    def count(self, collection: str) -> int:
        return int(self.ingest.get(f"/v1/collections/{collection}").json()["documents"])


def until(done: Callable[[], bool], seconds: float, every: float = 0.1) -> None:
    """Return when `done`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not done within {seconds} s"
        time.sleep(every)
