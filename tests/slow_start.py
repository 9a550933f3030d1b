"""Starting a system on a tenth of the processor, beside tests that go on meanwhile."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import psutil

from driftline.local.stack import Options, Stack


class Slowed:
    """Everything of a system runs a tenth of the time: frozen for 180 ms, running for 20."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Slowed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            members = [member for process in list(self._stack.processes) for member in process.family()]
            self._signal(members, signal.SIGSTOP)
            time.sleep(0.18)
            self._signal(members, signal.SIGCONT)
            time.sleep(0.02)

    @staticmethod
    def _signal(members: list[psutil.Process], number: int) -> None:
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)


class SlowStart:
    """It takes minutes, in which the machine has little to do: whoever needs the system waits for it."""

    def __init__(self, home: Path, options: Options) -> None:
        self.stack = Stack(home)
        self._options = options
        self._said: list[str] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="slow-start")
        self._thread.start()

    def wait(self) -> list[str]:
        """What was said of the start, when it is done; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._said

    def end(self) -> None:
        """Take down what there is, also when nobody waited for it."""
        while self._thread.is_alive():
            self.stack.down(5)
            self._thread.join(1)
        self.stack.down()

    def _run(self) -> None:
        try:
            with Slowed(self.stack):
                self.stack.up(self._options, self._said.append)
        except BaseException as error:
            self._error = error
