"""Encoders on their way to a cluster, through a real S3 server: push, list, pull, and what goes wrong between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from driftline.local import models
from tests.deploy import object_store
from tests.deploy.object_store import SECRET, Store

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with object_store.serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


def an_entry(repository: Path, name: str = "tiny", megabytes: int = 1, seed: int = 1, **changed: Any) -> dict[str, Any]:
    """An encoder entry whose model is only bytes: nothing here runs it."""
    source = repository.parent / f"source-{name}-{seed}"
    source.mkdir(parents=True, exist_ok=True)
    (source / "model.onnx").write_bytes(bytes([seed]) * (megabytes << 20))
    (source / "tokenizer.json").write_text("{}")
    return models.add(repository, name, str(source / "model.onnx"), {"dimension": 8, **changed})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def driftline(store: Store, *arguments: str, environment: dict[str, str] | None = None) -> Run:
    env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    env |= {"HOME": "/nonexistent", **(store.environment() if environment is None else environment)}
    command = [sys.executable, "-m", "driftline.cli", "models", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def push(store: Store, repository: Path, prefix: str, name: str = "tiny", **more: Any) -> Run:
    return driftline(store, "push", name, store.address(prefix), "--repository", str(repository), "--json", **more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_pushed_is_listed_and_comes_back_byte_by_byte(store: Store, repository: Path, tmp_path: Path) -> None:
    made = an_entry(repository)
    done = push(store, repository, "whole/way")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fingerprint"] == made["fingerprint"]
    listed = json.loads(driftline(store, "list", "--repository", store.address("whole/way"), "--json").stdout)
    assert [(d["name"], d["fingerprint"], d.get("problem")) for d in listed] == [("tiny", made["fingerprint"], None)]
    assert "tiny" in driftline(store, "list", "--repository", store.address("whole/way")).stdout
    elsewhere = tmp_path / "elsewhere"
    for _ in range(2):
        back = driftline(store, "pull", "tiny", store.address("whole/way"), "--repository", str(elsewhere), "--json")
        assert back.returncode == 0, back.stderr
        assert json.loads(back.stdout)["fingerprint"] == made["fingerprint"]
    assert files(elsewhere / "tiny") == files(repository / "tiny")
    assert [p.name for p in elsewhere.iterdir()] == ["tiny"], "nothing half is left beside it"


def test_the_bucket_itself_may_be_the_repository(store: Store, repository: Path) -> None:
    an_entry(repository, "at-the-top")
    assert push(store, repository, "", "at-the-top").returncode == 0
    listed = json.loads(driftline(store, "list", "--repository", store.address(), "--json").stdout)
    assert "at-the-top" in [d["name"] for d in listed]


def test_pushing_again_sends_only_what_differs(store: Store, repository: Path) -> None:
    made = an_entry(repository)
    assert push(store, repository, "again").returncode == 0
    stored = store.folder / "again/tiny"
    before = {p: p.stat().st_mtime_ns for p in stored.rglob("*") if p.is_file()}
    config = repository / "tiny/config.pbtxt"
    config.write_text(config.read_text().replace("count: 2", "count: 6"))
    done = push(store, repository, "again")
    assert done.returncode == 0 and json.loads(done.stdout)["fingerprint"] == made["fingerprint"]
    changed = [p.name for p, at in before.items() if p.stat().st_mtime_ns != at]
    assert changed == ["config.pbtxt"] and "count: 6" in (stored / "config.pbtxt").read_text()


def test_another_space_under_a_taken_name_is_refused_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "a/repository", tmp_path / "b/repository"
    one, other = an_entry(first), an_entry(second, seed=2)
    assert push(store, first, "taken").returncode == 0
    before = files(store.folder / "taken")
    done = push(store, second, "taken")
    assert done.returncode == 1
    assert one["fingerprint"] in done.stderr and other["fingerprint"] in done.stderr and "new name" in done.stderr
    assert files(store.folder / "taken") == before
    pulled = driftline(store, "pull", "tiny", store.address("taken"), "--repository", str(second))
    assert pulled.returncode == 1 and "new name" in pulled.stderr


def test_of_two_who_push_different_models_at_once_one_wins_whole(store: Store, tmp_path: Path) -> None:
    repositories = [tmp_path / f"{n}/repository" for n in range(2)]
    made = [an_entry(r, megabytes=4, seed=n)["fingerprint"] for n, r in enumerate(repositories)]
    results: dict[int, Run] = {}
    threads = [
        threading.Thread(target=lambda n=n, r=r: results.update({n: push(store, r, "race")}))
        for n, r in enumerate(repositories)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.returncode for r in results.values()) == [0, 1]
    (winner,) = [n for n, r in results.items() if r.returncode == 0]
    assert models.read(store.folder / "race/tiny")["fingerprint"] == made[winner]


@pytest.mark.parametrize("after", [0.25, 0.5, 0.75])
def test_an_interrupted_push_is_not_loadable_and_the_next_one_finishes_it(
    store: Store, repository: Path, after: float
) -> None:
    """The connection is cut after a part of the bytes, by a relay; the process that sends is killed then."""
    prefix = f"cut-{int(after * 100)}"
    made = an_entry(repository, megabytes=8)
    with relay(store.port, int(after * (8 << 20))) as (port, cut):
        address = f"s3://http://127.0.0.1:{port}/{object_store.BUCKET}/{prefix}"
        command = [sys.executable, "-m", "driftline.cli", "models", "push", "tiny", address, "--repository",
                   str(repository)]  # fmt: skip
        sender = subprocess.Popen(command, env={**os.environ, **store.environment()}, stderr=subprocess.DEVNULL)
        assert cut.wait(60)
        sender.send_signal(signal.SIGKILL)
        sender.wait(10)
    stored = store.folder / prefix / "tiny"
    assert not (stored / "config.pbtxt").exists() and not (stored / "1/model.onnx").exists()
    (listed,) = json.loads(driftline(store, "list", "--repository", store.address(prefix), "--json").stdout)
    assert "push it again" in listed["problem"]
    pulled = driftline(store, "pull", "tiny", store.address(prefix), "--repository", str(repository.parent / "other"))
    assert pulled.returncode == 1 and "no complete entry" in pulled.stderr
    assert push(store, repository, prefix).returncode == 0
    assert models.read(stored)["fingerprint"] == made["fingerprint"]


@pytest.fixture
def damaged(store: Store, repository: Path) -> Callable[[str], None]:
    """Change a stored file behind the server's back."""
    an_entry(repository)

    def change(prefix: str) -> None:
        assert push(store, repository, prefix).returncode == 0
        model = store.folder / prefix / "tiny/1/model.onnx"
        content = bytearray(model.read_bytes())
        content[1000] ^= 1
        with model.open("r+b") as file:
            file.write(content)

    return change


