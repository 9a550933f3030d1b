"""Statistics of lexical indexes: how often terms occur, sampled from what is stored and told to every query service.

They change little while a collection grows: they are taken again when it has grown or shrunk by a tenth.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator

from driftline.core.collections import Collection
from driftline.core.control import ControlView, ControlWriter, statistics_record
from driftline.core.errors import DriftlineError
from driftline.core.ports import VectorStore
from driftline.core.records import Generation
from driftline.core.store import StoreTarget
from driftline.core.vectors import Sparse
from driftline.retrieval.lexical import read_statistics
from driftline.retrieval.term_statistics import Statistics

log = logging.getLogger(__name__)
_GROWTH = 0.1
_FETCHED_AT_ONCE = 500


class StatisticsKeeper:
    """Used by one thread, of the replica that leads. `sample` is the most documents that are read of an index."""

    def __init__(
        self,
        view: ControlView,
        writer: ControlWriter,
        store: VectorStore,
        leading: Callable[[], bool],
        sample: int,
        every_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """An index is looked at every `every_seconds` at most."""
        self._view = view
        self._writer = writer
        self._store = store
        self._leading = leading
        self._sample = sample
        self._every = every_seconds
        self._monotonic = monotonic
        self._looked: dict[str, float] = {}

    def turn(self) -> None:
        """Look at every lexical index whose time has come. What fails is tried again at the next time."""
        if not self._leading():
            self._looked.clear()
            return
        for collection, generation in self._lexical():
            now = self._monotonic()
            if now - self._looked.get(generation.store, float("-inf")) < self._every:
                continue
            self._looked[generation.store] = now
            try:
                self._look(collection, generation)
            except DriftlineError as error:
                log.warning(
                    "statistics not taken",
                    extra={"collection": collection.name, "index": generation.vector_name, "error": str(error)},
                )
        self._forget()

    def _lexical(self) -> list[tuple[Collection, Generation]]:
        return [
            (collection, generation)
            for collection in self._view.collections()
            for index in collection.indexes
            if index.definition.analyzer is not None
            for generation in index.generations
        ]

    def _look(self, collection: Collection, generation: Generation) -> None:
        target = collection.target(generation, self._view.space(generation.space))
        count = self._store.count(target)
        known = read_statistics(self._view.statistics(collection.uid, generation.number)).documents
        if not count or abs(count - known) <= known * _GROWTH:
            return
        statistics = Statistics.of(self._rows(target), count)
        self._writer.write([statistics_record(collection.uid, generation.number, statistics.to_bytes())])
        log.info(
            "statistics taken",
            extra={"collection": collection.name, "index": generation.vector_name, "documents": count},
        )

    def _rows(self, target: StoreTarget) -> Iterator[Sparse]:
        """The vectors of some documents. Keys are hashes, so the first ones are a random sample."""
        keys = (key for key, _, _, chunk in self._store.scan(target) if chunk == 0)
        wanted = list(itertools.islice(keys, self._sample))
        for start in range(0, len(wanted), _FETCHED_AT_ONCE):
            for document in self._store.fetch(target, wanted[start : start + _FETCHED_AT_ONCE], with_vectors=True):
                if isinstance(document.vectors, Sparse):
                    yield document.vectors

    def _forget(self) -> None:
        """Delete the statistics of what is not there any more."""
        live = {(collection.uid, generation.number) for collection, generation in self._lexical()}
        gone = [place for place in self._view.known_statistics() if place not in live]
        if gone:
            self._writer.write([statistics_record(uid, number, None) for uid, number in gone])
