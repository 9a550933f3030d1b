"""The HTTP APIs over the in-memory twins of everything."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from driftline.adapters.memory import (
    MemoryCache,
    MemoryEmbedder,
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemoryStore,
)
from driftline.core.control import ControlView, ControlWriter, collection_record, log_record, space_record
from driftline.core.health import Health
from driftline.core.receipts import ReceiptTail
from driftline.core.records import LogIncarnation
from driftline.core.settings import AuthSettings, HttpSettings
from driftline.core.store import StoredDocument, WritePlan
from driftline.core.topics import CHANGES
from driftline.ingest.accept import Acceptor
from driftline.ingest.collections import Collections
from driftline.ingest.quota import Quotas
from driftline.ingest.server import create_app as create_ingest
from driftline.ingest.settings import IngestSection, IngestSettings
from driftline.query.search import Searcher
from driftline.query.server import create_app as create_query
from driftline.query.settings import QuerySection, QuerySettings
from driftline.web.auth import Keys
from tests.build import BASE, a_collection, a_follower, a_stored

OFF = AuthSettings(mode="off")
SMALL = HttpSettings(max_body_bytes=100_000)
SHORT_LINES = IngestSection(max_line_bytes=2_000, bulk_lines=3)


class World:
    """Both APIs over one log, one store, one view."""

    def __init__(
        self,
        auth: AuthSettings = OFF,
        max_pending: int = 100,
        tenant_pace: float = 0,
        http: HttpSettings = SMALL,
        ingest_section: IngestSection = SHORT_LINES,
    ) -> None:
        self.log = MemoryLog(2)
        self.publisher = MemoryPublisher(self.log)
        self.view = ControlView()
        self.collection = a_collection()
        self.tenanted = a_collection(name="shared", tenancy=True)
        self.versioned = a_collection(name="revisions", versions="external")
        self.embedder = MemoryEmbedder()
        records = [
            space_record(self.embedder.space),
            log_record(LogIncarnation(CHANGES.name, "t", BASE)),
            collection_record(self.collection),
            collection_record(self.tenanted),
            collection_record(self.versioned),
        ]
        self.publisher.publish(records)
        self.follower = a_follower(self.log, self.view)
        self.tail = ReceiptTail(MemoryLogReader(self.log))
        self.tail.start()
        self.store = MemoryStore()
        self.cache = MemoryCache()
        ingest = IngestSettings(http=http, auth=auth, ingest=ingest_section)
        query = QuerySettings(http=http, auth=auth, query=QuerySection(max_batch=3))
        self.acceptor = Acceptor(self.view, self.publisher, self.tail, max_pending, Quotas(tenant_pace))
        writer = ControlWriter(self.publisher, self.follower)
        collections = Collections(self.view, writer, self.embedder, self.store, "test_")
        keys = Keys(auth)
        searcher = Searcher(self.view, self.embedder, self.store, self.cache, self.tail, query.query)
        self.searcher = searcher
        self.keys = keys
        self.health = Health()
        self.ingest_app = create_ingest(ingest, keys, self.health, self.view, self.acceptor, collections, self.store)
        self.query_app = create_query(query, keys, self.health, searcher)
        self.ingest = TestClient(self.ingest_app, raise_server_exceptions=False)
        self.query = TestClient(self.query_app, raise_server_exceptions=False)
        # The stores of collections are made as soon as index hears of them.
        for known in (self.collection, self.tenanted, self.versioned):
            self.store.ensure(known.target(known.primary.complete, self.embedder.space))

    def close(self) -> None:
        self.tail.close()
        self.follower.close()

    def put_stored(self, *documents: StoredDocument) -> None:
        target = self.collection.target(self.collection.primary.complete, self.embedder.space)
        self.store.apply(target, WritePlan(documents), lambda: 1.0)

    def store_text(self, document_id: str, title: str, **attributes: Any) -> None:
        plain = a_stored(document_id, dimension=32)
        vectors = self.embedder._one(title)[None]
        fields = json.dumps({"title": title, **attributes}).encode()
        self.put_stored(
            StoredDocument(plain.key, "", document_id, 1, fields, attributes, (title,), vectors)
        )  # fmt: skip