def test_a_bit_that_flipped_in_the_store_is_found(
    store: Store, repository: Path, damaged: Callable[[str], None], tmp_path: Path
) -> None:
    damaged("flipped")
    for done in (
        push(store, repository, "flipped"),
        driftline(store, "pull", "tiny", store.address("flipped"), "--repository", str(tmp_path / "b")),
    ):
        assert done.returncode == 1 and "other bytes than were sent" in done.stderr
    assert not (tmp_path / "b/tiny").exists()


def test_an_entry_whose_files_are_not_what_it_declares_is_not_sent(store: Store, repository: Path) -> None:
    an_entry(repository)
    (repository / "tiny/1/tokenizer.json").write_text("{ }")
    done = push(store, repository, "wrong-here")
    assert done.returncode == 1 and "files changed" in done.stderr
    assert not (store.folder / "wrong-here").exists()


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"AWS_ACCESS_KEY_ID": "tests-access", "AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses these credentials"),
        ({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": SECRET}, "refuses these credentials"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobodys"}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_credentials_that_are_wrong_or_missing_are_one_clear_line(
    store: Store, repository: Path, environment: dict[str, str], words: str
) -> None:
    an_entry(repository)
    done = push(store, repository, "denied", environment=environment)
    assert done.returncode == 1 and words in done.stderr
    assert not (store.folder / "denied").exists()


def test_a_bucket_or_a_server_that_is_not_there_is_one_clear_line(store: Store, repository: Path) -> None:
    an_entry(repository)
    nowhere = f"s3://http://127.0.0.1:{store.port}/no-such-bucket/x"
    done = driftline(store, "push", "tiny", nowhere, "--repository", str(repository))
    assert done.returncode == 1 and "no such bucket" in done.stderr
    done = driftline(store, "push", "tiny", "s3://http://127.0.0.1:1/models/x", "--repository", str(repository))
    assert done.returncode == 1 and "the object store is unavailable" in done.stderr


@pytest.mark.parametrize(
    "address",
    ["s3://", "models", "s3://h:9000/b", f"s3://http://me:{SECRET}@h:1/bucket", "s3://bucket/a b", "gs://b/p"],
)
def test_an_address_that_triton_would_not_take_is_refused_without_being_repeated(
    store: Store, repository: Path, address: str
) -> None:
    an_entry(repository)
    done = driftline(store, "push", "tiny", address, "--repository", str(repository))
    assert done.returncode == 1 and "s3://BUCKET/PREFIX" in done.stderr


def test_a_name_that_triton_would_not_find_is_refused(store: Store, repository: Path) -> None:
    an_entry(repository)
    shutil.copytree(repository / "tiny", repository / "a b")
    done = push(store, repository, "names", "a b")
    assert done.returncode == 1 and "'a b'" in done.stderr
    assert push(store, repository, "names", "missing").returncode == 1


class relay:
    """A TCP relay to `port` that stops passing bytes on, with the connection open, after `limit` of them."""

    def __init__(self, port: int, limit: int) -> None:
        self._to, self._limit, self._sent = port, limit, 0
        self.cut, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> tuple[int, threading.Event]:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self._listener.getsockname()[1], self.cut

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65_536):
                if counted:
                    self._sent += len(data)
                    if self._sent > self._limit:
                        self.cut.set()
                        self._over.wait(60)
                        return
                target.sendall(data)
