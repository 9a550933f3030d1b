"""A real S3 server on loopback: versitygw, whose objects are files."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET = "tests-access", "tests-secret-never-shown"
BUCKET = "models"


@dataclass(frozen=True)
class Store:
    """Where the server is, and the folder that holds the bucket's objects."""

    port: int
    folder: Path

    def address(self, prefix: str = "") -> str:
        """As Triton and `driftline models push` take it."""
        return f"s3://http://127.0.0.1:{self.port}/{BUCKET}" + (f"/{prefix}" if prefix else "")

    def environment(self, secret: str = SECRET) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """A server whose bucket is empty."""
    data, metadata, accounts = folder / "data", folder / "metadata", folder / "accounts"
    for made in (data / BUCKET, metadata, accounts):
        made.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["versitygw", "--port", f"127.0.0.1:{port}", "--quiet", "--iam-dir", str(accounts),
               "posix", "--sidecar", str(metadata), str(data)]  # fmt: skip
    env = {**os.environ, "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the S3 server does not listen"
            time.sleep(0.05)
        yield Store(port, data / BUCKET)
    finally:
        # It would wait for connections that a test has left open.
        process.kill()
        process.wait(10)
