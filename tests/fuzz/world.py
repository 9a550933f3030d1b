"""What the targets run against: one collection with every type of field, one with tenants, all servers in memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from driftline.adapters.memory import (
    MemoryCache,
    MemoryEmbedder,
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemoryStore,
)
from driftline.core.control import (
    ControlFollower,
    ControlView,
    ControlWriter,
    collection_record,
    log_record,
    space_record,
)
from driftline.core.health import Health
from driftline.core.receipts import ReceiptTail
from driftline.core.records import LogIncarnation, Outgoing
from driftline.core.settings import AuthSettings, HttpSettings
from driftline.core.store import WritePlan
from driftline.core.topics import CHANGES, RECEIPTS
from driftline.encode.settings import EncodeSection
from driftline.encode.stage import EncodeStage
from driftline.index.settings import IndexSection
from driftline.index.stage import IndexStage
from driftline.ingest.accept import Acceptor
from driftline.ingest.collections import Collections
from driftline.ingest.quota import Quotas
from driftline.ingest.server import create_app as create_ingest
from driftline.ingest.settings import IngestSection, IngestSettings
from driftline.ingest.sources import Source, SourceStage, source_log
from driftline.query.search import Searcher
from driftline.query.server import create_app as create_query
from driftline.query.settings import QuerySection, QuerySettings
from driftline.web.auth import Keys
from tests.build import BASE, a_collection, a_stored

_T = TypeVar("_T")
SOURCES = (
    Source(topic="plain", collection="things"),
    Source(
        topic="paths", collection="revisions", id="$key.pk", tenant="who.name", version="rev", fields={"title": "t.u"}
    ),
    Source(topic="inside", collection="things", id="pk", fields={"title": "t", "year": "y", "extra": "e"}),
    Source(topic="changes", collection="things", format="debezium", id="$key.pk", fields={"title": "name"}),
)


class _NullPublisher(MemoryPublisher):
    """Takes everything and keeps nothing: a million documents would fill the memory."""

    def publish(self, records: Sequence[Outgoing], timeout_seconds: float = 30.0) -> list[tuple[int, int]]:
        return [(0, 0)] * len(records)


class World:
    def __init__(self) -> None:
        self.things = a_collection()
        self.shared = replace(a_collection(name="shared", tenancy=True), uid="u2")
        self.revisions = replace(a_collection(name="revisions", tenancy=True, versions="external"), uid="u3")
        self.embedder = MemoryEmbedder()
        log, self.view = MemoryLog(2), ControlView()
        self.view.confirm(float("inf"))
        control = MemoryPublisher(log)
        logs = [CHANGES.name, *(source_log(source.topic) for source in SOURCES)]
        control.publish(
            [
                space_record(self.embedder.space),
                *(log_record(LogIncarnation(name, "t", BASE)) for name in logs),
                *map(collection_record, (self.things, self.shared, self.revisions)),
                Outgoing(RECEIPTS.name, b"", b"", 0),
            ]
        )
        follower = ControlFollower(MemoryLogReader(log), self.view)
        follower.start()
        tail = ReceiptTail(MemoryLogReader(log))
        tail.start()
        self.store = MemoryStore()
        self._fill()
        http = HttpSettings(max_body_bytes=200_000)
        off = AuthSettings(mode="off")
        ingest = IngestSettings(
            http=http, auth=off, ingest=IngestSection(max_wait_seconds=0.001, max_line_bytes=20_000)
        )
        query = QuerySettings(
            http=http, auth=off, query=QuerySection(max_wait_seconds=0.001, max_batch=4, adhoc_plans=True)
        )
        publisher = _NullPublisher(log)
        acceptor = Acceptor(self.view, publisher, tail, 1_000, Quotas(0))
        collections = Collections(self.view, ControlWriter(control, follower), self.embedder, self.store, "fuzz_")
        keys = Keys(off)
        self.ingest = create_ingest(ingest, keys, Health(), self.view, acceptor, collections, self.store)
        searcher = Searcher(self.view, self.embedder, self.store, MemoryCache(), tail, query.query)
        self.query = create_query(query, keys, Health(), searcher)
        self.encode = EncodeStage(self.view, self.embedder, MemoryCache(), EncodeSection())
        self.index = IndexStage(self.view, self.store, MemoryCache(), lambda: 10.0, IndexSection())
        self.sources = tuple(SourceStage(source, self.view) for source in SOURCES)
        self._temporary = tempfile.TemporaryDirectory(prefix="driftline-fuzz-")
        self.folder = Path(self._temporary.name)
        (self.folder / "qrels").mkdir()
        keys = self.file("keys", b"writer write 0123456789abcdef\n")
        self.guarded = AuthSettings(mode="api_key", keys_file=keys)
        self._loop = asyncio.new_event_loop()

    def _fill(self) -> None:
        dimension = self.embedder.space.dimension
        for collection in (self.things, self.shared):
            target = collection.target(collection.primary.complete, self.embedder.space)
            self.store.ensure(target)
            documents = tuple(
                a_stored(id, dimension=dimension, tenant="t" if collection is self.shared else "", kind="x", year=i)
                for i, id in enumerate("abc")
            )
            self.store.apply(target, WritePlan(documents), lambda: 10.0)

    def call(self, app: Any, method: str, target: str, body: bytes) -> int:
        """One request to an application as its server would hand it over: the status."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        status = 0
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(asked, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        self._loop.run_until_complete(app(scope, receive, send))
        return status

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@cache
def world() -> World:
    return World()


@cache
def changed_world() -> World:
    """One of its own for requests: they create collections and delete documents."""
    return World()
