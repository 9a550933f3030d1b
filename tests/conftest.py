"""The real servers for the tests: started once a session, ended by process id.

DRIFTLINE_TEST_STACK=full takes Apache Kafka (Maven) and Debian's Redis 7 instead of the embedded broker and the
Redis that comes from PyPI. Milvus and Triton are the real servers in both.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.core.settings import KafkaSettings, MilvusSettings, RedisSettings, TritonSettings
from driftline.local.processes import free_port, start, stop
from driftline.local.stack import Options, Stack
from tests.client import until
from tests.slow_start import SlowStart

FULL = os.environ.get("DRIFTLINE_TEST_STACK", "") == "full"
MODELS = ("hashing", "hashing-64", "hashing-sparse", "minilm-l6-int8")


def options(**changes: object) -> Options:
    """What a test's stack is made of."""
    env = {
        "DRIFTLINE_MILVUS__TIMEOUT_SECONDS": "10",
        "DRIFTLINE_TRITON__TIMEOUT_SECONDS": "60",
        "DRIFTLINE_REDIS__TIMEOUT_SECONDS": "0.2",
        # What a fault kept from being backfilled is asked for again in the time of a test.
        "DRIFTLINE_UPGRADE__RETRY_SECONDS": "20",
    }
    redis = shutil.which("redis-server") if FULL else None
    if FULL and redis is None:
        raise RuntimeError("the full stack needs Debian's redis-server: `make test-full` installs it")
    values: dict[str, object] = {
        "kafka": "apache" if FULL else "embedded", "redis_executable": redis, "models": MODELS, "env": env,
    }  # fmt: skip
    return Options(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system, ready. Tests share it and use collections of their own.

    DRIFTLINE_TEST_HOME names the folder of a running one to use instead, while working on a test.
    """
    if running := os.environ.get("DRIFTLINE_TEST_HOME", ""):
        yield Stack(Path(running))
        return
    started = Stack(tmp_path_factory.mktemp("stack"))
    started.up(options(), report=lambda _: None)
    yield started
    started.down(report=print)


@pytest.fixture(scope="session")
def second_start(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowStart]:
    """A second system, which begins to start as soon as the first one runs."""
    del stack
    begun = SlowStart(tmp_path_factory.mktemp("second"), options(models=("hashing",), kafka="embedded", supervise=True))
    yield begun
    begun.end()


@pytest.fixture(autouse=True)
def _begin_early(request: pytest.FixtureRequest) -> None:
    """Three minutes of a tenth of the processor are no reason for the other tests to wait."""
    if "stack" in request.fixturenames and any("second" in item.fixturenames for item in request.session.items):  # type: ignore[attr-defined]
        request.getfixturevalue("second_start")


@pytest.fixture(scope="session")
def kafka_settings(stack: Stack) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=stack.addresses["kafka"], topic_prefix="contract.", partitions=3,
        session_timeout_ms=6_000, heartbeat_interval_ms=1_000,
    )  # fmt: skip


@pytest.fixture(scope="session")
def milvus_settings(stack: Stack) -> MilvusSettings:
    return MilvusSettings(uri=stack.addresses["milvus"], prefix="contract_", timeout_seconds=20)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def milvus_lite_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusSettings]:
    """Milvus Lite, for what Milvus has from 2.4 on, such as sparse vectors: no newer server comes from packages.

    One for each file: it closes a connection that sends nothing but keep-alive pings ("too many pings"), as one does
    while the other stores are tested.
    """
    port = free_port()
    folder = tmp_path_factory.mktemp("milvus-lite")
    command = [str(Path(sys.executable).parent / "milvus-lite"), "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(folder / "data")]
    process = start("milvus-lite", command, folder / "milvus-lite.log", {"milvus": port}, {}, folder)
    settings = MilvusSettings(uri=f"http://127.0.0.1:{port}", prefix="contract_", timeout_seconds=20)
    try:
        until(lambda: listens(port), 60)
        yield settings
    finally:
        stop([process], 10)


@pytest.fixture(scope="session")
def redis_settings(stack: Stack) -> RedisSettings:
    return RedisSettings(url=stack.addresses["redis"], timeout_seconds=1)


@pytest.fixture(scope="session")
def triton_settings(stack: Stack) -> TritonSettings:
    return TritonSettings(url=stack.addresses["triton"])


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Judged collections beside the checkout."""
    return Path(os.environ.get("DRIFTLINE_DATASETS", Path(__file__).resolve().parents[2] / "shared/datasets"))


@pytest.fixture(autouse=True)
def _logs_of_a_failed_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Attach the end of the services' logs to a failure."""
    yield
    report = getattr(request.node, "failed_report", None)
    if report is not None and "stack" in request.fixturenames:
        running: Stack = request.getfixturevalue("stack")
        for process in running.processes:
            if process.name.partition("-")[0] in ("ingest", "encode", "index", "query"):
                print(f"--- {process.name}\n{process.tail(5)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        item.failed_report = report  # type: ignore[attr-defined]
