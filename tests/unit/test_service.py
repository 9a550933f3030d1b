"""How a service's process ends: with which code, and saying what."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driftline.cli.settings import kinds
from driftline.core import service
from driftline.core.errors import ConfigError, Denied, Unavailable
from driftline.core.health import Health, serve
from driftline.core.settings import HttpSettings, ServiceSettings, load
from driftline.web.serve import start_grpc

# Nobody listens there; nothing that ends the start may ask anybody.
NOWHERE = {
    "DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "DRIFTLINE_MILVUS__URI": "http://127.0.0.1:1",
    "DRIFTLINE_REDIS__URL": "redis://127.0.0.1:1/0",
    "DRIFTLINE_TRITON__URL": "127.0.0.1:1",
    "DRIFTLINE_AUTH__MODE": "off",
}
KAFKA = {"DRIFTLINE_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT", "DRIFTLINE_KAFKA__SASL_PASSWORD_FILE": "/missing/file"}
MILVUS = {"DRIFTLINE_MILVUS__TOKEN_FILE": "/missing/file"}
REDIS = {"DRIFTLINE_REDIS__PASSWORD_FILE": "/missing/file"}
KEYS = {"DRIFTLINE_AUTH__MODE": "api_key", "DRIFTLINE_AUTH__KEYS_FILE": "/missing/file"}
SOURCES = {"DRIFTLINE_INGEST__SOURCES_FILE": "/missing/file"}

WRONG = {
    "ingest": {"kafka": KAFKA, "milvus": MILVUS, "auth": KEYS, "ingest": SOURCES},
    "encode": {"kafka": KAFKA, "redis": REDIS},
    "index": {"kafka": KAFKA, "milvus": MILVUS, "redis": REDIS},
    "query": {"kafka": KAFKA, "milvus": MILVUS, "redis": REDIS, "auth": KEYS},
    "upgrade": {"kafka": KAFKA, "milvus": MILVUS, "auth": KEYS},
}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What a service sets in its process, and must not stay set in that of the tests."""
    handlers, level, thresholds = logging.root.handlers[:], logging.root.level, gc.get_threshold()
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    return kept | NOWHERE | more


