"""`make soak`: the whole system at 70 % of its capacity for half an hour, and whether anything grows.

Two producers write upserts, updates and deletes with external versions, some late and every 7th twice; searches run
beside them. A burst measures the capacity first. Asserted at the end: the index holds what the oracle says, every
accepted event has a final receipt, none was rejected, no search failed, no process ended, and no service of ours grows.

On Apache Kafka and Redis 7; DRIFTLINE_BENCH_KAFKA=embedded takes the embedded broker, for a quick look.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from driftline.local.stack import SERVICES, Stack, is_service
from tests.bench.memory import Growth, Memory, Samples, growth, table
from tests.bench.settled import Account, Freshness, Receipts
from tests.bench.system import KAFKA, ROOT, commit, machine, say, system
from tests.client import User, until
from tests.load import Load, Searches
from tests.oracle import VERSIONED, differences, stored, text_of

MINUTES = float(os.environ.get("DRIFTLINE_SOAK_MINUTES", "30"))
SHARE = 0.7
DOCUMENTS = 10_000
PRODUCERS = 2
LINES = 50  # of a request
# So many events may be on their way: it keeps every core busy in the burst, and the bench's memory bounded after it.
UNSETTLED = 5_000
WARM_SECONDS, BURST_SECONDS = 15.0, 30.0
# A leak that an operator would meet within a week on a pod of 1 GiB takes 6 MB an hour; an interval of a quarter of an
# hour cannot be narrower than some MB an hour, as memory moves in steps.
MOST_MB_PER_HOUR = 20.0
# The second half of a shorter run is still warming up, and too short for its slope to mean anything.
JUDGED_MINUTES = 20.0
PICTURE = "pictures/soak/memory.png"


class Paced(Load):
    """A producer of so many events a second; without a rate, as many as the system settles."""

    def __init__(self, stack: Stack, collection: str, account: Account, number: int) -> None:
        super().__init__(stack, collection, account, number, seed=1, pause_seconds=0)
        self.account = account
        self.per_second = math.inf
        self.due = time.monotonic()

    def pace(self, per_second: float) -> None:
        self.due, self.per_second = time.monotonic(), per_second

    def step(self) -> None:
        super().step()
        while len(self.account.waiting) > UNSETTLED and not self.halt.wait(0.01):
            continue
        # What was missed for a second or more, as when the machine stood still, is not made up for.
        self.due = max(self.due + (LINES + -(-LINES // 7)) / self.per_second, time.monotonic() - 1)
        self.halt.wait(max(0.0, self.due - time.monotonic()))

    def some_lines(self) -> list[dict[str, object]]:
        """Versions are unique by the count and the producer's number, and late within a request and between the
        producers: nothing has to be remembered for it, however long this runs."""
        versions = [(self.sent + i) * PRODUCERS + self.number + 1 for i in range(LINES)]
        self.sent += LINES
        self.random.shuffle(versions)
        return [self.line(f"d{self.random.randrange(DOCUMENTS)}", version) for version in versions]

    def line(self, document_id: str, version: int) -> dict[str, object]:
        if self.random.random() < 0.2:
            return {"id": document_id, "version": version, "operation": "delete"}
        body = text_of(document_id, version, self.random.randint(1, 4))
        return {"id": document_id, "version": version, "fields": {"body": body}}


@dataclass(frozen=True, slots=True)
class Found:
    capacity: float  # events/s
    seconds: float
    events: int
    searches: int
    refused: int
    repeated: int
    freshness: Freshness
    memory: Mapping[str, Samples]
    growth: Mapping[str, Growth]
    wrong: list[str]  # what must not be, in words


class Soak:
    def __init__(self, stack: Stack) -> None:
        self.stack, self.user = stack, User(stack)
        self.account = Account()
        self.collection = self.user.create(**VERSIONED)
        self.receipts = Receipts(stack, self.collection, self.account)
        self.producers = [Paced(stack, self.collection, self.account, i) for i in range(PRODUCERS)]
        self.searches = Searches(stack, self.collection)
        self.memory = Memory(stack)
        self.watched: tuple[Paced | Receipts | Memory, ...] = (*self.producers, self.receipts, self.memory)

    def run(self) -> Found:
        memory = self.memory
        writing: tuple[Paced | Searches, ...] = (*self.producers, self.searches)
        begun = self.receipts.begun
        try:
            for thread in (self.receipts, *writing):
                thread.start()
            capacity = self.burst()
            say(f"capacity: {capacity:.0f} events/s; {MINUTES:g} minutes at {SHARE * capacity:.0f} events/s")
            for producer in self.producers:
                producer.pace(SHARE * capacity / PRODUCERS)
            until(lambda: len(self.account.waiting) < UNSETTLED / 5, 120)
            before, begun = self.account.events, time.monotonic()
            self.receipts.begin()
            memory.start()
            self.wait(begun + 60 * MINUTES)
        finally:
            for thread in (memory, *writing):
                thread.halt.set()
            for thread in (memory, *writing):
                if thread.ident is not None:
                    thread.join(90)
            seconds, last = time.monotonic() - begun, self.account.events
            self.settle()
        found = {name: growth(samples) for name, samples in memory.samples.items() if len(samples) >= 4}
        return Found(
            capacity=capacity,
            seconds=seconds,
            events=last - before,
            searches=self.searches.answered,
            refused=sum(p.refused for p in self.producers),
            repeated=self.account.repeated,
            freshness=self.receipts.freshness,
            memory=memory.samples,
            growth=found,
            wrong=[*self.wrong(), *(f"{name} ended" for name in memory.ended()), *too_much(self.stack, found)],
        )

    def burst(self) -> float:
        """Events/s that get their receipt while producers wait for nothing but a bound of events on their way."""
        self.wait(time.monotonic() + WARM_SECONDS)
        settled, begun = self.account.settled, time.monotonic()
        self.wait(begun + BURST_SECONDS)
        return (self.account.settled - settled) / (time.monotonic() - begun)

    def wait(self, deadline: float) -> None:
        """A minute a line; a producer or reader that fails ends the run."""
        told = time.monotonic()
        while (now := time.monotonic()) < deadline:
            for thread in self.watched:
                if thread.error is not None:
                    raise thread.error
            if now - told >= 60:
                told = now
                say(f"  {self.account.events} events, {len(self.account.waiting)} on their way")
            time.sleep(min(0.5, deadline - now))

    def settle(self) -> None:
        """Every accepted event gets its receipt within two minutes, or is told of."""
        deadline = time.monotonic() + 120
        while self.account.waiting and self.receipts.is_alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.receipts.halt.set()
        if self.receipts.ident is not None:
            self.receipts.join(30)

    def wrong(self) -> list[str]:
        found = [f"{thread.name} failed: {thread.error!r}" for thread in self.watched if thread.error]
        if waiting := sorted(self.account.waiting):
            found.append(f"{len(waiting)} of {self.account.events} events have no receipt: {waiting[:5]}")
        if self.account.rejected:
            found.append(f"events were rejected: {self.account.rejected[0]}")
        if self.searches.failed:
            found.append(f"{len(self.searches.failed)} searches failed: {self.searches.failed[:3]}")
        try:
            wrong = differences(stored(self.stack, self.user, self.collection), self.account)
        except AssertionError as error:
            wrong = [str(error)]
        return [*found, f"{len(wrong)} documents differ: {wrong[:5]}"] if wrong else found


def too_much(stack: Stack, found: Mapping[str, Growth]) -> list[str]:
    """Services of ours of which it is not shown that they grow by less than the bound."""
    if MINUTES < JUDGED_MINUTES:
        say(f"growth is not judged: that takes {JUDGED_MINUTES:g} minutes")
        return []
    return [
        f"{p.name} may grow by {found[p.name].high:.1f} MB an hour, more than {MOST_MB_PER_HOUR:g}"
        for p in stack.processes
        if is_service(p) and found[p.name].high >= MOST_MB_PER_HOUR
    ]


def draw(found: Found, target: Path) -> None:
    """The services, what they stand on, and freshness, over the same minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (ours, servers, fresh) = pyplot.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    for name, samples in found.memory.items():
        axes = ours if name.partition("-")[0] in SERVICES else servers
        dashed = "--" if name == "the bench" else "-"
        axes.plot([at / 60 for at, _ in samples], [mb for _, mb in samples], dashed, linewidth=1.2, label=name)
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        parts = found.freshness.over_time(share)
        fresh.plot([at / 60 for at, _ in parts], [s for _, s in parts], linewidth=1.2, label=name)
    ours.set(ylabel="memory, MB", title=f"Services, at {SHARE:.0%} of capacity")
    servers.set(ylabel="memory, MB", title="Servers, and the bench", yscale="log")
    fresh.set(ylabel="seconds", xlabel="minutes", title="Freshness: from acceptance to searchable", ylim=(0, None))
    for axes in (ours, servers, fresh):
        if axes is not fresh:
            axes.axvline(found.seconds / 120, color="grey", linestyle=":", linewidth=1)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def page(found: Found) -> str:
    p50, p99 = (found.freshness.overall(share) for share in (0.5, 0.99))
    judged = f"under {MOST_MB_PER_HOUR:g} MB/h" if MINUTES >= JUDGED_MINUTES else "not judged in so short a run"
    outcome = "\n".join(f"- **Failed**: {w}" for w in found.wrong) or (
        "Every check passed: the index holds what the oracle says, every accepted event has a final receipt, none was\n"
        "rejected, no search failed, no process ended."
    )
    return f"""# A soak

<!-- Written by `make soak`. -->

{machine()}; commit {commit()}, {time.strftime("%Y-%m-%d")}; {KAFKA} Kafka, encoder `hashing`. Servers, services, two
producers and a searcher share these cores. {found.seconds / 60:.0f} minutes at {SHARE:.0%} of the {found.capacity:.0f}
events a second that the system settled in a burst of {BURST_SECONDS:g} s before.

- {found.events} upserts, updates and deletes of {DOCUMENTS} documents, {found.events / found.seconds:.0f} a second;
  {found.refused} requests had to be sent again, {found.repeated} receipts came twice.
- {found.searches} searches, with those of the burst.
- Freshness, from acceptance to searchable: p50 {p50:.2f} s, p99 {p99:.2f} s.

{outcome}

{table(found.growth)}

Memory is the unique set size of a process and its children, every 5 s. The slope is that of the second half, right of
the dotted line, by least squares; its interval is a block bootstrap. The bound is on the upper end of the interval of
the five services: {judged}. Milvus, Kafka, Redis and Triton are shown, not judged.

![memory and freshness over time]({PICTURE})
"""


def main() -> int:
    with system(("hashing",), KAFKA) as stack:
        found = Soak(stack).run()
    text = page(found)
    say(text)
    if "--record" in sys.argv:
        draw(found, ROOT / "docs" / PICTURE)
        (ROOT / "docs/benchmarks-soak.md").write_text(text, encoding="utf-8")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
