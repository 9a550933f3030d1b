"""A whole system made to be hurt: every connection of every service goes through a proxy of its own, every service has
a clock that can be moved, and Apache Kafka keeps its logs on a small disk of its own."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from driftline.local import servers
from driftline.local.processes import Process, StartError, answers, free_port, start
from driftline.local.servers import Starting
from driftline.local.stack import Options, Report, Stack, cache_folder
from tests.conftest import options
from tests.faults import clock
from tests.faults.schedule import SERVICES, SESSION_SECONDS, SPEAKS
from tests.proxy import FAIR, Proxy

ROOT = Path(__file__).resolve().parents[2]
DISK_MEGABYTES = 768
MODELS = ("hashing", "hashing-64")


class _Wired(Stack):
    """A stack whose broker and services are started the arena's way."""

    def __init__(self, home: Path, arena: Arena) -> None:
        super().__init__(home)
        self._arena = arena

    def _start_kafka(self, options: Options, begin: Callable[[str, Callable[[], Starting]], Process]) -> None:
        process = begin("Apache Kafka", self._arena.start_kafka)
        self.addresses["kafka"] = f"127.0.0.1:{process.ports['kafka']}"

    def _start_services(self, options: Options, report: Report) -> None:
        self._arena.wire()
        super()._start_services(options, report)

    def start_service(self, service: str, number: int = 1, mutant: str = "") -> Process:
        name = service if number == 1 else f"{service}-{number}"
        ports = {"http": free_port()}
        env = {
            **self.env,
            **self._arena.environment(name),
            "DRIFTLINE_TELEMETRY__METRICS_PORT": str(ports["http"]),
            "DRIFTLINE_HTTP__PORT": str(ports["http"]),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "tests.mutants.run", service, *([mutant] if mutant else [])]
        self.addresses[name] = f"http://127.0.0.1:{ports['http']}"
        return self._keep(start(name, command, self.home / f"logs/{name}.log", ports, env, ROOT))


