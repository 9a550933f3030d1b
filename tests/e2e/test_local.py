"""What `driftline up` leaves running: on loopback only, beside another system, mended when a part dies.

And ready, only later, on a machine that is ten times slower.
"""

from __future__ import annotations

import ipaddress
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from driftline.local.processes import Process
from driftline.local.stack import Stack
from driftline.local.triton import shm_prefix
from tests.client import until
from tests.slow_start import SlowStart

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def second(second_start: SlowStart) -> Iterator[Stack]:
    """A second system beside the session's, supervised, started on a tenth of the processor."""
    print("\n".join(second_start.wait()))
    yield second_start.stack
    second_start.stack.down()


def listening(processes: list[Process]) -> dict[tuple[str, str, int], str]:
    """(address, program, port) of every TCP socket that the processes and their children listen on."""
    return {
        (connection.laddr.ip, process.name, connection.laddr.port): process.name
        for process in processes
        for member in process.family()
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def on_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


@pytest.mark.timeout(900)
def test_a_second_system_starts_beside_the_first_on_a_tenth_of_the_processor(stack: Stack, second: Stack) -> None:
    for system in (stack, second):
        assert {p["state"] for p in system.status()} == {"running"}
    ports = [{port for _, _, port in listening(system.processes)} for system in (stack, second)]
    assert len(ports[1]) >= 15
    assert not ports[0] & ports[1]


@pytest.mark.timeout(900)
def test_every_listening_socket_is_on_loopback(stack: Stack, second: Stack) -> None:
    for system in (stack, second):
        sockets = listening(system.processes)
        assert sum(name == "milvus" for name in sockets.values()) >= 9
        assert {s for s in sockets if not on_loopback(s[0])} == set()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["triton", "redis", "query"])
def test_a_part_that_is_killed_is_started_again_and_status_says_so(second: Stack, part: str) -> None:
    before = Stack(second.home).process(part)
    stubs = [member for member in before.family() if member.pid != before.pid]
    before.signal(signal.SIGKILL)
    until(lambda: Stack(second.home).process(part).pid != before.pid, 60)
    until(lambda: all(p["state"] == "running" for p in Stack(second.home).status()), 120, every=1.0)
    assert not any(stub.is_running() and stub.status() != psutil.STATUS_ZOMBIE for stub in stubs)
    (told,) = [p for p in Stack(second.home).status() if p["name"] == part]
    assert told["restarts"] >= 1
    assert told["why"]
    answers = httpx.get(second.addresses["query"] + "/livez", timeout=10, trust_env=False)
    assert answers.status_code == 200


@pytest.mark.timeout(900)
def test_down_leaves_no_process_and_no_shared_memory(second: Stack) -> None:
    running = Stack(second.home)
    names = f"{shm_prefix(second.home)}*"
    assert list(SHARED_MEMORY.glob(names)), "Triton's regions have names of this system's own"
    members = [member for process in running.processes for member in process.family()]
    running.down(20)
    assert not [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]
    assert not list(SHARED_MEMORY.glob(names))
