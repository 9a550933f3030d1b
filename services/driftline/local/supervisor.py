"""The small process that `driftline up` leaves behind: it starts again what dies.

    python -m driftline.local.supervisor HOME

It is the only one that writes the state while it runs: `down` ends it first. It ends by itself when the state names
another supervisor, and when the state is gone, together with the parts, since nobody could find those any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftline.local import state as states
from driftline.local.processes import Process, again, exit_code, reap, stop
from driftline.local.state import Restarts, State

_LOOK_EVERY_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
# A part that ran this long is taken as well: its next death begins with a short pause.
_WELL_AFTER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _Pause:
    """After the death of process `pid`, until a moment of the clock."""

    pid: int
    seconds: float
    until: float


class Supervisor:
    """Looks at the parts of one system and starts again what died, each with a pause that doubles. One thread."""

    def __init__(
        self,
        state: State,
        save: Callable[[State], None],
        services: Callable[[Process], bool],
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[str], None] = print,
    ) -> None:
        self._state = state
        self._save = save
        self._is_service = services
        self._clock = clock
        self._report = report
        self._pauses: dict[str, _Pause] = {}

    def look(self) -> None:
        """Start again what died and whose pause is over."""
        reap()
        now = self._clock()
        for process in list(self._state.processes):
            if process.running():
                continue
            pause = self._pauses.get(process.name)
            if pause is None or pause.pid != process.pid:
                pause = self._pauses[process.name] = self._next_pause(process, pause, now)
                self._report(f"{process.name} died ({_why(process)}); starting it again in {pause.seconds:.0f} s")
            if now >= pause.until:
                self._start(process)

    def _next_pause(self, process: Process, last: _Pause | None, now: float) -> _Pause:
        well = time.time() - process.created > _WELL_AFTER_SECONDS
        seconds = _FIRST_PAUSE_SECONDS if last is None or well else min(last.seconds * 2, _LONGEST_PAUSE_SECONDS)
        return _Pause(process.pid, seconds, now + seconds)

    def _start(self, process: Process) -> None:
        self._again(process, _why(process))
        if process.forgetful:
            # An empty broker: the services make their topics when they start, and hold positions that are no more.
            services = [p for p in self._state.processes if self._is_service(p)]
            self._report(f"{process.name} has forgotten what it held: starting the services anew")
            stop(services, grace_seconds=5)
            for service in services:
                self._again(service, f"{process.name} was started again, empty")
        self._save(self._state)

    def _again(self, process: Process, why: str) -> None:
        known = self._state.restarts.get(process.name)
        self._state.restarts[process.name] = Restarts((known.count if known else 0) + 1, time.time(), why)
        self._state.keep(again(process))


def _why(process: Process) -> str:
    """How it ended, as far as can be known: its parent may have been another process, to whom that was told."""
    code = exit_code(process)
    how = "it ended" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
    last = process.tail(1).strip()
    return f"{how}; last line: {last[:200]}" if last else f"{how}; it wrote nothing"


def main(home: Path) -> int:
    from driftline.local.stack import is_service, write_state

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    state = _own_state(home)
    supervisor = Supervisor(state, lambda s: write_state(home, s), is_service, report=_say)
    while not ended.wait(_LOOK_EVERY_SECONDS):
        if not states.path_of(home).exists():
            _say("the system's state is gone: ending its parts")
            stop(state.processes, grace_seconds=10)
            break
        if states.load(home).supervisor != state.supervisor:
            break
        supervisor.look()
    return 0


def _own_state(home: Path) -> State:
    """The state that names this process its supervisor; it is written a moment after the process was started."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        state = states.load(home)
        if state.supervisor is not None and state.supervisor.pid == os.getpid():
            return state
        time.sleep(0.05)  # another process writes it
    raise SystemExit(f"{states.path_of(home)} names another supervisor")


def _say(message: str) -> None:
    sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
