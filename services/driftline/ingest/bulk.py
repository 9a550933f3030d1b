"""Bulk requests: lines in, results out, both as streams, and neither ever held as a whole.

A client may read the results while it sends, or send everything first, as most do. Results that it does not read are
kept up to a bound; at that bound the lines that follow are only counted, since to stop reading would leave two that
wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from driftline.core import jsons, metrics
from driftline.core.collections import Collection
from driftline.core.errors import DriftlineError, InvalidRequest, Overloaded
from driftline.core.records import ChangeEvent, Clock
from driftline.ingest import validate
from driftline.ingest.accept import Accepted, Acceptor
from driftline.ingest.settings import IngestSection
from driftline.web.problems import problem_of

# Lines are handled in groups of `bulk_lines`, or of so many bytes if those are reached first.
_GROUP_BYTES = 1_000_000
# The lines of a request are told while the answer stays within _FREE_BYTES + _RATIO x what was read, which answers to
# real documents do by far, and while the client leaves at most _UNREAD_BYTES of it unread.
_FREE_BYTES = 262_144
_RATIO = 8
_UNREAD_BYTES = 2_000_000

Which = Literal["all", "errors"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one line: accepted under an id, or a problem."""

    accepted: Accepted | None = None
    id: str = ""
    problem: dict[str, Any] | None = None


@dataclass(slots=True)
class Results:
    """Lines as they are told: accepted ones each, consecutive ones with an equal problem together; then the summary."""

    which: Which
    lines: int = 0
    accepted: int = 0
    told: int = 0  # lines up to this one are in the answer
    telling: bool = True
    refused: Counter[str] = field(default_factory=Counter)
    tokens: dict[int, int] = field(default_factory=dict)
    _written: int = 0
    _run: dict[str, Any] | None = None

    def tell(self, outcomes: Sequence[Outcome], read: int, unread: int) -> bytes:
        """The part of the answer that these lines, the request's next, make; `read` bytes of it were read so far."""
        told = bytearray()
        for outcome in outcomes:
            self.lines += 1
            self._count(outcome)
            size = self._written + len(told)
            if self.telling and (size > _FREE_BYTES + _RATIO * read or unread + len(told) > _UNREAD_BYTES):
                told += self._end_run()
                self.telling = False
            if self.telling:
                told += self._line(outcome)
                self.told = self.lines
        self._written += len(told)
        return bytes(told)

    def end(self, problem: dict[str, Any] | None = None) -> bytes:
        """The last lines of the answer. `problem`: why the rest of the request was not read."""
        summary: dict[str, Any] = {
            "lines": self.lines,
            "accepted": self.accepted,
            "refused": self.refused.total(),
            "told": self.told,
            "refused_by_code": dict(self.refused),
            "tokens": [f"{partition}.{offset}" for partition, offset in sorted(self.tokens.items())],
        }
        if problem is not None:
            summary["problem"] = problem
        return self._end_run() + orjson.dumps({"summary": summary}) + b"\n"

    def _count(self, outcome: Outcome) -> None:
        if outcome.problem is not None:
            self.refused[outcome.problem["code"]] += 1
        elif outcome.accepted is not None:
            self.accepted += 1
            partition, offset = outcome.accepted.position.partition, outcome.accepted.position.offset
            self.tokens[partition] = max(offset, self.tokens.get(partition, 0))

    def _line(self, outcome: Outcome) -> bytes:
        if outcome.problem is not None:
            if self._run is not None and self._run["problem"] == outcome.problem:
                self._run["last_line"] = self.lines
                return b""
            ended = self._end_run()
            self._run = {"line": self.lines, "problem": outcome.problem}
            return ended
        ended = self._end_run()
        if outcome.accepted is None or self.which == "errors":
            return ended
        return ended + orjson.dumps({"line": self.lines, **outcome.accepted.as_json(outcome.id)}) + b"\n"

    def _end_run(self) -> bytes:
        run, self._run = self._run, None
        return b"" if run is None else orjson.dumps(run) + b"\n"


class BulkGate:
    """How many bulk requests there are at once. Each holds up to some megabytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Raises Overloaded."""
        if self._now >= self._most:
            raise Overloaded(f"{self._most} bulk requests are under way, the most at once")
        self._now += 1
        try:
            yield
        finally:
            self._now -= 1


