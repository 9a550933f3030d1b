"""What `driftline doctor` looks at."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator

from driftline.adapters.kafka import KafkaLogReader, KafkaTopicAdmin
from driftline.cli.connect import connections
from driftline.core.errors import ConfigError, Unavailable
from driftline.core.provision import ensure_topics
from driftline.local.stack import Stack
from driftline.local.triton import triton_environment

Check = tuple[str, str, str]


def _try(name: str, call: Callable[[], object], advice: str) -> Check:
    try:
        call()
    except (Unavailable, ConfigError, OSError) as error:
        return name, str(error), advice
    return name, "", ""


def checks(stack: Stack) -> Iterator[Check]:
    """(check, problem or "", what to do), one after the other."""
    python = sys.version_info[:2]
    yield (
        "Python 3.11 or 3.12",
        "" if python in ((3, 11), (3, 12)) else f"this is {python}",
        "use Python 3.11",
    )
    free = shutil.disk_usage(stack.home if stack.home.exists() else stack.home.parent).free / 1e9
    yield (
        "2 GB of free disk",
        "" if free > 2 else f"{free:.1f} GB are free",
        "make room where the local system lives",
    )
    ready = (triton_environment() / ".complete").exists()
    yield "Triton's environment", "" if ready else "it is not installed", "run `driftline setup`"
    from driftline.adapters.milvus import MilvusStore
    from driftline.adapters.redis import RedisCache
    from driftline.adapters.triton import TritonEmbedder

    settings = connections()
    start = "start it, or run `driftline up`; the addresses come from DRIFTLINE_* settings"
    yield _try(f"Kafka at {settings.kafka.bootstrap_servers}", lambda: KafkaTopicAdmin(settings.kafka).close(), start)
    yield _try("Kafka's topics", lambda: _topics(), "run `driftline topics create`, and do what it says")
    yield _try(f"Milvus at {settings.milvus.uri}", MilvusStore(settings.milvus).ping, start)
    yield _try(f"Triton at {settings.triton.url}", TritonEmbedder(settings.triton).ping, start)
    redis_ok = RedisCache(settings.redis).healthy()
    yield "Redis (optional)", "" if redis_ok else "it does not answer; everything works, slower", start
    for part in stack.status():
        problem = "" if part["state"] == "running" else part["state"]
        yield f"local {part['name']}", problem, f"look into {part['log']}, or `driftline status`"


def _topics() -> None:
    settings = connections().kafka
    admin = KafkaTopicAdmin(settings)
    reader = KafkaLogReader(settings)
    try:
        for report in ensure_topics(admin, settings):
            if report.problems:
                raise Unavailable("kafka", f"topic {report.topic}: {report.problems[0]}")
    finally:
        admin.close()
        reader.close()
