"""Background threads: one way to begin and to end them, and none that dies in silence."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from driftline.core.errors import Unavailable

log = logging.getLogger(__name__)
# Of the back-off. An outage may last for hours; five seconds after its end everything goes on.
_LONGEST_PAUSE_SECONDS = 5.0

OnBug = Callable[[str, BaseException], None]


def _raise(worker: str, error: BaseException) -> None:
    """Without a service around it, a bug is what Python makes of it: a traceback on standard error."""
    del worker
    raise error


_hook: OnBug = _raise


def on_bug(hook: OnBug) -> OnBug:
    """Install what is told of a bug, with the worker's name and on its thread; returns what was installed before.

    `core.service` installs the one that ends the process.
    """
    global _hook
    before, _hook = _hook, hook
    return before


class Worker:
    """One named background thread that calls `work` again and again, until `close`.

    It is called at once and then every `every_seconds` (0: without a pause), or earlier when woken; with None, only
    when woken. `Unavailable` from it is logged and tried again with back-off. Whatever else it raises is a bug, and is
    handed to the hook of `on_bug`: a thread that is gone while its process lives on is an outage that nobody sees.

    A `work` that takes long asks `stopping` now and then, or is ended by `interrupt`, which `close` calls.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        every_seconds: float | None = 0.0,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._work = work
        self._every = every_seconds
        self._interrupt = interrupt
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._ended = threading.Event()
        # A daemon: `close` has a deadline, and the process must be able to end after it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._starting = threading.Lock()

    def start(self) -> None:
        """Begin. A worker that has begun already goes on as it is."""
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def wake(self) -> None:
        """Call `work` soon, and once for however many calls of this came before it. From any thread."""
        self._woken.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def rest(self, seconds: float) -> bool:
        """Wait that long, or until `close`; returns `stopping`."""
        return self._stopping.wait(seconds)

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Let the call of `work` that is under way be the last one; returns whether it ended in time."""
        self._stopping.set()
        self._woken.set()
        if self._interrupt is not None:
            self._interrupt()
        with self._starting:
            if self._thread.ident is None:
                return True
        ended = self._ended.wait(timeout_seconds)
        if not ended:
            log.warning("left at work", extra={"worker": self.name, "after_seconds": timeout_seconds})
        return ended

    def _run(self) -> None:
        try:
            self._loop()
        # Also SystemExit: threading takes it for a wish to end this thread alone, and says nothing.
        except BaseException as error:  # noqa: BLE001
            # First: a `close` while the hook ends the process must not wait for this thread.
            self._ended.set()
            _hook(self.name, error)
        self._ended.set()

    def _loop(self) -> None:
        if self._every is None:
            self._pause()
        backoff = 0.0
        while not self.stopping:
            begun = time.monotonic()
            try:
                self._work()
            except Unavailable as error:
                if time.monotonic() - begun > _LONGEST_PAUSE_SECONDS:
                    backoff = 0.0  # It went well until now.
                backoff = min(_LONGEST_PAUSE_SECONDS, max(error.retry_after_seconds, 2 * backoff))
                log.warning(
                    "will try again", extra={"worker": self.name, "error": str(error), "after_seconds": backoff}
                )
                self.rest(backoff)
                continue
            backoff = 0.0
            self._pause()

    def _pause(self) -> None:
        if self._every != 0:
            self._woken.wait(self._every)
            self._woken.clear()
