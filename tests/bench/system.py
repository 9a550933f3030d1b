"""What the benchmarks share: where they run, what they say about it, and a system to measure."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from driftline.local.stack import Options, Stack

ROOT = Path(__file__).resolve().parents[2]
# Apache Kafka, as in production; "embedded" is quicker to start.
KAFKA = os.environ.get("DRIFTLINE_BENCH_KAFKA", "apache")


def say(text: str) -> None:
    print(text, flush=True)


def machine() -> str:
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


@contextmanager
def system(
    models: Sequence[str], kafka: str = "embedded", prometheus: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A whole system in a folder of its own, on Debian's Redis 7 beside Apache Kafka; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder))
        redis = shutil.which("redis-server") if kafka == "apache" else None
        options = Options(
            models=models, kafka=kafka, redis_executable=redis, prometheus=prometheus, env=dict(env or {})
        )  # fmt: skip
        stack.up(options, say)
        try:
            yield stack
        finally:
            stack.down()
