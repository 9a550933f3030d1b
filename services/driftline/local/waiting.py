"""How long a part may take to start: as long as it makes progress.

Clock time says little on a loaded machine: two stubs of Triton once had ten seconds of processor each after two
minutes. What says that something is stuck is that it neither writes to its log nor uses the processor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from driftline.local.processes import Process, StartError, reap

# Said again after this long, so that a slow start is not taken for a hanging one.
_SAY_EVERY_SECONDS = 15.0
# Less than this between two looks is the idling of a runtime that waits for something that never comes.
_CPU_STEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """When a part that starts is given up: after `stuck_seconds` without progress, or after `start_seconds`."""

    stuck_seconds: float = 120.0
    start_seconds: float = 1800.0


class Died(StartError):
    """The process ended before it was ready. Starting it once more may help."""


class Stuck(StartError):
    """The process runs, and was given up. Starting it once more may help."""


def said(process: Process) -> str:
    """What the process wrote in this run, for a message; or that it wrote nothing, and what to try."""
    if tail := process.tail():
        return f"The end of what it wrote in this run ({process.log}):\n{tail}"
    return (
        f"It wrote nothing in this run ({process.log}). Is there enough memory (`free -m`) and disk? Try again, with "
        "less else running, or with --stuck-after and --start-limit raised; `driftline doctor` looks at the rest."
    )


def processor_seconds(process: Process) -> float:
    """Processor time that the process and its living children have used."""
    used = 0.0
    for member in process.family():
        try:
            times = member.cpu_times()
            used += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return used


class _Progress:
    """Whether a part got on: its log is longer, or it has used half a second of processor since last time."""

    def __init__(self, process: Process, now: float, look_every_seconds: float) -> None:
        self._process = process
        self._look_every_seconds = look_every_seconds
        self._log, self._cpu = self._size(), 0.0
        self.cpu = 0.0
        self.since = now
        self._looked = now

    def _size(self) -> int:
        try:
            return os.path.getsize(self._process.log)
        except OSError:
            return 0

    def look(self, now: float) -> None:
        if now - self._looked < self._look_every_seconds:
            return
        self._looked = now
        self.cpu, size = processor_seconds(self._process), self._size()
        if size != self._log or self.cpu - self._cpu >= _CPU_STEP_SECONDS:
            self._log, self._cpu, self.since = size, self.cpu, now


def wait_until(
    process: Process,
    ready: Callable[[], bool],
    patience: Patience,
    report: Callable[[str], None] = lambda _: None,
    meanwhile: Callable[[], Any] = lambda: None,
) -> None:
    """Return when `ready`. Raises Died when the process ends first, Stuck when it is given up.

    `meanwhile` is called between looks; `report` hears every 15 s what is waited for.
    """
    begun = time.monotonic()
    # A look reads every process' entry in /proc: once a second is enough.
    progress = _Progress(process, begun, min(1.0, patience.stuck_seconds / 5))
    say_at = begun + _SAY_EVERY_SECONDS
    while True:
        reap()
        if not process.running():
            raise Died(f"{process.name} ended while starting. {said(process)}")
        if ready():
            return
        meanwhile()
        now = time.monotonic()
        progress.look(now)
        if now - progress.since > patience.stuck_seconds:
            raise Stuck(
                f"{process.name} has made no progress for {patience.stuck_seconds:.0f} s: it neither wrote to its log "
                f"nor used the processor (--stuck-after). {said(process)}"
            )
        if now - begun > patience.start_seconds:
            raise Stuck(
                f"{process.name} was not ready within {patience.start_seconds:.0f} s, in which it used "
                f"{progress.cpu:.0f} s of processor time; a slower machine needs more (--start-limit). {said(process)}"
            )
        if now >= say_at:
            say_at = now + _SAY_EVERY_SECONDS
            report(f"still waiting for {process.name}: {now - begun:.0f} s, {progress.cpu:.0f} s of processor time")
        time.sleep(0.05)  # polling another process: there is nothing to wait on
