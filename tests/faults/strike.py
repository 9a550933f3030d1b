"""Strike the faults of a schedule, some at once, and write down what was done when."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from driftline.adapters.kafka import KafkaPublisher
from driftline.core.errors import Unavailable
from driftline.core.records import Outgoing
from driftline.core.settings import KafkaSettings
from tests.client import until
from tests.faults import clock
from tests.faults.arena import Arena
from tests.faults.schedule import SERVERS, Fault
from tests.oracle import POISON
from tests.proxy import FAIR, Weather

# Faults that may overlap: an outage of one part is seldom alone.
AT_ONCE = 3
POISONS = {"garbage": POISON, "empty": b"", "null": None}


class Striker:
    """`strike` returns when the fault is over and what was killed serves again, or was started again at least."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._begun = time.monotonic()
        self.journal: list[dict[str, object]] = []
        self._kinds: dict[str, Callable[[Fault], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "cut": self._weather,
            "slow": self._weather,
            "poison": self._poison,
            "clock": self._clock,
            "memory": self._memory,
            "disk": self._disk,
        }

    def run(self, faults: Sequence[Fault], pause_seconds: float) -> None:
        """Strike all, a few at once, one begun every so many seconds at the most. Raises what a strike raised."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            struck = []
            for fault in faults:
                struck.append(pool.submit(self.strike, fault))
                time.sleep(pause_seconds)
            for future in struck:
                future.result()

    def strike(self, fault: Fault) -> None:
        with self._lock:
            victim = self._locks.setdefault(fault.victim, threading.Lock())
        # One fault per victim at a time: two would undo one another.
        with victim:
            begun = time.monotonic() - self._begun
            self._kinds[fault.kind](fault)
            entry = {"at": round(begun, 2), "until": round(time.monotonic() - self._begun, 2), **fault.as_json()}
            with self._lock:
                self.journal.append(entry)

    def write_journal(self, path: Path) -> None:
        path.write_text("".join(json.dumps(entry) + "\n" for entry in self.journal), encoding="utf-8")

    def _kill(self, fault: Fault) -> None:
        self._arena.revive(fault.victim)
        self._arena.kill(fault.victim)
        time.sleep(fault.seconds)
        self._arena.start_again(fault.victim)
        if fault.victim in SERVERS:
            self._serves_again(fault.victim)

    def _serves_again(self, server: str) -> None:
        until(lambda: self._arena.serving(server), 120, every=0.5)

    def _freeze(self, fault: Fault) -> None:
        process = self._arena.stack.process(fault.victim)
        process.signal(signal.SIGSTOP)
        try:
            time.sleep(fault.seconds)
        finally:
            process.signal(signal.SIGCONT)

    def _weather(self, fault: Fault) -> None:
        weather = {
            "drop": Weather(drop=True),
            "reset": Weather(reset=True),
            "hold": Weather(hold=True),
            "latency": Weather(latency_seconds=fault.amount),
            "bandwidth": Weather(bytes_per_second=fault.amount),
        }[fault.how]
        proxy = self._arena.proxies[(fault.victim, fault.server)]
        proxy.suffer(weather)
        try:
            time.sleep(fault.seconds)
        finally:
            proxy.suffer(FAIR)

    def _poison(self, fault: Fault) -> None:
        settings = KafkaSettings(bootstrap_servers=self._arena.stack.addresses["kafka"])
        publisher = KafkaPublisher(settings)
        deadline = time.monotonic() + 60
        while True:
            try:
                publisher.publish([Outgoing(fault.victim, b"poison", POISONS[fault.how], 0)], 10)
                break
            except Unavailable:
                # The broker may be down itself just now.
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        publisher.close()

    def _clock(self, fault: Fault) -> None:
        file = self._arena.clocks[fault.victim]
        clock.move(file, fault.amount)
        try:
            time.sleep(fault.seconds)
        finally:
            clock.move(file, 0)

    def _memory(self, fault: Fault) -> None:
        """Redis takes no writes, and goes on answering reads."""
        client = redis.Redis.from_url(self._arena.stack.addresses["redis"])
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1mb")
        try:
            time.sleep(fault.seconds)
        finally:
            client.config_set("maxmemory", "512mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.close()

    def _disk(self, fault: Fault) -> None:
        """The broker's disk is full: it may end. When there is room again, somebody starts it again."""
        self._arena.may_end.add("kafka")
        try:
            self._arena.fill_disk()
            time.sleep(fault.seconds)
        finally:
            self._arena.free_disk()
        # It takes a moment to end; should it end later, by its next flush, the next fault or the end finds it.
        time.sleep(1)
        self._arena.revive("kafka")
        self._serves_again("kafka")
