"""Prometheus over the running system: every service is scraped, every rule evaluates, an alert fires and resolves."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from driftline.local.prometheus import start_prometheus
from driftline.local.stack import SERVICES, Stack
from driftline.local.waiting import Patience, wait_until
from tests.client import User, until

pytestmark = pytest.mark.brokers


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Stack]:
    """The stack that the other suites have used, and a Prometheus that has seen nothing of it."""
    starting = start_prometheus(stack.home)
    process = stack._keep(starting.process)
    wait_until(process, starting.ready, Patience())
    stack.addresses["prometheus"] = f"http://127.0.0.1:{process.ports['prometheus']}"
    stack._save()
    yield stack
    stack.remove("prometheus")


def ask(stack: Stack, path: str, **params: str) -> Any:
    answer = httpx.get(f"{stack.addresses['prometheus']}/api/v1/{path}", params=params, timeout=10, trust_env=False)
    answer.raise_for_status()
    return answer.json()["data"]


def alerts(stack: Stack) -> dict[str, list[dict[str, str]]]:
    """Alert -> the labels of what fires."""
    found: dict[str, list[dict[str, str]]] = {}
    for alert in ask(stack, "alerts")["alerts"]:
        if alert["state"] == "firing":
            found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
    return found


def down(stack: Stack) -> set[tuple[str, str]]:
    """(job, check) of the dependencies that are reported down."""
    return {(a["job"], a["check"]) for a in alerts(stack).get("DriftlineDependencyDown", [])}


@pytest.mark.timeout(600)
def test_alerts_fire_while_a_dependency_is_down_and_resolve_when_it_is_back(watched: Stack) -> None:
    user = User(watched)
    name = user.create()
    for i in range(20):
        assert user.put(name, f"d{i}", title=f"a document {i}")["state"] == "searchable"
        user.search(name, f"document {i}")

    def scraped() -> set[str]:
        targets = ask(watched, "targets", state="active")["activeTargets"]
        return {t["labels"]["job"] for t in targets if t["health"] == "up"}

    until(lambda: scraped() >= {*(f"driftline-{s}" for s in SERVICES), "triton"}, 60)
    # Rates need two scrapes of what was counted.
    until(lambda: bool(ask(watched, "query", query="driftline:freshness_seconds:p99_5m")["result"]), 90)
    rules = [rule for group in ask(watched, "rules")["groups"] for rule in group["rules"]]
    assert rules
    until(lambda: all(r["health"] == "ok" for g in ask(watched, "rules")["groups"] for r in g["rules"]), 60)
    assert alerts(watched) == {}

    watched.kill("milvus", signal.SIGKILL)
    begun = time.monotonic()
    # The services that check Milvus by themselves; index notices with its next write.
    until(lambda: down(watched) >= {("driftline-query", "milvus"), ("driftline-upgrade", "milvus")}, 120)
    print(f"DriftlineDependencyDown fired {time.monotonic() - begun:.0f} s after Milvus was killed")
    assert {check for _, check in down(watched)} <= {"milvus", "pipeline"}
    time.sleep(max(0.0, 60 - (time.monotonic() - begun)))
    watched.restart("milvus")
    back = time.monotonic()
    until(lambda: "DriftlineDependencyDown" not in alerts(watched), 180)
    print(f"resolved {time.monotonic() - back:.0f} s after it was started again")
    # Milvus loads the collections of all suites before this one's takes writes again.
    until(lambda: user.put(name, "after", title="after the outage")["state"] == "searchable", 150)

    watched.kill("encode", signal.SIGKILL)
    until(lambda: [a["job"] for a in alerts(watched).get("DriftlineServiceDown", [])] == ["driftline-encode"], 150)
    watched.restart("encode")
    until(lambda: "DriftlineServiceDown" not in alerts(watched), 90)