def told(stderr: str) -> list[str]:
    """What is said to people: the lines that are no structured log."""
    return [line for line in stderr.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_secret_stops_the_start_of_every_service_with_one_line(name: str) -> None:
    section, wrong = next(iter(WRONG[name].items()))
    ended = subprocess.run(
        [sys.executable, "-m", f"driftline.{name}"], env=environment(**wrong), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ended.returncode == 78, ended.stderr
    (line,) = told(ended.stderr)
    assert line.startswith(f"driftline: {section}.")
    assert line.endswith("/missing/file: No such file or directory")


@pytest.mark.parametrize("name, section", [(name, section) for name, wrong in WRONG.items() for section in wrong])
def test_every_secret_is_read_before_anything_is_contacted(
    name: str, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (NOWHERE | WRONG[name][section]).items():
        monkeypatch.setenv(variable, value)
    run = importlib.import_module(f"driftline.{name}.__main__").run
    with pytest.raises(ConfigError, match=rf"^{section}\..*/missing/file: No such file or directory$"):
        run(load(kinds()[name]))


def started(script: str) -> subprocess.Popen[str]:
    """A process that runs this as its service."""
    begin = """
        import logging, signal, sys, threading, time
        from driftline.core import service
        from driftline.core.errors import Unavailable
        from driftline.core.settings import ServiceSettings
        from driftline.core.worker import Worker

        def bug():
            raise ValueError("planted")
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(script)], env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_bug_in_a_worker_ends_the_process_as_sigterm_does_and_with_its_trace() -> None:
    process = started("""
        from driftline.core.health import Health
        from tests.unit.test_runner import Harness

        def run(settings):
            harness = Harness()
            Worker("planted-one", lambda: time.sleep(0.2) or bug()).start()
            code = service.run_stage("test", "127.0.0.1", 0, Health(), harness.runner)
            print("drained", code)
            return code

        sys.exit(service.main("test", ServiceSettings, run))
    """)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out == "drained 0\n"
    (line,) = [line for line in err.splitlines() if '"level":"critical"' in line]
    assert '"worker":"planted-one"' in line and "ValueError: planted" in line


def test_a_bug_in_a_worker_ends_a_service_that_still_starts() -> None:
    process = started("""
        def nobody():
            raise Unavailable("kafka", "down")

        def run(settings):
            Worker("planted-one", bug).start()
            service.patiently(nobody, "kafka")

        sys.exit(service.main("test", ServiceSettings, run))
    """)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "ValueError: planted" in err


def test_a_process_that_cannot_stop_after_a_bug_is_ended_after_the_grace() -> None:
    process = started("""
        def run(settings):
            service.on_signals(lambda: None)
            Worker("planted-one", bug).start()
            while True:
                time.sleep(1)

        sys.exit(service.main("test", ServiceSettings, run, grace_seconds=0.2))
    """)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "could not stop in time" in err


def test_sigterm_ends_a_service_that_waits_for_a_dependency() -> None:
    process = started("""
        def nobody():
            print("asked", flush=True)
            threading.Event().wait(3_600)

        sys.exit(service.main("test", ServiceSettings, lambda _: service.patiently(nobody, "kafka")))
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_the_command_line_tells_a_wrong_setting_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "driftline.cli", "settings", "encode"], capture_output=True, text=True, timeout=120,
        env=environment(DRIFTLINE_KAFKA__PARTITIONS="[many]", HOME=str(tmp_path)),
    )  # fmt: skip
    assert ended.returncode == 78
    assert "DRIFTLINE_KAFKA__PARTITIONS" in ended.stderr and "[many]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_run_returns_is_the_exit_code_and_the_process_is_left_as_it_was() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert service.main("test", ServiceSettings, lambda _: 3) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_while_a_service_is_put_together_is_exit_code_1() -> None:
    def run(settings: ServiceSettings) -> int:
        raise ValueError("planted")

    assert service.main("test", ServiceSettings, run) == 1


def test_config_errors_of_a_running_service_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    def run(settings: ServiceSettings) -> int:
        raise ConfigError("http.grpc_port 1 on 127.0.0.1 cannot be used")

    assert service.main("test", ServiceSettings, run) == 78
    assert "driftline: http.grpc_port 1" in capsys.readouterr().err


def test_a_start_waits_for_what_is_not_there_yet() -> None:
    asked: list[float] = []

    def call() -> str:
        asked.append(time.monotonic())
        if len(asked) < 3:
            raise Unavailable("kafka", "down")
        return "there"

    assert service.patiently(call, "kafka", every_seconds=0.001) == "there"
    assert len(asked) == 3


def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"http.grpc_port {port} on 127.0.0.1"):
            start_grpc(HttpSettings(grpc_port=port), [], Health())
        with pytest.raises(ConfigError, match=f"telemetry.metrics_port {port} on 127.0.0.1"):
            serve("127.0.0.1", port, Health(), lambda: True)


def test_an_error_of_the_tree_passes_through_a_context_manager() -> None:
    """A frozen dataclass for an exception does not: it turns into a TypeError on the way."""

    @contextmanager
    def around() -> Iterator[None]:
        yield

    with pytest.raises(Denied) as caught, around():
        raise Denied(403, "the API key has the role search; this needs write")
    assert (caught.value.status, caught.value.detail) == (403, str(caught.value))


@pytest.mark.parametrize("mended", [False, True])
def test_what_is_freed_goes_back_to_the_system(mended: bool) -> None:
    """Also after a larger block was freed, and with a small one behind it. Without the call, the C library keeps it."""
    process = started(f"""
        import psutil

        if {mended}:
            service.return_freed_memory()
        held = lambda: psutil.Process().memory_info().rss / 1e6
        largest = b"x" * 24_000_000
        del largest
        before = held()
        block = b"x" * 16_000_000
        behind = b"x" * 100_000
        del block
        print(held() - before)
    """)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (float(out) < 2) is mended
