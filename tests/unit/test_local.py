"""Starting, watching and ending local processes, with small ones in the place of the servers."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from driftline.local import state as states
from driftline.local import waiting
from driftline.local.addresses import host_and_port, probe
from driftline.local.loopback import loopback_address
from driftline.local.processes import Process, StartError, again, start, stop
from driftline.local.servers import Starting
from driftline.local.stack import Options, Stack
from driftline.local.state import Restarts, State
from driftline.local.supervisor import Supervisor
from driftline.local.waiting import Died, Patience, Stuck, wait_until
from tests.client import until


def a_process(folder: Path, code: str, name: str = "part", **more: object) -> Process:
    return start(name, [sys.executable, "-u", "-c", code], folder / f"{name}.log", **more)  # type: ignore[arg-type]


SLEEP = "import time; time.sleep(600)"
PATIENCE = Patience(stuck_seconds=1.0, start_seconds=60.0)


def ready_when(process: Process, text: str) -> bool:
    return text in process.tail()


# Stopping


def test_what_does_not_end_by_itself_is_killed_and_named(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n" + SLEEP
    first = a_process(tmp_path, deaf)
    wait_until(first, lambda: ready_when(first, "ready"), PATIENCE)
    assert stop([first], 0.5) == [first.name]
    assert not first.running()
    second = a_process(tmp_path, SLEEP)
    assert stop([second], 10) == []


# Waiting


def test_a_part_that_writes_is_waited_for_beyond_the_limit_on_no_progress(tmp_path: Path) -> None:
    process = a_process(tmp_path, "import time\nfor i in range(8): print(i); time.sleep(.25)\nprint('ready')\n" + SLEEP)
    wait_until(process, lambda: ready_when(process, "ready"), PATIENCE)
    stop([process], 1)


def test_a_part_that_only_uses_the_processor_is_waited_for_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # How much processor a busy process gets is the machine's affair, so here it is half a second at each look.
    used = itertools.count(0.5, 0.5)
    monkeypatch.setattr(waiting, "processor_seconds", lambda process: next(used))
    process = a_process(tmp_path, "import time; time.sleep(3); print('ready')\n" + SLEEP)
    wait_until(process, lambda: ready_when(process, "ready"), PATIENCE)
    stop([process], 1)


def test_the_processor_time_of_a_part_is_that_of_its_children_too(tmp_path: Path) -> None:
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = a_process(tmp_path, busy)
    until(lambda: waiting.processor_seconds(process) >= 1, 60)
    stop([process], 1)


def test_a_part_that_neither_writes_nor_works_is_given_up_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    process = a_process(tmp_path, SLEEP)
    with pytest.raises(Stuck, match=r"no progress for 1 s(.|\n)*--stuck-after(.|\n)*wrote nothing(.|\n)*free -m"):
        wait_until(process, lambda: False, PATIENCE)
    stop([process], 1)


def test_a_part_that_works_for_ever_is_given_up_after_the_overall_limit(tmp_path: Path) -> None:
    process = a_process(tmp_path, "import time\nwhile True: print('still here'); time.sleep(.2)")
    with pytest.raises(Stuck, match="--start-limit"):
        wait_until(process, lambda: False, Patience(10, 1))
    stop([process], 1)


def test_the_message_of_a_failed_start_holds_the_lines_of_this_run_only(tmp_path: Path) -> None:
    (tmp_path / "part.log").write_text("of an older run\n")
    process = a_process(tmp_path, "print('of this run'); raise SystemExit(3)")
    with pytest.raises(Died, match="ended while starting") as caught:
        wait_until(process, lambda: False, PATIENCE)
    assert "of this run" in str(caught.value)
    assert "of an older run" not in str(caught.value)


# Ending and cleaning


STUBBORN_CHILD = (
    "import subprocess, sys, time\n"
    "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
    "print(subprocess.Popen([sys.executable, '-c', child]).pid, flush=True)\n"
)


def with_child(folder: Path, **more: object) -> tuple[Process, psutil.Process]:
    process = a_process(folder, STUBBORN_CHILD + SLEEP, **more)
    until(lambda: process.tail().strip().isdecimal(), 20)
    return process, psutil.Process(int(process.tail()))


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_children_that_outlive_a_dead_part_are_ended_with_it(tmp_path: Path) -> None:
    process, child = with_child(tmp_path)
    process.signal(signal.SIGKILL)
    until(lambda: not process.running(), 10)
    assert alive(child)
    stop([process], 1)
    until(lambda: not alive(child), 10)


def test_only_the_shared_memory_of_this_system_is_removed(tmp_path: Path) -> None:
    ours, others = f"driftline_{uuid.uuid4().hex}_", f"driftline_{uuid.uuid4().hex}_"
    files = [Path("/dev/shm") / f"{prefix}region" for prefix in (ours, others)]
    for file in files:
        file.touch()
    try:
        stop([a_process(tmp_path, SLEEP, shm_prefix=ours)], 1)
        assert [file.exists() for file in files] == [False, True]
    finally:
        files[1].unlink()


def test_what_a_dead_part_left_is_cleaned_before_it_is_started_again(tmp_path: Path) -> None:
    process, child = with_child(tmp_path)
    process.signal(signal.SIGKILL)
    until(lambda: not process.running(), 10)
    second = again(process)
    until(lambda: not alive(child), 10)
    assert (second.name, second.command) == (process.name, process.command)
    stop([second], 1)


# Starting


def options(**more: object) -> Options:
    return Options(patience=PATIENCE, **more)  # type: ignore[arg-type]


def test_a_server_that_dies_is_started_anew_and_one_that_goes_on_dying_is_reported(tmp_path: Path) -> None:
    stack, tries, said = Stack(tmp_path / "home"), [0], list[str]()

    def starting() -> Starting:
        tries[0] += 1
        code = "raise SystemExit('no')" if tries[0] < 3 else "print('ready')\n" + SLEEP
        process = a_process(tmp_path, code)
        return Starting(process, lambda: ready_when(process, "ready"))

    begun = stack._begin("Triton", starting, options(), said.append)
    assert begun.running()
    assert sum("trying again" in line for line in said) == 2
    stack.down(1)
    tries[0] = -10
    with pytest.raises(Died):
        stack._begin("Triton", starting, options(), said.append)
    assert stack.processes == []


def test_a_server_that_hangs_is_known_while_it_is_waited_for_and_not_left_running(tmp_path: Path) -> None:
    stack, begun = Stack(tmp_path / "home"), list[Process]()

    def starting() -> Starting:
        begun.append(a_process(tmp_path, SLEEP))
        return Starting(begun[-1], lambda: bool(Stack(stack.home).processes) and False)

    with pytest.raises(Stuck):
        stack._begin("Milvus", starting, options(attempts=1), lambda _: None)
    assert not begun[0].running()


def test_an_interrupted_start_takes_down_what_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack, begun = Stack(tmp_path / "home"), list[Process]()

    def interrupted(options: Options, report: object) -> None:
        begun.append(stack._keep(a_process(tmp_path, SLEEP)))
        raise KeyboardInterrupt

    monkeypatch.setattr(stack, "_start_servers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack.up(options(), lambda _: None)
    assert not begun[0].running()
    assert Stack(stack.home).processes == []


# Addresses


@pytest.mark.parametrize(
    "address, expected",
    [
        ("kafka.example:9092", ("kafka.example", 9092)),
        ("http://127.0.0.1:19530", ("127.0.0.1", 19530)),
        ("redis://cache/0", ("cache", 6379)),
        ("https://milvus.example", ("milvus.example", 443)),
        ("[::1]:9092", ("::1", 9092)),
    ],
)
def test_an_address_is_read(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.mark.parametrize("address", ["kafka", "host:port", "http://:1", "host:99999999"])
def test_a_wrong_address_is_refused_with_one_line(address: str) -> None:
    with pytest.raises(StartError) as caught:
        probe("Kafka", address)
    assert str(caught.value).startswith(f"--kafka {address}: ")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(StartError, match=f"no Milvus answers at http://{address}.*--milvus"):
            Stack(tmp_path / "home").up(Options(milvus=f"http://{address}"), lambda _: None)
        assert not (tmp_path / "home").exists()
        bound.listen()
        probe("Milvus", f"127.0.0.1:1,{address}")


# Loopback


def test_wildcard_addresses_become_loopback_and_others_stay() -> None:
    v4 = b"\x02\x00\x4a\x38" + bytes(4) + bytes(8)
    v6 = b"\x0a\x00\x4a\x38" + bytes(4) + bytes(16) + bytes(4)
    assert loopback_address(v4) == b"\x02\x00\x4a\x38\x7f\x00\x00\x01" + bytes(8)
    assert loopback_address(v6) == v6[:8] + bytes(10) + b"\xff\xff\x7f\x00\x00\x01" + bytes(4)
    assert loopback_address(b"\x02\x00\x4a\x38\x0a\x00\x00\x01" + bytes(8)) is None
    assert loopback_address(b"\x01\x00/tmp/socket") is None
    assert loopback_address(b"") is None


LISTEN = """
import socket, time
for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET, "127.0.0.2")):
    listener = socket.socket(family)
    globals()[host] = listener
    listener.bind((host, 0))
    listener.listen()
    print(listener.getsockname()[0], listener.getsockname()[1])
