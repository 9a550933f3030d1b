"""Starting, watching and ending local processes by id."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


class StartError(Exception):
    """A part did not start; the message carries the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process. The creation time makes sure that a reused id is never taken for it."""

    name: str
    pid: int
    created: float
    log: str
    ports: dict[str, int]
    command: list[str]
    env: dict[str, str]
    cwd: str | None = None

    def running(self) -> bool:
        found = _find(self.pid, self.created)
        return found is not None and found.status() != psutil.STATUS_ZOMBIE

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def tail(self, lines: int = 12) -> str:
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, os.path.getsize(self.log) - 16_384))
                return b"\n".join(file.read().splitlines()[-lines:]).decode("utf-8", "replace")
        except OSError as error:
            return f"(no log: {error})"

    def signal(self, number: int) -> None:
        """Send a signal, if it is still the same process."""
        found = _find(self.pid, self.created)
        if found is not None:
            found.send_signal(number)


def _find(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < 0.5 else None
    except psutil.NoSuchProcess:
        return None


def free_port(wanted: int = 0) -> int:
    """`wanted` when it is free on loopback, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("no free port on 127.0.0.1")


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    ports: Mapping[str, int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Process:
    """Start a process in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        started = subprocess.Popen(
            list(command), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **(env or {})}, cwd=cwd,
        )  # fmt: skip
    try:
        created = psutil.Process(started.pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0
    _children.append(started)
    where = str(cwd) if cwd is not None else None
    return Process(name, started.pid, created, str(log), dict(ports or {}), list(command), dict(env or {}), where)


def again(process: Process) -> Process:
    """Start the same command with the same ports once more: after a crash, or after killing it on purpose."""
    cwd = Path(process.cwd) if process.cwd is not None else None
    return start(process.name, process.command, Path(process.log), process.ports, process.env, cwd)


# Held so that children of a long-lived parent (tests) are reaped and never become zombies that look alive.
_children: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def wait_until(process: Process, ready: Callable[[], bool], timeout_seconds: float) -> None:
    """Return when `ready`. Raises StartError when the process ends first or the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        reap()
        if not process.running():
            raise StartError(f"{process.name} ended while starting. Its last lines:\n{process.tail()}")
        if ready():
            return
        time.sleep(0.05)  # polling another process: there is nothing to wait on
    raise StartError(f"{process.name} was not ready within {timeout_seconds:.0f} s. Its last lines:\n{process.tail()}")


def answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(processes: Sequence[Process], grace_seconds: float) -> None:
    """SIGTERM all (and their children), wait together, SIGKILL what is left."""
    trees: list[psutil.Process] = []
    for process in processes:
        found = _find(process.pid, process.created)
        if found is None:
            continue
        try:
            trees += [found, *found.children(recursive=True)]
            found.resume()
            found.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(trees, timeout=grace_seconds)
    for process_ in alive:
        try:
            process_.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    reap()
