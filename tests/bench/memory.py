"""How much memory every process of a local system holds, sampled while it runs, and whether that grows."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from driftline.local.processes import Process
from driftline.local.stack import Stack

Samples = Sequence[tuple[float, float]]  # (seconds since the beginning, MB)
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Growth:
    """MB at the start, at the end and at most; MB per hour of the second half, with its 95 % interval."""

    start: float
    end: float
    most: float
    slope: float
    low: float
    high: float


class Memory(threading.Thread):
    """Samples every process, its children included, and this one.

    What is counted is the unique set size: what the system would get back if the process ended. Pages that it shares
    with others, such as libraries, would be counted once for each child otherwise. `samples` has no entry for the time
    after a process ended.
    """

    def __init__(self, stack: Stack, every_seconds: float = 5.0) -> None:
        super().__init__(name="memory")
        self.processes = list(stack.processes)
        self.every_seconds = every_seconds
        self.samples: dict[str, list[tuple[float, float]]] = {p.name: [] for p in self.processes}
        self.samples["the bench"] = []
        self.halt = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        begun = time.monotonic()
        try:
            self.sample(0.0)
            while not self.halt.wait(self.every_seconds):
                self.sample(time.monotonic() - begun)
        except BaseException as error:
            self.error = error

    def sample(self, at: float) -> None:
        for process in self.processes:
            if process.running():
                self.samples[process.name].append((at, megabytes(family(process))))
        self.samples["the bench"].append((at, megabytes([psutil.Process(os.getpid())])))

    def ended(self) -> list[str]:
        """The processes that no longer run, which nobody asked to end."""
        return [p.name for p in self.processes if not p.running()]


def family(process: Process) -> list[psutil.Process]:
    try:
        leader = psutil.Process(process.pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def megabytes(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total / 1e6


def growth(samples: Samples, seed: int = 0) -> Growth:
    """The trend of the second half, by least squares; needs at least four samples.

    Memory moves in steps (a garbage collection, an arena, a segment), so neighbouring residuals are alike and the usual
    standard error would be far too small. The interval is a bootstrap of the residuals in blocks of an eighth of it.
    """
    at, held = np.array(samples).T
    second = at >= (at[0] + at[-1]) / 2
    hours, values = at[second] / 3600, held[second]
    centred = hours - hours.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ values)
    residuals = values - values.mean() - slope * centred
    size = max(1, len(values) // 8)
    starts = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, -(-len(values) // size)))
    index = (starts[:, :, None] + np.arange(size)) % len(values)
    resampled = residuals[index.reshape(RESAMPLES, -1)[:, : len(values)]]
    low, high = np.quantile(slope + resampled @ weights, [0.025, 0.975])
    return Growth(float(held[0]), float(held[-1]), float(held.max()), slope, float(low), float(high))


def table(found: Mapping[str, Growth]) -> str:
    rows = [
        f"| {name} | {g.start:.0f} | {g.end:.0f} | {g.most:.0f} | {g.slope:+.1f} | {g.low:+.1f} to {g.high:+.1f} |"
        for name, g in found.items()
    ]
    head = "| process | start, MB | end, MB | most, MB | slope, MB/h | its 95 % interval |"
    return "\n".join([head, "| --- | --- | --- | --- | --- | --- |", *rows])
