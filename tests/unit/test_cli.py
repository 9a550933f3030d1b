from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from driftline import __version__
from driftline.cli.client import Api
from driftline.cli.connect import completed
from driftline.cli.load import wait_searchable
from driftline.cli.local import _counts
from driftline.cli.main import COMMANDS, resolve


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env}, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    assert " ".join((resolve(name).help or "").split("\n\n")[0].split()) == COMMANDS[name].help


def test_help_imports_no_client_and_no_command() -> None:
    code = (
        "import sys\nfrom driftline.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print('IMPORTED', *sorted({m.partition('.')[0] for m in sys.modules}), "
        "*(m for m in sys.modules if m.startswith('driftline.cli.')))"
    )
    imported = run("-c", code).stdout.rpartition("IMPORTED")[2].split()
    assert {"kafka", "httpx", "numpy", "pydantic", "grpc"} & set(imported) == set()
    assert [m for m in imported if m.startswith("driftline.cli.")] == ["driftline.cli.main"]


def test_the_version_is_an_option_too() -> None:
    for way in ("--version", "version"):
        assert run("-m", "driftline.cli", way).stdout.strip() == __version__


def test_the_shell_can_complete_commands_and_those_of_a_group() -> None:
    def complete(words: str, index: int) -> list[str]:
        env = {"_DRIFTLINE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        code = "import sys; sys.argv[0] = 'driftline'; from driftline.cli.main import main; main()"
        return run("-c", code, **env).stdout.split()

    assert complete("driftline col", 1) == ["collections"]
    assert "show" in complete("driftline collections ", 2)


def test_an_unknown_command_is_refused() -> None:
    done = run("-m", "driftline.cli", "nosuch")
    assert done.returncode == 2
    assert "nosuch" in done.stderr


def test_commands_take_the_local_systems_settings_where_nothing_else_says_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TRITON__URL", "mine:1")
    local = {
        "DRIFTLINE_TRITON__URL": "local:1",
        "DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS": "local:2",
        "DRIFTLINE_KAFKA__PARTITIONS": "7",
        "DRIFTLINE_QUERY__LOG_PER_SECOND": "5",
        "OMP_NUM_THREADS": "1",
    }
    before = dict(os.environ)
    settings = completed(local)
    assert (settings.triton.url, settings.kafka.bootstrap_servers, settings.kafka.partitions) == (
        "mine:1",
        "local:2",
        7,
    )
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "item", ["encode", "encode=", "encode=x", "encode=0", "encode=-1", "nosuch=2", "encode=1000000"]
)
def test_a_wrong_number_of_replicas_is_refused_with_one_line(item: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _counts([item])
    assert capsys.readouterr().err.count("\n") == 1


# A sleeping part in the place of the servers, started by the command that is then interrupted.
PART = """
import sys, time
from pathlib import Path
from driftline.cli import demo, local
from driftline.local import stack
from driftline.local.processes import start
def begin(self, *_):
    part = self._keep(start("redis", [sys.executable, "-c", "import time; time.sleep(600)"], self.home / "log"))
    print("PART", part.pid, flush=True)
def hang(*_):
    time.sleep(600)
"""
UP = PART + "def servers(self, *_): begin(self); hang()\nstack.Stack._start_servers = servers\nlocal.up()"
DEMO = PART + "stack.Stack.up = begin\ndemo._show = hang\nraise SystemExit(demo.main())"


@pytest.mark.parametrize(
    "code, number",
    [(UP, signal.SIGINT), (UP, signal.SIGTERM), (UP, signal.SIGHUP), (DEMO, signal.SIGINT)],
    ids=["up", "up ended", "up without its terminal", "demo"],
)
def test_an_interrupted_command_takes_down_what_it_started(code: str, number: int, tmp_path: Path) -> None:
    env = {**os.environ, "DRIFTLINE_HOME": str(tmp_path / "home")}
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert command.stdout is not None
    part = next(int(line.split()[1]) for line in command.stdout if line.startswith("PART"))
    time.sleep(0.3)  # into the sleep that stands for the rest of the start, or for the demo
    command.send_signal(number)
    assert command.wait(60) == 130
    assert not psutil.pid_exists(part) or psutil.Process(part).status() == psutil.STATUS_ZOMBIE


class UnavailableAtFirst(BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, bytes]]] = []

    def do_GET(self) -> None:
        status, body = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_load_waits_on_where_the_store_cannot_be_read_yet() -> None:
    UnavailableAtFirst.answers = [
        (503, b'{"status":503,"code":"unavailable","detail":"collection not loaded"}'),
        (200, b'{"state":"unknown","event":{"state":"unknown"}}'),
        (200, b'{"state":"searchable","event":{"state":"searchable"}}'),
    ]
    server = HTTPServer(("127.0.0.1", 0), UnavailableAtFirst)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        api = Api("ingest", f"http://127.0.0.1:{server.server_port}")
        assert wait_searchable(api, "products", {"0": (7, "a")}, timeout_seconds=30)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert UnavailableAtFirst.answers == []
