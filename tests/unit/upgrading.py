"""The pipeline in memory with two encoders and the controller of upgrades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

from driftline.adapters.memory import MemoryEmbedder, MemoryLogReader
from driftline.core.collections import Collection
from driftline.core.control import ControlFollower, ControlWriter, collection_record, log_record, space_record
from driftline.core.keys import query_embedding
from driftline.core.ports import Embedder
from driftline.core.receipts import ReceiptTail
from driftline.core.records import LogIncarnation, Priority
from driftline.core.topics import BACKFILL, CHANGES, VECTORS
from driftline.encode.lane import YieldingStage
from driftline.encode.settings import EncodeSection
from driftline.encode.stage import EncodeStage
from driftline.encode.stage import decode as decode_change
from driftline.index.stage import decode as decode_vector
from driftline.query.search import Searcher
from driftline.query.settings import QuerySection
from driftline.retrieval.embeddings import CachedEncoder, Kept, directly
from driftline.retrieval.engine import Engine
from driftline.retrieval.inputs import Text
from driftline.retrieval.leg_search import Wanted
from driftline.upgrade.controller import Controller
from driftline.upgrade.monitor import recent_documents
from driftline.upgrade.settings import UpgradeSection
from driftline.upgrade.state import UpgradeState
from driftline.upgrade.watcher import Beside, InBackground, Seen, Watcher
from tests.build import BASE, Encoders, a_change, a_collection, a_follower, publish_change, spaces_of
from tests.unit.test_pipeline import Pipeline

WORDS = "red blue green shoes hats coats wool silk cotton big small cheap dear warm cold light heavy long".split()  # noqa: SIM905
TITLES = [f"{a} {b} {c} item" for a in WORDS[:4] for b in WORDS[6:12] for c in WORDS[12:]]


def at_once(work: Callable[[], Seen]) -> Future[Seen]:
    future = InBackground()(work)
    wait([future])
    return future


class World(Pipeline):
    """The pipeline with a control topic, two encoders and the controller of upgrades."""

    def __init__(
        self,
        titles: list[str] = TITLES,
        definition: dict[str, object] | None = None,
        encoders: Sequence[MemoryEmbedder] = (),
        **settings: object,
    ) -> None:
        """`encoders` are some other ones, the first in place of the old and the last in place of the new model."""
        known = encoders or (MemoryEmbedder(48, "hashing"), MemoryEmbedder(64, "better"))
        self.old, self.new = known[0], known[-1]
        self.encoders: Embedder = Encoders(*known)
        spaces = {embedder.space.encoder: embedder.space for embedder in known}
        super().__init__(a_collection(self.old.space, spaces, **definition or {}), self.encoders)
        self.embedder = self.old
        self.publisher.publish(
            [
                *map(space_record, spaces_of(self.collection.definition, self.old.space, spaces).values()),
                log_record(LogIncarnation(CHANGES.name, "t1", BASE)),
                collection_record(self.collection),
            ]
        )
        self.follower: ControlFollower = a_follower(self.log, self.view)
        self.leads = True
        values = {"quality_every_seconds": 60, "held_out": 30, "pairs": 80, "window": 50} | settings
        self.settings = UpgradeSection.model_validate(values)
        self.controller = self.a_controller()
        for title in titles:
            publish_change(self.log, a_change(title, title=title))
        self.drain()

    def a_controller(self, beside: Beside = at_once) -> Controller:
        writer = ControlWriter(self.publisher, self.follower)
        watcher = Watcher(
            self.view, self.store, self.encoders, self.settings,
            lambda uid: recent_documents(MemoryLogReader(self.log), uid), beside,
        )  # fmt: skip
        return Controller(
            self.view, writer, self.encoders, self.store, self.publisher, "test_", self.settings, lambda: self.leads,
            watcher,
        )  # fmt: skip

    def a_searcher(self) -> Searcher:
        tail = ReceiptTail(MemoryLogReader(self.log))
        return Searcher(self.view, self.encoders, self.store, self.cache, tail, QuerySection(adhoc_plans=True))

    def backfill(self) -> None:
        stage = EncodeStage(self.view, self.encoders, self.cache, EncodeSection(), Priority.BACKGROUND)
        lane = YieldingStage(stage, lambda: False, 0)
        self._run(BACKFILL.name, "lane", lane, decode_change)
        self._run(VECTORS.name, "index", self.index, decode_vector)

    @property
    def now(self) -> Collection:
        return self.view.collection("things")

    @property
    def state(self) -> UpgradeState:
        return self.controller.state("things")

    def run_until(self, phase: str, between: Callable[[], None] = lambda: None, ticks: int = 60) -> None:
        for _ in range(ticks):
            if self.state.phase == phase:
                return
            self.controller.tick()
            between()
            self.backfill()
        raise AssertionError(f"still {self.state.phase}: {self.state}")

    def versions(self, generation: int) -> dict[str, int]:
        embedder = self.old if generation == 1 else self.new
        found = {g.number: g for g in (*self.now.generations, *self.now.retired)}[generation]
        target = self.now.target(found, embedder.space)
        if self.store.count(target) is None:
            return {}
        return {i: version for _, i, version, chunk in self.store.scan(target) if chunk == 0}

    def find(self, text: str, what: Wanted = Wanted(10)) -> list[str]:
        kept = Kept(0)
        queries = CachedEncoder(directly(self.encoders, Priority.SEARCH), kept, "query", query_embedding, kept.put)
        found = Engine(self.view, self.store, queries).search(
            self.now.primary, self.now.primary.routes, Text(text), what
        )
        return [hit.id for hit in found.hits]

    def close(self) -> None:
        self.follower.close()


def start(world: World, **options: object) -> UpgradeState:
    return world.controller.start("things", "better", dict(options))
