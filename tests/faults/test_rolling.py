"""A rolling upgrade of Driftline itself: the services of an older commit are replaced one by one, under load.

ROLLING_BASE names the commit; by default the last release tag, or the commit before. Old and new run side by side on
the same topics and stores the whole time; the end must equal the oracle, in both directions.
"""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from driftline.local.processes import start
from driftline.local.stack import SERVICES, Stack
from tests.client import User, until
from tests.conftest import options
from tests.load import Load, Searches
from tests.oracle import VERSIONED, Oracle, check

ROOT = Path(__file__).resolve().parents[2]
ROLLS = [*SERVICES, "encode-2", "index-2"]


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=60).stdout


def base() -> str:
    if given := os.environ.get("ROLLING_BASE", ""):
        return given
    tags = git("tag", "--merged", "HEAD~1", "--sort=-creatordate").decode().split()
    return tags[0] if tags else "HEAD~1"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The services of the older commit, which tell a version of their own."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(git("archive", base(), "services", "deploy"))) as archive:
        archive.extractall(folder, filter="data")
    package = folder / "services/driftline/__init__.py"
    package.write_text(package.read_text() + '__version__ = "0.0.0+older"\n')
    return folder / "services"


@pytest.fixture(scope="module")
def rolled(tmp_path_factory: pytest.TempPathFactory, older: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("rolled"))
    chosen = options(models=("hashing", "hashing-64"), replicas={"encode": 2, "index": 2})
    chosen.env["PYTHONPATH"] = str(older)  # type: ignore[index]
    stack.up(chosen, report=lambda _: None)
    yield stack
    stack.down()


def version(stack: Stack, name: str) -> str:
    text = httpx.get(stack.addresses[name] + "/metrics", timeout=10, trust_env=False).text
    found = re.search(r'driftline_build_info\{.*version="([^"]+)"', text)
    return found[1] if found else ""


def replace(stack: Stack, name: str, pythonpath: str) -> None:
    """SIGTERM, which drains; then the other version on the same ports, and wait until it is ready."""
    process = stack.process(name)
    stack.remove(name, 30)
    env = {**process.env, "PYTHONPATH": pythonpath}
    stack._keep(start(name, process.command, Path(process.log), process.ports, env))
    until(lambda: _answers(stack, name), 90)


def _answers(stack: Stack, name: str) -> bool:
    try:
        return httpx.get(stack.addresses[name] + "/livez", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.timeout(900)
def test_old_and_new_services_side_by_side_lose_nothing(rolled: Stack, older: Path) -> None:
    user, oracle, rng = User(rolled), Oracle(), random.Random(7)
    collection = user.create(**VERSIONED)
    assert {version(rolled, name) for name in ROLLS} == {"0.0.0+older"}
    producers = [Load(rolled, collection, oracle, number, 7) for number in (1, 2)]
    searches = Searches(rolled, collection)
    for thread in (*producers, searches):
        thread.start()
    time.sleep(3)
    forward = rng.sample(ROLLS, len(ROLLS))
    for name in forward:
        replace(rolled, name, "")
        time.sleep(2)
    assert "0.0.0+older" not in {version(rolled, name) for name in ROLLS}
    back = rng.sample(ROLLS, 3)
    for name in back:
        replace(rolled, name, str(older))
        time.sleep(2)
    for thread in producers:
        thread.halt.set()
        thread.join(60)
        assert thread.error is None, thread.error
    searches.halt.set()
    searches.join(30)
    print(
        f"from {git('rev-parse', '--short', base()).decode().strip()}: {len(oracle.tokens)} events, "
        f"{searches.answered} searches, forward {forward}, back {back}"
    )
    # The one query process is away for a moment while it is replaced: refused connections are all that may fail.
    assert [f for f in searches.failed if "Connect" not in f and "Remote" not in f and "Read" not in f] == []
    assert searches.answered > 50
    check(rolled, user, collection, oracle, timeout_seconds=180)
