"""The one consumer loop: poll -> decode -> process -> settle -> publish -> dead-letter -> commit.

Only the runner knows offsets. A stage (`core.stage`) answers each record with what to publish or with a refusal; what
it raises decides the batch:

* `Unavailable`: the partitions are paused, reading goes back to the batch's first records, polling goes on so
  that the group keeps the member, and reading resumes at the deadline. No batch is held in memory meanwhile.
* `Fenced`: another process may own the partitions. The batch is dropped, nothing is committed, and what is
  still owned is read again.
* what a record made it raise: the batch is taken apart, and the guilty record is set aside (`core.isolation`).
* what the process suffers (no memory, no disk), a stage that lost count, a flood of refusals that may be our own
  fault (`core.breaker`): it leaves `run`, and the process ends.

Several batches may be in flight. `process` runs on as many threads as `process_workers`, `settle` on one, in
order; publishing and committing happen on the runner's own thread, in order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from driftline.core import isolation, metrics
from driftline.core.breaker import Breaker
from driftline.core.dead_letter import dead_letter
from driftline.core.errors import Fenced, InvalidRecord, RecordTooLarge, SpaceMismatch, Unavailable
from driftline.core.health import Health
from driftline.core.isolation import unexpected
from driftline.core.logs import traceparent_of
from driftline.core.ports import Publisher, Subscriber
from driftline.core.records import Clock, Incoming, Outgoing, now_us
from driftline.core.settings import RunnerSettings
from driftline.core.stage import Decode, Processed, Refused, Result, Stage
from driftline.core.topics import LETTER_ROOM
from driftline.core.tracing import span

log = logging.getLogger(__name__)

In = TypeVar("In")

# Between two reports of how far behind this process is.
_LAG_SECONDS = 2.0


@dataclass(slots=True)
class _Batch(Generic[In]):
    records: list[Incoming]
    inputs: list[In] = field(default_factory=list)
    # The records of `inputs`; the others could not be decoded, and are refused.
    decoded: list[Incoming] = field(default_factory=list)
    refused: list[tuple[Incoming, Refused]] = field(default_factory=list)
    done: Future[tuple[Processed, Sequence[Outgoing]]] | None = None
    begun: float = field(default_factory=time.monotonic)

    def first_offsets(self) -> dict[tuple[str, int], int]:
        first: dict[tuple[str, int], int] = {}
        for record in self.records:
            first.setdefault((record.topic, record.partition), record.offset)
        return first

    def next_offsets(self) -> dict[tuple[str, int], int]:
        return {(record.topic, record.partition): record.offset + 1 for record in self.records}


class Runner(Generic[In]):
    def __init__(
        self,
        *,
        service: str,
        subscriber: Subscriber,
        publisher: Publisher,
        stage: Stage[In],
        decode: Decode[In],
        settings: RunnerSettings,
        health: Health,
        process_workers: int = 1,
        breaker: Breaker | None = None,
        largest_record_bytes: int = 8_000_000,
        clock: Clock = now_us,
    ) -> None:
        self._service = service
        self._subscriber = subscriber
        self._publisher = publisher
        self._stage = stage
        self._decode = decode
        self._settings = settings
        self._health = health
        self._clock = clock
        self._breaker = breaker or Breaker(settings.dead_letter_limit, settings.dead_letter_window)
        self._largest_letter = largest_record_bytes + LETTER_ROOM
        self._process_pool = ThreadPoolExecutor(process_workers, thread_name_prefix="process")
        self._settle_pool = ThreadPoolExecutor(1, thread_name_prefix="settle")
        self._in_flight: deque[_Batch[In]] = deque()
        self._buffer: list[Incoming] = []
        self._buffered_bytes = 0
        self._buffer_since = 0.0
        self._stopping = threading.Event()
        self._beat = time.monotonic()
        self._is_behind = False
        self._lag_due = 0.0
        self._lagging: set[tuple[str, int]] = set()

    @property
    def is_behind(self) -> bool:
        """Whether the last batch was cut because it was full: more is waiting. May be asked from any thread."""
        return self._is_behind

    def stop(self) -> None:
        """Finish what is in flight, commit it, and return from `run`."""
        self._stopping.set()

    def alive(self) -> bool:
        """Whether the loop moved in the last minute."""
        return time.monotonic() - self._beat < 60

    # What the subscriber calls, inside `poll`, on the runner's thread.

    def on_revoked(self) -> None:
        """The partitions are about to go: finish and commit what is in flight, leave the rest to the next owner."""
        try:
            while self._in_flight:
                self._finish(self._in_flight[0])
                self._in_flight.popleft()
        except (Unavailable, Fenced) as error:
            log.info("batch left to the next owner", extra={"error": str(error)})
        # The next owner may be this process: then it reads on from its position, not from the committed offset.
        self._subscriber.rewind(self._abandon())
        self._stage.reset()

    def on_lost(self) -> None:
        """The partitions are gone already: nothing may be committed."""
        self._subscriber.rewind(self._abandon())
        self._stage.reset()

    def on_assigned(self, partitions: int) -> None:
        metrics.REBALANCES.inc()
        self._stage.reset()
        self._health.ready("assignment")
        log.info("partitions assigned", extra={"partitions": partitions})

    def run(self) -> None:
        """Run until `stop`. Whatever leaves this method other than by returning is a bug or an open breaker."""
        try:
            while not self._stopping.is_set():
                self._beat = time.monotonic()
                try:
                    self._turn()
                    self._report_lag()
                except Unavailable as error:
                    self._put_off(error)
                except Fenced as error:
                    self._start_over(error)
            self._drain()
        finally:
            self._process_pool.shutdown(wait=True, cancel_futures=True)
            self._settle_pool.shutdown(wait=True, cancel_futures=True)

    def _turn(self) -> None:
        while self._in_flight and self._is_done(self._in_flight[0]):
            self._finish(self._in_flight[0])
            self._in_flight.popleft()
        if self._buffer and self._has_room() and self._is_cut():
            self._submit()
            return
        if self._is_full():
            # The window is full: wait for the oldest batch instead of reading on. Heartbeats go on by themselves.
            self._wait_oldest(0.5)
            return
        self._take(self._subscriber.poll(self._settings.batch_records, self._poll_seconds()))

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._settings.max_in_flight

    @staticmethod
    def _is_done(batch: _Batch[In]) -> bool:
        return batch.done is not None and batch.done.done()

    def _is_full(self) -> bool:
        return len(self._buffer) >= self._settings.batch_records or self._buffered_bytes >= self._settings.batch_bytes

    def _is_cut(self) -> bool:
        return self._is_full() or time.monotonic() - self._buffer_since >= self._settings.batch_age_seconds

    def _poll_seconds(self) -> float:
        if self._buffer and self._has_room():
            return max(0.001, self._settings.batch_age_seconds - (time.monotonic() - self._buffer_since))
        if not self._in_flight:
            return 0.25
        # Also with a batch that waits for room: its age, long passed, would make this a busy loop.
        # A young batch may be done any moment; one of many seconds is not worth 200 polls a second of CPU.
        return 0.005 if time.monotonic() - self._in_flight[0].begun < 0.1 else 0.05

    def _wait_oldest(self, seconds: float) -> None:
        oldest = self._in_flight[0].done
        assert oldest is not None
        try:
            oldest.exception(timeout=seconds)
        except TimeoutError:
            return

    def _take(self, records: list[Incoming]) -> None:
        if not records:
            return
        if not self._buffer:
            self._buffer_since = time.monotonic()
        self._buffer.extend(records)
        self._buffered_bytes += sum(record.size() for record in records)
        for topic, count in Counter(record.topic for record in records).items():
            metrics.RECORDS.labels(topic).inc(count)

    def _submit(self) -> None:
        self._is_behind = self._is_full()
        size = self._settings.batch_records
        batch: _Batch[In] = _Batch(self._buffer[:size])
        self._buffer = self._buffer[size:]
        self._buffered_bytes = sum(record.size() for record in self._buffer)
        for record in batch.records:
            try:
                batch.inputs.append(self._decode(record))
                batch.decoded.append(record)
            except InvalidRecord as error:
                batch.refused.append((record, Refused(error, origin=record.topic)))
            except Exception as error:  # noqa: BLE001 - whatever a record makes us raise sets that record aside
                batch.refused.append((record, Refused(unexpected(error), origin=record.topic)))
        metrics.BATCH_RECORDS.observe(len(batch.records))
        processing = self._process_pool.submit(self._process, batch)
        batch.done = self._settle_pool.submit(self._settle, processing)
        self._in_flight.append(batch)
        metrics.IN_FLIGHT.set(len(self._in_flight))

    def _process(self, batch: _Batch[In]) -> Processed:
        if not batch.inputs:
            return Processed([])
        traces = list(dict.fromkeys(t for r in batch.records if (t := traceparent_of(r.headers))))
        name, first = f"{self._service} process", traces[0] if traces else ""
        with (
            span(name, first, traces[1:], records=len(batch.records)),
            metrics.STAGE_SECONDS.labels("process").time(),
        ):
            return isolation.process(self._stage, batch.inputs)

    @staticmethod
    def _settle(processing: Future[Processed]) -> tuple[Processed, Sequence[Outgoing]]:
        processed = processing.result()
        if processed.settle is None:
            return processed, ()
        with metrics.STAGE_SECONDS.labels("settle").time():
            return processed, processed.settle()

    def _finish(self, batch: _Batch[In]) -> None:
        assert batch.done is not None
        processed, settled = batch.done.result()
        refused = self._publish(batch, list(processed.results), settled)
        with metrics.STAGE_SECONDS.labels("commit").time():
            self._subscriber.commit(batch.next_offsets())
        metrics.BATCHES.labels("ok").inc()
        metrics.IN_FLIGHT.set(max(0, len(self._in_flight) - 1))
        self._health.ready("pipeline")
        self._breaker.count(len(batch.records), [(result.origin, result.error) for _, result in refused])

    def _publish(
        self, batch: _Batch[In], results: list[Result], settled: Sequence[Outgoing]
    ) -> list[tuple[Incoming, Refused]]:
        """Publish what the batch became; returns the records that were set aside.

        A result that is larger than the log takes would be refused however often it was tried: its record is rejected,
        and all is published once more. What was appended already is there twice, as after a crash.
        """
        while True:
            refused = list(batch.refused)
            outgoing: list[Outgoing] = []
            owners: list[int] = []
            for i, (record, result) in enumerate(zip(batch.decoded, results, strict=True)):
                if isinstance(result, Refused):
                    refused.append((record, result))
                told = result.instead if isinstance(result, Refused) else result
                outgoing += told
                owners += [i] * len(told)
            outgoing += settled
            outgoing += [self._letter(record, result) for record, result in refused]
            if self._subscriber.lease_seconds() <= 0:
                raise Fenced("the lease ran out before publishing")
            try:
                with metrics.STAGE_SECONDS.labels("publish").time():
                    if outgoing:
                        self._publisher.publish(outgoing)
                return refused
            except RecordTooLarge as error:
                # Of anything else than a stage's answer we have made it ourselves, and a smaller one is not to be had.
                if error.index >= len(owners) or isinstance(results[owners[error.index]], Refused):
                    raise
                i = owners[error.index]
                results[i] = self._stage.reject(batch.inputs[i], error).results[0]

    def _letter(self, record: Incoming, refused: Refused) -> Outgoing:
        return dead_letter(record, refused.error, self._service, self._largest_letter, self._clock())

    def _report_lag(self) -> None:
        """What is not committed yet: beyond the position, as of the last fetch, and taken but still at work. Every few
        seconds, also while nothing gets through: that is when somebody looks."""
        now = time.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + _LAG_SECONDS
        behind = Counter(self._subscriber.lag())
        for records in (self._buffer, *(batch.records for batch in self._in_flight)):
            behind.update((record.topic, record.partition) for record in records)
        for topic, partition in self._lagging - set(behind):
            # Another replica's by now: the sum over all of them must count it once.
            metrics.LAG.remove(topic, str(partition))
        for (topic, partition), count in behind.items():
            metrics.LAG.labels(topic, str(partition)).set(count)
        self._lagging = set(behind)

    def _abandon(self) -> dict[tuple[str, int], int]:
        """Let everything in flight end, drop it, and return the offsets where it began."""
        first: dict[tuple[str, int], int] = {}
        for batch in self._in_flight:
            if batch.done is not None:
                batch.done.exception()
            for partition, offset in batch.first_offsets().items():
                first.setdefault(partition, offset)
        for record in self._buffer:
            first.setdefault((record.topic, record.partition), record.offset)
        self._in_flight.clear()
        self._buffer.clear()
        self._buffered_bytes = 0
        metrics.IN_FLIGHT.set(0)
        return first

    def _put_off(self, error: Unavailable) -> None:
        metrics.BATCHES.labels("retried").inc()
        if isinstance(error, SpaceMismatch):
            metrics.SPACE_REFUSALS.inc()
        metrics.RETRIES.labels(error.dependency).inc()
        self._health.not_ready("pipeline", str(error))
        log.warning("batch put off", extra={"error": str(error), "retry_after_seconds": error.retry_after_seconds})
        self._subscriber.rewind(self._abandon())
        self._stage.reset()
        self._subscriber.pause()
        deadline = time.monotonic() + error.retry_after_seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            self._beat = time.monotonic()
            try:
                # A rebalance in here may deliver records of fresh partitions: they are batched as always.
                self._take(self._subscriber.poll(self._settings.batch_records, 0.1))
            except Unavailable:
                self._stopping.wait(0.1)
        self._subscriber.resume()

    def _start_over(self, error: Fenced) -> None:
        metrics.BATCHES.labels("fenced").inc()
        log.warning("fenced: dropping what is in flight", extra={"error": str(error)})
        self._subscriber.rewind(self._abandon())
        self._stage.reset()

    def _drain(self) -> None:
        deadline = time.monotonic() + self._settings.drain_seconds
        self._buffer.clear()
        try:
            while self._in_flight and time.monotonic() < deadline:
                self._wait_oldest(max(0.0, deadline - time.monotonic()))
                if not self._is_done(self._in_flight[0]):
                    break
                self._finish(self._in_flight.popleft())
        except (Unavailable, Fenced) as error:
            log.warning("stopped with work in flight; it will be read again", extra={"error": str(error)})