time.sleep(600)
"""


def test_a_server_that_binds_every_interface_ends_up_on_loopback_under_its_own_id(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "driftline.local.loopback", sys.executable, "-u", "-c", LISTEN]
    process = start("server", command, tmp_path / "server.log")
    try:
        until(lambda: len(process.tail().splitlines()) == 3 or not process.running(), 20)
        bound = [line.split() for line in process.tail().splitlines()]
        assert [host for host, _ in bound] == ["::ffff:127.0.0.1", "127.0.0.1", "127.0.0.2"], process.tail()
        for host, port in bound:
            socket.create_connection((host.removeprefix("::ffff:"), int(port)), 5).close()
        family = process.family()
        assert "-m" not in psutil.Process(process.pid).cmdline(), "the process is the server"
        process.signal(signal.SIGKILL)
        until(lambda: not any(alive(member) for member in family), 10)
    finally:
        stop([process], 1)


# Supervision


class Supervised:
    """A supervisor over a state of its own, with a clock that the test moves."""

    def __init__(self, *processes: Process) -> None:
        self.state = State(list(processes))
        self.now = 0.0
        self.saved: list[State] = []
        self.said: list[str] = []
        self.supervisor = Supervisor(
            self.state,
            self.saved.append,
            services=lambda process: process.name == "encode",
            clock=lambda: self.now,
            report=self.said.append,
        )

    def process(self, name: str = "part") -> Process:
        return next(p for p in self.state.processes if p.name == name)

    def died(self, name: str = "part") -> None:
        process = self.process(name)
        process.signal(signal.SIGKILL)
        until(lambda: not process.running(), 10)

    def pause(self, name: str = "part") -> float:
        """Seconds on the clock until a dead part runs again."""
        begun, dead = self.now, self.process(name).pid
        while self.process(name).pid == dead:
            self.supervisor.look()
            self.now += 0.25
        return self.now - 0.25 - begun


def test_what_dies_is_started_again_with_pauses_that_double(tmp_path: Path) -> None:
    world = Supervised(a_process(tmp_path, SLEEP))
    pauses = []
    for _ in range(4):
        world.died()
        pauses.append(world.pause())
    stop(world.state.processes, 1)
    assert pauses == [1, 2, 4, 8]
    restarts = world.saved[-1].restarts["part"]
    assert restarts.count == 4
    assert "signal 9" in restarts.why
    assert len(world.said) == 4


def test_what_runs_is_left_alone(tmp_path: Path) -> None:
    world = Supervised(a_process(tmp_path, SLEEP))
    world.process().signal(signal.SIGSTOP)
    for _ in range(50):
        world.supervisor.look()
        world.now += 1
    assert not world.saved
    stop(world.state.processes, 1)


def test_the_services_begin_anew_with_a_broker_that_has_forgotten_everything(tmp_path: Path) -> None:
    world = Supervised(a_process(tmp_path, SLEEP, "kafka", forgetful=True), a_process(tmp_path, SLEEP, "encode"))
    before = world.process("encode").pid
    world.died("kafka")
    world.pause("kafka")
    assert world.process("encode").pid != before
    assert "kafka was started again, empty" in world.state.restarts["encode"].why
    assert all(p.running() for p in world.state.processes)
    stop(world.state.processes, 1)


def test_the_supervisor_process_restarts_and_status_tells_and_down_ends_it(tmp_path: Path) -> None:
    stack = supervised_system(tmp_path)
    try:
        first = Stack(stack.home).process("redis").pid
        os.kill(first, signal.SIGKILL)
        until(lambda: Stack(stack.home).process("redis").pid != first, 30)
        (part,) = [p for p in Stack(stack.home).status() if p["name"] == "redis"]
        assert (part["state"], part["restarts"]) == ("running", 1)
        assert "last line: up" in part["why"]
        watcher = Stack(stack.home)._state.supervisor
        assert watcher is not None and watcher.running()
    finally:
        stack.down(5)
    assert not watcher.running()
    assert not psutil.pid_exists(first)
    assert Stack(stack.home).status() == []


def test_only_the_supervisor_changes_the_parts_of_a_supervised_system(tmp_path: Path) -> None:
    stack = supervised_system(tmp_path)
    try:
        for change in (stack.restart, stack.remove, stack.start_service):
            with pytest.raises(StartError, match="--no-supervise"):
                change("redis")
    finally:
        stack.down(5)


def test_the_supervisor_ends_itself_and_the_parts_when_the_state_is_gone(tmp_path: Path) -> None:
    stack = supervised_system(tmp_path)
    watcher = stack._state.supervisor
    assert watcher is not None
    try:
        until(
            lambda: (
                "redis" in subprocess.run(["cat", stack.home / "state.json"], capture_output=True, text=True).stdout
            ),
            5,
        )
        time.sleep(1.5)
        shutil.rmtree(stack.home)
        until(lambda: not watcher.running(), 30)
        assert not stack.process("redis").running()
    finally:
        stop([*stack.processes, watcher], 1)


def supervised_system(folder: Path) -> Stack:
    """A system of one part, with a supervisor process."""
    from driftline.local.stack import _start_supervisor

    stack = Stack(folder / "home")
    part = stack._keep(a_process(stack.home / "logs", "print('up')\n" + SLEEP, "redis"))
    until(lambda: ready_when(part, "up"), 20)
    stack._state.supervisor = _start_supervisor(stack.home)
    stack._save()
    return stack


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    process = Process("a", 1, 2.0, "log", {"http": 3}, ["x"], {"A": "b"}, "/", 5, "prefix", True)
    state = State([process], {"a": "b"}, {"c": "d"}, ["note"], {"a": Restarts(1, 2.0, "why")}, process)
    states.save(tmp_path, state)
    assert states.load(tmp_path) == state
