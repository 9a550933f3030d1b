"""`make bench-scale`: encode workers against an encoder of fixed latency, and the scaler's decisions over a load.

The encoder sleeps, as one that runs elsewhere would: what is measured is whether a worker more is a worker's throughput
more. Real broker, real consumer groups, real encode stage and runner, one process a worker. Afterwards the chart's KEDA
settings are replayed over a recorded load and a made one.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaSubscriber, KafkaTopicAdmin
from driftline.adapters.memory import MemoryCache, MemoryEmbedder
from driftline.core import codec
from driftline.core.control import ControlFollower, ControlView, collection_record, space_record
from driftline.core.health import Health
from driftline.core.provision import ensure_topics, register_changes
from driftline.core.records import Outgoing, Priority, record_key
from driftline.core.runner import Runner
from driftline.core.settings import KafkaSettings, RunnerSettings
from driftline.core.topics import CHANGES, VECTORS
from driftline.core.vectors import Matrix
from driftline.encode.settings import EncodeSection
from driftline.encode.stage import Change, EncodeStage, decode
from driftline.local import servers
from driftline.local.processes import start, stop
from driftline.local.waiting import Patience, wait_until
from tests.bench.system import ROOT, commit, machine
from tests.build import a_change, a_collection

WORKERS = (1, 2, 4, 8)
PARTITIONS = 16
LATENCY = float(os.environ.get("DRIFTLINE_BENCH_LATENCY", "0.4"))
TEXTS = 16
SECONDS = float(os.environ.get("DRIFTLINE_BENCH_SECONDS", "20"))
_MARK = "\n## Scale\n"


class FixedLatency(MemoryEmbedder):
    """Every request takes the same time, whatever else runs."""

    def embed(
        self, encoder: str, space: str, requests: Sequence[Sequence[str]], priority: Priority = Priority.CHANGE
    ) -> list[Matrix | Exception]:  # fmt: skip
        found = super().embed(encoder, space, requests, priority)
        for _ in requests:
            threading.Event().wait(LATENCY)
        return found


def kafka(address: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=address, topic_prefix="scale.", partitions=PARTITIONS, session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000, fetch_wait_ms=100,
    )  # fmt: skip


def work(address: str, group: str) -> None:
    """One worker: the encode service, but for Triton and Redis."""
    settings = kafka(address)
    view = ControlView()
    ControlFollower(KafkaLogReader(settings), view).start(30)
    subscriber = KafkaSubscriber(settings, group, [CHANGES.name])
    section = EncodeSection(group=group, request_texts=TEXTS)
    runner: Runner[Change] = Runner(
        service="encode", subscriber=subscriber, publisher=KafkaPublisher(settings),
        stage=EncodeStage(view, FixedLatency(), MemoryCache(), section), decode=decode,
        settings=RunnerSettings(batch_records=TEXTS, batch_age_seconds=0.02, max_in_flight=1), health=Health(),
        process_workers=1,
    )  # fmt: skip
    subscriber.subscribe(runner)
    runner.run()


def backlog(settings: KafkaSettings, count: int) -> None:
    publisher = KafkaPublisher(settings)
    collection = a_collection(MemoryEmbedder().space)
    publisher.publish([space_record(MemoryEmbedder().space), collection_record(collection)])
    for begin in range(0, count, 2_000):
        events = [a_change(f"d{i}", title=f"document {i}") for i in range(begin, begin + 2_000)]
        publisher.publish(
            [
                Outgoing(CHANGES.name, record_key(e.collection_uid, e.tenant, e.id), codec.encode_change(e))
                for e in events
            ]
        )
    publisher.close()


def produced(reader: KafkaLogReader) -> int:
    """Records in `vectors`. (The embedded broker counts its ends short by a batch: the difference is what matters.)"""
    return sum(reader.ends(VECTORS.name).values())


def throughput(home: Path, address: str, workers: int, repeat: int) -> float:
    """Documents per second of that many workers, while each has work."""
    group = f"scale-{workers}-{repeat}"
    command = [sys.executable, "-m", "tests.bench.scale", "worker", address, group]
    running = [start(f"w{i}", command, home / f"{group}-{i}.log", cwd=ROOT) for i in range(workers)]
    reader = KafkaLogReader(kafka(address))
    try:
        before = produced(reader)
        while produced(reader) == before:
            time.sleep(0.2)  # polling a broker
        # Until the group has settled: members join one after another.
        time.sleep(15)
        begun, count = time.perf_counter(), produced(reader)
        time.sleep(SECONDS)
        return (produced(reader) - count) / (time.perf_counter() - begun)
    finally:
        stop(running, 2)
        reader.close()


@dataclass
class Replay:
    """What the autoscaler made of a load."""

    behind: int = 0
    most_behind: int = 0
    worst_seconds: float = 0.0
    replica_seconds: float = 0.0
    changes: int = 0


RECORDED = Path(__file__).parent / "recorded_load.json"
_SAMPLED_SECONDS = 5


def recorded(factor: float) -> list[float]:
    """Changes per second, a value a second: what ingest accepted during a local run (a bulk load, then single writes),
    as Prometheus recorded it every five seconds, times a factor; twenty times over."""
    rates = json.loads(RECORDED.read_text(encoding="utf-8"))["changes_per_second"]
    return [factor * rate for _ in range(20) for rate in rates for _ in range(_SAMPLED_SECONDS)]


def made() -> list[float]:
    """Changes per second for two hours: a slow wave, and a bulk load of ten minutes."""
    return [
        40 + 30 * math.sin(second / 1_200) + (900 if 1_200 <= second < 1_800 else 0) for second in range(7_200)
    ]  # fmt: skip


def replay(rates: Sequence[float], per_worker: float, scaling: dict[str, int], fixed: int = 0) -> Replay:
    """KEDA's rule for a lag target, polled every 30 s: replicas = ceil(lag / threshold), up at most double in a
    minute, down one by one after the cooldown; a rebalance stops everybody for 3 s. `fixed` replicas: no scaling."""
    found, replicas = Replay(), fixed or scaling["minReplicas"]
    low_since = paused = 0
    for second, rate in enumerate(rates):
        paused = max(0, paused - 1)
        found.behind = max(0, round(found.behind + rate - (0 if paused else replicas * per_worker)))
        found.most_behind = max(found.most_behind, found.behind)
        found.worst_seconds = max(found.worst_seconds, found.behind / (replicas * per_worker))
        found.replica_seconds += replicas
        if fixed or second % 30:
            continue
        wanted = max(
            scaling["minReplicas"], min(scaling["maxReplicas"], math.ceil(found.behind / scaling["lagThreshold"]))
        )
        if wanted >= replicas:
            low_since = second
        step = min(wanted, replicas * 2) if wanted > replicas else replicas
        if wanted < replicas and second - low_since >= scaling["cooldownSeconds"] and second % 120 == 0:
            step = replicas - 1
        if step != replicas:
            replicas, paused = step, 3
            found.changes += 1
    return found


def page(rates: dict[int, float]) -> str:
    lines = [
        _MARK,
        f"`make bench-scale` at {commit()} on {machine()}: encode workers, a process each, against an encoder that "
        f"takes {LATENCY * 1000:.0f} ms for {TEXTS} texts; {PARTITIONS} partitions, one batch in flight each.",
        "",
        "| workers | documents/s | over linear |",
        "| ---: | ---: | ---: |",
    ]
    one = rates[WORKERS[0]]
    lines += [f"| {n} | {rate:.1f} | {rate / (n * one):.2f} |" for n, rate in rates.items()]
    scaling = yaml.safe_load((ROOT / "helm/driftline/values.yaml").read_text())["encode"]["autoscaling"]
    per_worker, factor = 100.0, 40.0
    lines += [
        "",
        f"The chart's `encode.autoscaling` ({scaling['minReplicas']} to {scaling['maxReplicas']} replicas, one for "
        f"{scaling['lagThreshold']} records behind), replayed second by second over workers of {per_worker:.0f}/s:",
    ]
    loads = {
        f"recorded load, {factor:.0f} times as high, 20 times over": recorded(factor),
        "two hours of 10 to 70/s, 900/s more for ten minutes": made(),
    }
    for name, load in loads.items():
        rows = [("by lag, as the chart does", replay(load, per_worker, scaling))]
        rows += [(f"{n}, always", replay(load, per_worker, scaling, n)) for n in (1, 4, 12)]
        lines += [
            "",
            f"| {name}: replicas | most behind | longest wait | replica hours | changes |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        lines += [
            f"| {label} | {r.most_behind:,} | {r.worst_seconds:.0f} s | {r.replica_seconds / 3600:.1f} | {r.changes} |"
            for label, r in rows
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        starting = servers.start_embedded_kafka(home)
        broker = starting.process
        wait_until(broker, starting.ready, Patience())
        try:
            address = f"127.0.0.1:{broker.ports['kafka']}"
            settings = kafka(address)
            admin, reader, publisher = KafkaTopicAdmin(settings), KafkaLogReader(settings), KafkaPublisher(settings)
            ensure_topics(admin, settings)
            register_changes(admin, reader, publisher)
            backlog(settings, 60_000)
            for workers in WORKERS:
                rates[workers] = throughput(home, address, workers, 0)
                print(f"{workers} workers: {rates[workers]:.1f}/s", flush=True)
        finally:
            stop([broker], 5)
    target = ROOT / "docs/benchmarks.md"
    before = target.read_text(encoding="utf-8").partition(_MARK)[0]
    text = page(rates)
    target.write_text(before.rstrip("\n") + "\n" + text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2], sys.argv[3])
    else:
        sys.exit(main())
