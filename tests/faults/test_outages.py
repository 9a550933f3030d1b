"""A dependency that is down in the middle of a load: nothing is lost, readiness says why, work resumes by itself.

DRIFTLINE_OUTAGE_SECONDS: 30 on the full stack, 8 otherwise.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx
import pytest

from driftline.local.stack import Stack
from tests.client import User, until
from tests.conftest import FULL

pytestmark = pytest.mark.brokers
SECONDS = float(os.environ.get("DRIFTLINE_OUTAGE_SECONDS", "30" if FULL else "8"))
WAITING = {"triton": "encode", "milvus": "index"}


def readiness(stack: Stack, service: str) -> tuple[int, str]:
    answer = httpx.get(stack.addresses[service] + "/readyz", timeout=10, trust_env=False)
    return answer.status_code, answer.text


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["triton", "milvus", "redis"])
def test_an_outage_in_a_load_loses_nothing(stack: Stack, part: str) -> None:
    user = User(stack)
    # The outage of another part may just be over: connections are made anew within two seconds.
    first = {"name": f"first-{part}", "fields": {"title": {"type": "text"}}}
    first |= {"embedding": {"encoder": "hashing", "fields": ["title"]}}
    until(lambda: user.ingest.put(f"/v1/collections/first-{part}", json=first).status_code in (200, 201), 10, every=0.5)
    collection = user.create()
    # Texts differ, so that no cache can stand in for a server that is down.
    total, sent = 400, 0
    pids = {p.name: p.pid for p in stack.processes}

    def load(count: int) -> None:
        nonlocal sent
        lines = [{"id": f"d{i}", "fields": {"title": f"{part} outage document {i}"}} for i in range(sent, sent + count)]
        assert all(answer["state"] == "accepted" for answer in user.bulk(collection, lines))
        sent += count

    load(100)
    stack.kill(part, signal.SIGKILL)
    begun = time.monotonic()
    load(200)
    if part in WAITING:
        until(lambda: readiness(stack, WAITING[part])[0] == 503, 40)
        assert part in readiness(stack, WAITING[part])[1]
    else:
        for _ in range(5):
            assert user.query.post(f"/v1/collections/{collection}/search", json={"text": "outage"}).status_code == 200
    threading.Event().wait(max(0.0, SECONDS - (time.monotonic() - begun)))
    stack.restart(part)
    load(total - sent)
    until(lambda: safe_count(user, collection) == total, 150, every=0.5)
    for service in ("ingest", "encode", "index", "query"):
        until(lambda s=service: readiness(stack, s)[0] == 200, 60)  # type: ignore[misc]
        assert stack.process(service).pid == pids[service], f"{service} was restarted"
    until(lambda: len(search_or_nothing(user, collection)) == 10, 30)


def safe_count(user: User, collection: str) -> int:
    answer = user.ingest.get(f"/v1/collections/{collection}")
    return int(answer.json()["documents"]) if answer.status_code == 200 else -1


def search_or_nothing(user: User, collection: str) -> list[object]:
    answer = user.query.post(f"/v1/collections/{collection}/search", json={"text": "outage document"})
    return list(answer.json()["hits"]) if answer.status_code == 200 else []