class Lines:
    """What becomes of a collection's lines. Of one request."""

    def __init__(
        self, collection: Collection, tenant: str | None, acceptor: Acceptor, clock: Clock, settings: IngestSection
    ) -> None:
        self._collection = collection
        self._tenant = tenant
        self._acceptor = acceptor
        self._clock = clock
        self.settings = settings
        # How long to rest before more is read: whose lines the last ones were is ahead of its pace by so much.
        self.ahead_seconds = 0.0

    def take(self, lines: Sequence[bytes]) -> list[Outcome]:
        """One outcome per line, in order."""
        outcomes = [Outcome()] * len(lines)
        events: list[tuple[int, ChangeEvent]] = []
        for i, line in enumerate(lines):
            try:
                events.append((i, self._event(line)))
            except InvalidRequest as error:
                metrics.EVENTS_REFUSED.labels(error.code).inc()
                outcomes[i] = Outcome(problem=problem_of(error))
        try:
            accepted = self._acceptor.accept([event for _, event in events], paced=True) if events else []
            for (i, event), result in zip(events, accepted, strict=True):
                outcomes[i] = Outcome(result, event.id)
        except DriftlineError as error:
            refused = Outcome(problem=problem_of(error))
            for i, _ in events:
                outcomes[i] = refused
        self.ahead_seconds = self._acceptor.ahead_seconds([event for _, event in events])
        return outcomes

    def _event(self, line: bytes) -> ChangeEvent:
        longest = self.settings.max_line_bytes
        if len(line) > longest:
            raise InvalidRequest("line_too_long", f"expected at most {longest} bytes", "line", 413)
        return validate.bulk_line(self._collection, jsons.parse(line, "line"), self._tenant, self._clock())


class BulkAnswer(Response):
    """Reads the request's parts and answers as it goes. Errors before the first result have a status of their own."""

    media_type = "application/x-ndjson"

    def __init__(self, gate: BulkGate, lines: Lines, parts: AsyncIterator[bytes], which: Which) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._gate = gate
        self._lines = lines
        self._parts = parts
        self._results = Results(which)
        self._backlog = _Backlog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        with self._gate.enter():
            reading = asyncio.create_task(self._read())
            try:
                part = await self._backlog.take(reading)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                while part:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    part = await self._backlog.take(reading)
                await send({"type": "http.response.body", "body": b""})
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        settings, read = self._lines.settings, 0
        try:
            async for group in line_groups(self._parts, settings.bulk_lines, settings.max_line_bytes):
                # What is not read is not sent: a client that is ahead of its pace waits by itself.
                await asyncio.sleep(self._lines.ahead_seconds)
                outcomes = await run_in_threadpool(self._lines.take, group)
                read += sum(map(len, group))
                self._backlog.put(self._results.tell(outcomes, read, self._backlog.size))
        except InvalidRequest as error:
            if not self._results.lines:
                raise
            self._backlog.put(self._results.end(problem_of(error)))
            return
        self._backlog.put(self._results.end())


class _Backlog:
    """Parts of the answer between the one who reads the request and the one who sends."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        self._more = asyncio.Event()

    def put(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self.size += len(part)
            self._more.set()

    async def take(self, source: asyncio.Task[None]) -> bytes:
        """All that is there, waiting for something to be; empty when the source is done. Raises what it raised."""
        if not self._parts:
            self._more.clear()
            waiting = asyncio.ensure_future(self._more.wait())
            await asyncio.wait((waiting, source), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if source.done() and not self._parts:
                source.result()
        taken, self._parts, self.size = b"".join(self._parts), [], 0
        return taken


async def line_groups(parts: AsyncIterator[bytes], lines: int, longest: int) -> AsyncIterator[list[bytes]]:
    """The body's lines in groups. A line over `longest` bytes is cut there, and refused by the one who parses it."""
    group: list[bytes] = []
    size = 0
    rest = bytearray()
    async for part in parts:
        rest += part
        *whole, tail = rest.split(b"\n")
        # Keep one byte over the limit of an endless line, so that it is known to be too long.
        rest = tail if len(tail) <= longest else tail[: longest + 1]
        for line in whole:
            if line.strip():
                group.append(bytes(line[: longest + 1]))
                size += len(group[-1])
            if len(group) >= lines or size >= _GROUP_BYTES:
                yield group
                group, size = [], 0
    if rest.strip():
        group.append(bytes(rest))
    if group:
        yield group