class Arena:
    """Methods may be called from several threads. `down` ends all that was started."""

    def __init__(self, home: Path) -> None:
        self.stack = _Wired(home, self)
        self._lock = threading.Lock()
        self.proxies: dict[tuple[str, str], Proxy] = {}
        self.clocks = {name: home / f"clock-{name}" for name in SERVICES}
        self.disk = home / "data/kafka"
        self._mounted = False
        # Who was found dead without having been killed, with the end of its log.
        self.died: list[str] = []
        # Who may end by itself, since what it stands on was taken away.
        self.may_end: set[str] = set()

    # Up and down

    def up(self) -> None:
        home = self.stack.home
        home.mkdir(parents=True, exist_ok=True)
        for file in self.clocks.values():
            clock.move(file, 0)
        executable = shutil.which("redis-server")
        if executable is None:
            raise StartError("the fault tests need redis-server, Java and Maven: `make servers` installs them")
        try:
            self._mount()
            self.stack.up(
                options(
                    kafka="apache",
                    redis_executable=executable,
                    models=MODELS,
                    replicas={"encode": 2, "index": 2},
                ),
                report=lambda _: None,
            )
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        for process in self.stack.processes:
            process.signal(signal.SIGCONT)  # what is frozen cannot end
        self.stack.down()
        for proxy in self.proxies.values():
            proxy.close()
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)
            self._mounted = False

    def _mount(self) -> None:
        """A disk that is small enough to be filled in a moment."""
        self.disk.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "driftline-tests", str(self.disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StartError(f"the fault tests mount a small disk, for which they must be root: {done.stderr.strip()}")
        self._mounted = True

    def start_kafka(self) -> Starting:
        """One node, as `driftline up --kafka apache` has it, with a listener more per service: clients go where the
        broker says, so each service is told its own proxy."""
        libs, home = servers.kafka_jars(cache_folder()), self.stack.home
        port, controller = free_port(), free_port()
        listeners, advertised = {"PLAIN": port}, {"PLAIN": port}
        for name in SERVICES:
            listener = name.upper().replace("-", "")
            listeners[listener] = behind = free_port()
            proxy = self.proxies[(name, "kafka")] = Proxy(lambda p=behind: ("127.0.0.1", p))  # type: ignore[misc]
            advertised[listener] = proxy.port
        properties = home / "kafka.properties"
        properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={_listeners(listeners)},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={_listeners(advertised)}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{",".join(f"{name}:PLAINTEXT" for name in listeners)}
log.dirs={self.disk / "log"}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
auto.create.topics.enable=false
"""
        )
        java = ["java", "-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]
        tool = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "-t",
            "ZHJpZnRsaW5lLWxvY2FsMQ",
            "-c",
            str(properties),
        ]
        done = subprocess.run(tool, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StartError(f"Kafka's storage could not be formatted:\n{done.stdout[-1500:]}{done.stderr[-500:]}")
        process = start("kafka", [*java, "kafka.Kafka", str(properties)], home / "logs/kafka.log", {"kafka": port})
        return Starting(process, lambda: answers(port))

    def wire(self) -> None:
        """A proxy for each connection to the servers that are started by now; the broker's are there already."""
        for name in SERVICES:
            for server in SPEAKS[name.partition("-")[0]]:
                if server != "kafka":
                    port = self.stack.process(server).ports[server]
                    self.proxies[(name, server)] = Proxy(lambda p=port: ("127.0.0.1", p))  # type: ignore[misc]

    def environment(self, name: str) -> dict[str, str]:
        """Where a service finds each server: behind its own proxy."""
        shapes = {
            "kafka": ("DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:{}"),
            "redis": ("DRIFTLINE_REDIS__URL", "redis://127.0.0.1:{}/0"),
            "milvus": ("DRIFTLINE_MILVUS__URI", "http://127.0.0.1:{}"),
            "triton": ("DRIFTLINE_TRITON__URL", "127.0.0.1:{}"),
        }
        wired = {clock.VARIABLE: str(self.clocks[name])}
        for server in SPEAKS[name.partition("-")[0]]:
            variable, shape = shapes[server]
            wired[variable] = shape.format(self.proxies[(name, server)].port)
        # A member that falls silent loses its partitions after this long.
        wired["DRIFTLINE_KAFKA__SESSION_TIMEOUT_MS"] = str(int(SESSION_SECONDS * 1_000))
        return wired

    # Processes

    def kill(self, name: str) -> None:
        """SIGKILL, for what the process has started too: Triton's stubs outlive it otherwise."""
        process = self.stack.process(name)
        try:
            children = psutil.Process(process.pid).children(recursive=True) if process.running() else []
        except psutil.NoSuchProcess:
            children = []
        self.stack.kill(name)
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=5)

    def start_again(self, name: str) -> None:
        with self._lock:
            self.stack.restart(name)

    def plant(self, service: str, mutant: str) -> None:
        """Replace every replica of a service by one with a planted bug; "" makes it sound again."""
        for process in [p for p in self.stack.processes if p.name.partition("-")[0] == service]:
            self.stack.remove(process.name, 10)
            _, _, number = process.name.partition("-")
            self.stack.start_service(service, int(number or 1), mutant)

    def serving(self, name: str) -> bool:
        """A server listens; a service is alive. (A member of a group that got no partition is alive and not ready.)"""
        process = self.stack.process(name)
        if not process.running():
            return False
        if name in SERVICES:
            return servers.http_ok(f"{self.stack.addresses[name]}/livez")
        if name == "milvus":
            return servers.http_ok(f"http://127.0.0.1:{process.ports['milvus_http']}/healthz")
        if name == "triton":
            return servers.http_ok(f"http://127.0.0.1:{process.ports['triton_http']}/v2/health/ready")
        return answers(process.ports[name])

    def revive(self, name: str) -> None:
        """Start what is not running. Unless it may end, that it did is remembered as a fault of its own."""
        process = self.stack.process(name)
        if process.running():
            return
        if name not in self.may_end:
            self.died.append(f"{name} ended by itself:\n{process.tail(30)}")
        self.start_again(name)

    def calm(self) -> None:
        """End every kind of weather."""
        for proxy in self.proxies.values():
            if proxy.weather != FAIR:
                proxy.suffer(FAIR)
        for file in self.clocks.values():
            clock.move(file, 0)
        for process in list(self.stack.processes):
            process.signal(signal.SIGCONT)
            self.revive(process.name)

    # The disk

    def fill_disk(self) -> None:
        """Leave not one byte, while others go on writing."""
        with (self.disk / "ballast").open("ab", buffering=0) as file:
            for block in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(block))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free_disk(self) -> None:
        (self.disk / "ballast").unlink(missing_ok=True)


def _listeners(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
