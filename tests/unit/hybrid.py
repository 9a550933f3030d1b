"""A collection of a dense and two lexical indexes over the pipeline in memory."""

from __future__ import annotations

from typing import Any

from driftline.adapters.memory import MemoryCache, MemoryLogReader
from driftline.core.receipts import ReceiptTail
from driftline.core.store import StoreTarget
from driftline.query.request import SearchBody, parse
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from tests.build import a_change, a_collection, publish_change
from tests.unit.test_pipeline import Pipeline

INDEXES = {
    "dense": {"encoder": "hashing", "fields": ["title", "body"]},
    "words": {"analyzer": "english", "fields": ["body"]},
    "kinds": {"analyzer": {"language": "none"}, "fields": ["kind"]},
}
ALL = [{"index": name} for name in INDEXES]
PROFILES = {
    "default": [{"search": {"of": [{"index": "dense"}, {"index": "words"}], "fuse": "rrf"}}],
    "everything": [{"search": {"of": ALL}}],
}


class Hybrid(Pipeline):
    """A collection of a dense and two lexical indexes."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(a_collection(indexes=INDEXES, profiles=PROFILES, **changes))
        self.tail = ReceiptTail(MemoryLogReader(self.log))
        section = QuerySection(adhoc_plans=True)
        self.searcher = Searcher(self.view, self.embedder, self.store, MemoryCache(), self.tail, section)

    def target(self, name: str) -> StoreTarget:
        generation = self.view.collection("things").index(name).complete
        return self.collection.target(generation, self.view.space(generation.space))

    def write(self, document: str, delete: bool = False, **fields: Any) -> None:
        publish_change(self.log, a_change(document, delete=delete, collection=self.collection, **fields))

    def search(self, **body: Any) -> list[str]:
        return [hit.id for hit in self.answer(**body).page.hits]

    def answer(self, **body: Any) -> Any:
        return self.searcher.search("things", body_of(**body))

    def held(self) -> dict[str, set[str]]:
        """The ids that each index has rows of."""
        return {name: self._held(self.target(name)) for name in INDEXES}

    def _held(self, target: StoreTarget) -> set[str]:
        return set() if self.store.count(target) is None else {i for _, i, _, _ in self.store.scan(target)}

    def close(self) -> None:
        self.searcher.close()


def body_of(**body: Any) -> SearchBody:
    return parse({"text": "shoes", **body})


def filled() -> Hybrid:
    """With three documents: each index has two or three of them."""
    made = Hybrid()
    made.write("a", title="red shoes", body="running in the rain", kind="shoe")
    made.write("b", title="blue hat", body="shoes are not hats")
    made.write("c", title="a green coat", kind="coat")
    made.drain()
    return made
