"""Driving the backfill: which documents to ask for next, and which of them are there by now.

Nothing is remembered that the two stores do not know: a restart looks at both again and asks for what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from driftline.core.collections import Collection, fields_of
from driftline.core.indexes import Index
from driftline.core.ports import Publisher, VectorStore
from driftline.core.store import StoredDocument, StoreTarget
from driftline.retrieval.backfill import backfill_record
from driftline.upgrade.state import Progress

_SCANNED_AT_ONCE = 1_000
_ASKED_AT_ONCE = 200
# A document that did not come this many times is refused by the new encoder: its dead letters say why.
_TRIES = 3
_REMEMBERED = 100_000


class Backfill:
    """One upgrade's backfill. Used by one thread; bounded by the window, whatever the collection's size."""

    def __init__(
        self,
        store: VectorStore,
        publisher: Publisher,
        collection: Collection,
        olds: Sequence[StoreTarget],
        new: StoreTarget,
        new_number: int,
        window: int,
        per_second: float,
        retry_seconds: float,
        first: Sequence[str] = (),
        added: Index | None = None,
    ) -> None:
        """`first` are the keys of documents to begin with. `olds` hold every document together; several where an index
        is `added`, for which some documents may have nothing."""
        self._store = store
        self._publisher = publisher
        self._collection = collection
        self._olds = olds
        self._added = added
        self._new = new
        self._number = new_number
        self._window = window
        self._per_second = per_second
        self._retry_seconds = retry_seconds
        self._first = first
        self._asked: dict[str, tuple[int, float]] = {}
        self._pending: list[tuple[str, int]] = []
        self._tries: dict[tuple[str, int], int] = {}
        self._missing: Iterator[list[tuple[str, int]]] | None = None
        self._behind: dict[str, int] = {}
        self._passes = 0
        self._arrived: list[tuple[float, int]] = []
        self._allowance = 0.0
        self._ticked = time.monotonic()

    def tick(self) -> bool:
        """Take what has arrived off the window, and ask for more. True when everything is there.

        That is when all that a whole pass found missing has arrived. A pass that finds nothing may never come: where
        documents change all the time, some are always on their way to the one generation and there in the other.
        """
        self._note_arrivals()
        if self._missing is None and self._behind:
            if self._asked:
                return False
            if self._all_there():
                return True
        now = time.monotonic()
        if self._per_second:
            burst = max(1.0, self._per_second)
            self._allowance = min(burst, self._allowance + self._per_second * (now - self._ticked))
        self._ticked = now
        while (room := self._room()) > 0:
            if not self._pending and not self._read_on():
                return not self._behind and not self._asked
            self._ask(self._pending[:room])
            self._pending = self._pending[room:]
        return False

    def _read_on(self) -> bool:
        """Fill `pending` with the next documents that are missing; False at the end of a pass."""
        if self._missing is None:
            self._missing, self._behind = self._scan(), {}
        batch = next(self._missing, None)
        if batch is None:
            self._missing = None
            self._passes += 1
            return False
        # One more than the window says that there are too many: what is kept of them is bounded.
        self._behind |= dict(batch[: self._window + 1 - len(self._behind)])
        self._pending = [(k, v) for k, v in batch if k not in self._asked and self._tries.get((k, v), 0) < _TRIES]
        return True

    def _all_there(self) -> bool:
        """Whether what the last pass found missing has come, in that version or a newer one."""
        if len(self._behind) > self._window:
            return False
        held = self._store.versions(self._new, list(self._behind), None)
        return all(key in held and held[key].version >= version for key, version in self._behind.items())

    def _room(self) -> int:
        room = self._window - len(self._asked)
        return min(room, int(self._allowance)) if self._per_second else room

    def _note_arrivals(self) -> None:
        """Forget what is there by now, and what did not come in time: the next pass finds it again."""
        keys = list(self._asked)
        arrived = 0
        for part in _parts(keys, _SCANNED_AT_ONCE):
            for key, stored in self._store.versions(self._new, part, 0).items():
                if stored.version >= self._asked[key][0]:
                    del self._asked[key]
                    arrived += 1
        now = time.monotonic()
        self._arrived = [(at, n) for at, n in self._arrived if now - at < 60] + ([(now, arrived)] if arrived else [])
        for key, (version, at) in list(self._asked.items()):
            if now - at > self._retry_seconds:
                del self._asked[key]
                if len(self._tries) < _REMEMBERED:
                    self._tries[(key, version)] = self._tries.get((key, version), 0) + 1

    def _scan(self) -> Iterator[list[tuple[str, int]]]:
        """(key, version) of documents that the new generation lacks or holds in an older version, in parts."""
        for part in _parts(self._first, _ASKED_AT_ONCE):
            for old in self._olds:
                held = self._store.versions(old, part, None)
                live = [(key, held[key].version) for key in part if key in held and not held[key].deleted]
                if missing := self._lacking(live):
                    yield missing
        self._first = ()
        for old in self._olds:
            heads: list[tuple[str, int]] = []
            for key, _, version, chunk in self._store.scan(old):
                if chunk == 0:
                    heads.append((key, version))
                if len(heads) >= _ASKED_AT_ONCE:
                    if missing := self._lacking(heads):
                        yield missing
                    heads = []
            if missing := self._lacking(heads):
                yield missing

    def _lacking(self, heads: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        held = self._store.versions(self._new, [key for key, _ in heads], None) if heads else {}
        lacking = [(key, version) for key, version in heads if key not in held or held[key].version < version]
        if self._added is None or not lacking:
            return lacking
        documents = self._documents([key for key, _ in lacking])
        return [
            (key, version)
            for key, version in lacking
            if key in documents and self._added.text_of(fields_of(documents[key].fields_json)).strip()
        ]

    def _documents(self, keys: Sequence[str]) -> dict[str, StoredDocument]:
        """The newest version that is stored of each."""
        newest: dict[str, StoredDocument] = {}
        for old in self._olds:
            for document in self._store.fetch(old, keys, with_vectors=False):
                known = newest.get(document.key)
                if known is None or document.version > known.version:
                    newest[document.key] = document
        return newest

    def _ask(self, wanted: Sequence[tuple[str, int]]) -> None:
        documents = list(self._documents([key for key, _ in wanted]).values()) if wanted else []
        records = [backfill_record(self._collection, document, self._number) for document in documents]
        if records:
            self._publisher.publish(records)
        now = time.monotonic()
        self._asked |= {document.key: (document.version, now) for document in documents}
        self._allowance -= len(documents)

    def progress(self) -> Progress:
        """Counted in the stores."""
        span = 60.0
        if self._arrived:
            span = min(60.0, max(1.0, time.monotonic() - self._arrived[0][0]))
        rate = sum(n for _, n in self._arrived) / span
        return Progress(
            total=max(self._store.count(old) or 0 for old in self._olds),
            done=self._store.count(self._new) or 0,
            requested=len(self._asked),
            refused=sum(1 for n in self._tries.values() if n >= _TRIES),
            per_second=round(rate, 2),
            passes=self._passes,
        )


def _parts(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
