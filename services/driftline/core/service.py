"""How every service begins, runs and ends: settings, signals, exit codes, the health server, the loop."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, TypeVar

from driftline import __version__
from driftline.core import logs, metrics, tracing
from driftline.core.errors import ConfigError, Unavailable
from driftline.core.health import Health, serve
from driftline.core.runner import Runner
from driftline.core.settings import ServiceSettings, load
from driftline.core.tracing import Tracer
from driftline.core.worker import Worker, on_bug

log = logging.getLogger(__name__)

# How long a process in which a thread failed may take to drain. What it has not done by then is done again elsewhere.
_GRACE_SECONDS = 60.0

# Of glibc's malloc.h. A fixed size of each ends their adjustment.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 512 * 1024

_S = TypeVar("_S", bound=ServiceSettings)
_T = TypeVar("_T")


class _ToldToStop(BaseException):
    """SIGTERM or SIGINT before the service serves. Nothing is under way yet, so the start is simply left."""


class _Failure:
    """What a worker's bug does to its process: it ends as on SIGTERM, only with another exit code."""

    def __init__(self, grace_seconds: float) -> None:
        self.happened = False
        self._grace = grace_seconds
        self._lock = threading.Lock()

    def __call__(self, worker: str, error: BaseException) -> None:
        log.critical("stopping: a bug", extra={"worker": worker}, exc_info=error)
        with self._lock:
            first, self.happened = not self.happened, True
        if first:
            os.kill(os.getpid(), signal.SIGTERM)
            # This thread has nothing else to do. If the process ends in time, it ends with it.
            time.sleep(self._grace)
            log.critical("could not stop in time", extra={"after_seconds": self._grace})
            os._exit(1)


def main(
    service: str,
    kind: type[_S],
    run: Callable[[_S], int],
    tracer: Callable[[str, str], Tracer] | None = None,
    grace_seconds: float = _GRACE_SECONDS,
) -> int:
    """A service's whole life: read the settings, `run` it, and return the process's exit code.

    That is what `run` returned; 1 after a bug, here or in a worker; 78 when what the operator gave is wrong, with one
    line on standard error that says what. No other place ends the process.
    """
    failure = _Failure(grace_seconds)
    before = on_bug(failure), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    on_signals(_leave)
    try:
        settings = load(kind)
        _begin(service, settings, tracer)
        code = run(settings)
    except ConfigError as error:
        print(f"driftline: {error}", file=sys.stderr)
        return os.EX_CONFIG
    except _ToldToStop:
        code = 0
    except Exception:
        log.exception("stopping: a bug", extra={"service": service})
        return 1
    finally:
        on_bug(before[0])
        signal.signal(signal.SIGTERM, before[1])
        signal.signal(signal.SIGINT, before[2])
    return 1 if failure.happened else code


def _leave() -> None:
    raise _ToldToStop


def _begin(service: str, settings: ServiceSettings, tracer: Callable[[str, str], Tracer] | None) -> None:
    """Logs, build info, and the effective settings in the log. `tracer` is called where spans are to be exported."""
    _spare_the_collector()
    return_freed_memory()
    logs.configure(service, settings.telemetry.log_level)
    metrics.BUILD_INFO.labels(__version__, service).set(1)
    if settings.telemetry.otlp_endpoint and tracer is not None:
        tracing.install(tracer(service, settings.telemetry.otlp_endpoint))
    log.info("starting", extra={"version": __version__, "settings": settings.model_dump(mode="json")})


def _spare_the_collector() -> None:
    """A stage makes some thousands of objects that live as long as their batch, and hardly a cycle. Python's defaults
    (every 700 of them, and everything imported every now and then) take a fifth of index's time: 376 us of CPU a
    document against 292, with 30,000 documents of a nearly free encoder. Cycles are still found, a little later."""
    gc.freeze()
    gc.set_threshold(20_000, 50, 20)


def return_freed_memory() -> None:
    """Have glibc give large blocks back to the system when they are freed.

    It raises the size from which a block is mapped on its own to that of the largest one freed so far, up to 32 MB:
    later ones come from the heap, and stay with the process while anything lies behind them. Tables that are made anew
    now and then, as of the last 100,000 receipts in ingest and query, are such blocks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, and nothing to mend
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def patiently(call: Callable[[], _T], what: str, every_seconds: float = 1.0) -> _T:
    """Call until it no longer raises Unavailable: a service may start before its dependencies. SIGTERM ends it."""
    while True:
        try:
            return call()
        except Unavailable as error:
            log.warning("waiting", extra={"for": what, "error": str(error)})
            time.sleep(every_seconds)


def on_signals(handle: Callable[[], None]) -> None:
    """Call `handle` on SIGTERM and SIGINT, on the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        handle()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


class Loop(Protocol):
    """What runs until it is stopped: a runner, or what runs one again and again."""

    def run(self) -> None: ...
    def stop(self) -> None: ...


def run_beside(name: str, loop: Loop, drain_seconds: float) -> Callable[[], bool]:
    """Run a second loop in the background.

    Returns what stops it, and says whether it ended in its time to drain: what has not is left to the process's end,
    with all that it uses.
    """
    worker = Worker(name, loop.run, interrupt=loop.stop)
    worker.start()

    def stop() -> bool:
        return worker.close(drain_seconds + 5.0)

    return stop


def run_stage(service: str, host: str, port: int, health: Health, runner: Runner[Any]) -> int:
    """Serve health and metrics, run until SIGTERM, and return the exit code: 0, or 1 after a bug."""
    server = serve(host, port, health, runner.alive)
    on_signals(runner.stop)
    try:
        runner.run()
        log.info("stopped")
        return 0
    except Exception:
        log.exception("stopping: offsets of what was in flight are not committed", extra={"service": service})
        return 1
    finally:
        server.close(5.0)
