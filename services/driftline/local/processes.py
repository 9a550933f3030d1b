"""Starting, watching and ending local processes by id."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil


class StartError(Exception):
    """A part did not start; the message says what it wrote, or what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process. The creation time makes sure that a reused id is never taken for it.

    It leads a session of its own, by which its children are found also after its death. `log_start` is where this
    run begins in its log, in bytes; `shm_prefix` begins the names of its files in /dev/shm; `forgetful` says that
    what it holds is gone when it ends, so that the services must begin anew.
    """

    name: str
    pid: int
    created: float
    log: str
    ports: dict[str, int]
    command: list[str]
    env: dict[str, str]
    cwd: str | None = None
    log_start: int = 0
    shm_prefix: str = ""
    forgetful: bool = False

    def running(self) -> bool:
        found = _find(self.pid, self.created)
        return found is not None and found.status() != psutil.STATUS_ZOMBIE

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def tail(self, lines: int = 12) -> str:
        """The last lines that this run wrote to its log; "" when it has written nothing."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(self.log_start, os.path.getsize(self.log) - 16_384))
                return b"\n".join(file.read().splitlines()[-lines:]).decode("utf-8", "replace")
        except OSError as error:
            return f"(no log: {error})"

    def signal(self, number: int) -> None:
        """Send a signal, if it is still the same process."""
        found = _find(self.pid, self.created)
        if found is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """What is alive of its session: itself, and its children also when it is dead.

        A session keeps its number as long as it has a member, so no process of somebody else is ever in it.
        """
        if not self.created:
            return []  # it ended before it could be looked at
        found = []
        for member in psutil.process_iter():
            try:
                if os.getsid(member.pid) != self.pid or member.create_time() < self.created - 0.5:
                    continue
                if member.status() != psutil.STATUS_ZOMBIE:
                    found.append(member)
            except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                continue
        return found

    def clean(self) -> None:
        """Remove what it left when it died: its children and its files in /dev/shm. Only once it is dead.

        Triton's stubs (300 MB each) ignore SIGTERM, and some outlive their server's crash.
        """
        for orphan in self.family():
            _kill(orphan)
        if self.shm_prefix:
            for path in _SHARED_MEMORY.glob(f"{self.shm_prefix}*"):
                path.unlink(missing_ok=True)


_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _find(pid: int, created: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - created) < 0.5 else None
    except psutil.NoSuchProcess:
        return None


# Below the range from which Linux takes the ports of outgoing connections (32768 on): a port that is chosen here and
# bound a second later by a slow server is then not taken meanwhile by some client.
_PORTS = range(20_000, 32_000)


def free_port(wanted: int = 0) -> int:
    """`wanted` when it is free on loopback, else a free port at random. Raises StartError."""
    for port in [wanted] * bool(wanted) + random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StartError("no free port on 127.0.0.1")


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    ports: Mapping[str, int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    shm_prefix: str = "",
    forgetful: bool = False,
) -> Process:
    """Start a process in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        log_start = out.tell()
        started = subprocess.Popen(
            list(command), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **(env or {})}, cwd=cwd,
        )  # fmt: skip
    try:
        created = psutil.Process(started.pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0
    _children.append(started)
    _exit_codes.pop(started.pid, None)
    return Process(
        name,
        started.pid,
        created,
        str(log),
        dict(ports or {}),
        list(command),
        dict(env or {}),
        str(cwd) if cwd is not None else None,
        log_start,
        shm_prefix,
        forgetful,
    )


def again(process: Process) -> Process:
    """Start the same command with the same ports once more, after removing what the dead one left."""
    process.clean()
    return start(
        process.name,
        process.command,
        Path(process.log),
        process.ports,
        process.env,
        Path(process.cwd) if process.cwd is not None else None,
        process.shm_prefix,
        process.forgetful,
    )


# Held so that children of a long-lived parent (tests) are reaped and never become zombies that look alive.
_children: list[subprocess.Popen[bytes]] = []
_exit_codes: dict[int, int] = {}


def reap() -> None:
    for child in list(_children):
        if child.poll() is not None:
            _exit_codes[child.pid] = child.returncode
            _children.remove(child)


def exit_code(process: Process) -> int | None:
    """How a child of this Python process ended, negative for a signal; None when that is not known."""
    return _exit_codes.get(process.pid)


def answers(port: int) -> bool:
    """Whether something listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stop(processes: Sequence[Process], grace_seconds: float) -> list[str]:
    """SIGTERM all, wait together for them and their children, SIGKILL what is left, and clean up after them.

    Returns the names of those that had to be killed, or a child of theirs. A child that leads a session of its own is
    not touched: it is a part in its own right, that the supervisor started.
    """
    families = {process.name: process.family() for process in processes}
    members = [member for family in families.values() for member in family]
    for process in processes:
        # Also one that is frozen must hear it.
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(_alive(member) for member in members):
        reap()
        time.sleep(0.05)  # not all are children of ours that could be waited for
    killed = [name for name, family in families.items() if any(_alive(member) for member in family)]
    for member in members:
        _kill(member)
    for process in processes:
        process.clean()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(_alive(member) for member in members):
        reap()
        time.sleep(0.02)  # as above
    reap()
    return killed
