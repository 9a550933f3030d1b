"""The whole system on one machine: servers and services as processes, kept track of in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.local import models, prometheus, servers, triton
from driftline.local import state as states
from driftline.local.addresses import probe
from driftline.local.milvus import start_milvus
from driftline.local.processes import Process, StartError, again, free_port, start, stop
from driftline.local.servers import Starting
from driftline.local.state import State
from driftline.local.waiting import Died, Patience, Stuck, wait_until

SERVICES = ("ingest", "encode", "index", "query", "upgrade")
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `driftline up` starts. An address uses an existing server instead.

    `kafka`: "embedded", "apache" or host:port; `redis`, `milvus`, `triton`: "" or an address; `redis_executable`
    another redis-server; `models`: recipes that the model repository must hold; `prometheus` watches it all with the
    chart's rules; `env`: more settings. `supervise` leaves a process behind that starts again what dies: for people,
    not for tests that kill parts on purpose. `attempts`: how often a part that does not start is tried.
    """

    kafka: str = "embedded"
    milvus: str = ""
    redis: str = ""
    triton: str = ""
    redis_executable: str | None = None
    models: Sequence[str] = (models.DEFAULT,)
    prometheus: bool = False
    replicas: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    partitions: int = 4
    supervise: bool = False
    patience: Patience = field(default_factory=Patience)
    attempts: int = 3


def cache_folder() -> Path:
    """Downloads that every stack of this environment shares."""
    return Path(os.environ.get("DRIFTLINE_CACHE", Path(sys.prefix) / "share/driftline"))


def prepare(report: Report, recipes: Sequence[str] = (models.DEFAULT,)) -> None:
    """Everything `up` needs beyond the package: Triton's environment and the encoders. Idempotent."""
    triton.prepare_triton(report)
    for recipe in recipes:
        built = cache_folder() / "models" / recipe
        if built.exists() and models.outdated(built):
            shutil.rmtree(built)
        if not built.exists():
            report(f"building encoder {recipe}")
            models.add(cache_folder() / "models", recipe, recipe, {})


def is_service(process: Process) -> bool:
    """Whether a part is one of ours: `encode` or `encode-2`."""
    return process.name.partition("-")[0] in SERVICES


def write_state(home: Path, state: State) -> None:
    """Save the state, and tell a local Prometheus where the services are."""
    states.save(home, state)
    if (home / "prometheus").exists():
        prometheus.write_targets(home / "prometheus", state.processes, SERVICES)


def _quiet(_: str) -> None:
    """A report that nobody reads."""


class Stack:
    """One local system in `home`. Methods raise StartError."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._state = states.load(self.home)
        self._patience = Patience()

    @property
    def processes(self) -> list[Process]:
        return self._state.processes

    @property
    def addresses(self) -> dict[str, str]:
        return self._state.addresses

    @property
    def notes(self) -> list[str]:
        return self._state.notes

    @property
    def env(self) -> dict[str, str]:
        """Settings that every service gets when it is started."""
        return self._state.env

    @env.setter
    def env(self, settings: dict[str, str]) -> None:
        self._state.env = settings

    @property
    def repository(self) -> Path:
        return self.home / "models"

    @property
    def ingest_url(self) -> str:
        return self.addresses.get("ingest", "")

    @property
    def query_url(self) -> str:
        return self.addresses.get("query", "")

    def running(self) -> bool:
        """Whether a part runs, or is about to be started again."""
        supervisor = self._state.supervisor
        return any(p.running() for p in [*self.processes, *([supervisor] if supervisor else [])])

    def process(self, name: str) -> Process:
        """The process of a part, `encode` or `encode-2`."""
        for found in self.processes:
            if found.name == name:
                return found
        raise StartError(f"{name} is not part of the system in {self.home}")

    def _keep(self, process: Process) -> Process:
        self._state.keep(process)
        self._save()
        return process

    def _save(self) -> None:
        write_state(self.home, self._state)

    # Up and down

    def up(self, options: Options, report: Report = print) -> None:
        """Start everything and return when it is ready.

        What was started is ended again when a part fails and when the call is interrupted.
        """
        for server in ("Kafka", "Redis", "Milvus", "Triton"):
            address = getattr(options, server.lower())
            if address not in ("", "embedded", "apache"):
                probe(server, address)
        if self.running():
            raise StartError(f"a system is running in {self.home}: see `driftline status`, or `driftline down` first")
        self._state = State()
        self._patience = options.patience
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers(options, report)
            self.env = _service_env(options, self.addresses)
            self._start_services(options, report)
            if options.supervise:
                self._state.supervisor = _start_supervisor(self.home)
            self._save()
        except BaseException:
            # Ctrl-C too: nothing may be left that the user has to find and end.
            self.down(grace_seconds=10)
            raise

    def _start_servers(self, options: Options, report: Report) -> None:
        def begin(what: str, starting: Callable[[], Starting]) -> Process:
            return self._begin(what, starting, options, report)

        self._start_kafka(options, begin)
        self.addresses["redis"] = options.redis
        if not options.redis:
            process = begin("Redis", lambda: servers.start_redis(self.home, options.redis_executable))
            self.addresses["redis"] = f"redis://127.0.0.1:{process.ports['redis']}/0"
        self.addresses["milvus"] = options.milvus
        if not options.milvus:
            process = begin("Milvus", lambda: start_milvus(self.home))
            self.addresses["milvus"] = f"http://127.0.0.1:{process.ports['milvus']}"
        self.addresses["triton"] = options.triton
        if not options.triton:
            prepare(report, options.models)
            for recipe in options.models:
                if not (self.repository / recipe).exists():
                    shutil.copytree(cache_folder() / "models" / recipe, self.repository / recipe)
            process = begin("Triton", lambda: triton.start_triton(self.home, self.repository))
            self.addresses["triton"] = f"127.0.0.1:{process.ports['triton']}"
            self.addresses["triton_http"] = f"http://127.0.0.1:{process.ports['triton_http']}"
        if options.prometheus:
            process = begin("Prometheus", lambda: prometheus.start_prometheus(self.home))
            self.addresses["prometheus"] = f"http://127.0.0.1:{process.ports['prometheus']}"

    def _start_kafka(self, options: Options, begin: Callable[[str, Callable[[], Starting]], Process]) -> None:
        if options.kafka == "embedded":
            process = begin("Kafka (embedded)", lambda: servers.start_embedded_kafka(self.home))
            self.addresses["kafka"] = f"127.0.0.1:{process.ports['kafka']}"
            self.notes.append(
                "The embedded Kafka broker keeps its log in memory: after `down`, what Milvus holds stays on disk, but "
                "the log and the collections are gone. Use --kafka apache or --kafka host:port to keep them."
            )
        elif options.kafka == "apache":
            process = begin("Apache Kafka", lambda: servers.start_apache_kafka(self.home, cache_folder()))
            self.addresses["kafka"] = f"127.0.0.1:{process.ports['kafka']}"
        else:
            self.addresses["kafka"] = options.kafka

    def _begin(self, what: str, starting: Callable[[], Starting], options: Options, report: Report) -> Process:
        """Start a server until it is ready; one that dies or hangs is ended and started anew, with other ports."""
        for attempt in range(1, options.attempts + 1):
            report(f"starting {what}")
            begun = starting()
            # Known before it is waited for: whatever comes, `down` finds it.
            self._keep(begun.process)
            try:
                wait_until(begun.process, begun.ready, options.patience, report)
                return begun.process
            except (Died, Stuck) as error:
                self.remove(begun.process.name, 5)
                if attempt == options.attempts:
                    raise
                report(f"{what} did not start, trying again ({attempt} of {options.attempts}): {_first_line(error)}")
        raise StartError(f"{what}: no attempt to start it is allowed")

    def _start_services(self, options: Options, report: Report) -> None:
        names = [
            self.start_service(service, number + 1).name
            for service in SERVICES
            for number in range(options.replicas.get(service, 1))
        ]
        for name in names:
            report(f"waiting for {name}")
            for attempt in range(1, options.attempts + 1):
                try:
                    self.wait_ready(name, report=report)
                    break
                except Died as error:
                    if attempt == options.attempts:
                        raise
                    report(
                        f"{name} did not start, trying again ({attempt} of {options.attempts}): {_first_line(error)}"
                    )
                    self.restart(name)

    def start_service(self, service: str, number: int = 1) -> Process:
        """Start one replica of a service; it may not be ready yet."""
        self._alone()
        name = service if number == 1 else f"{service}-{number}"
        ports = {
            "http": free_port({"ingest": 8080, "query": 8081, "upgrade": 8082}.get(service, 0) if number == 1 else 0)
        }
        env = {**self.env, "DRIFTLINE_TELEMETRY__METRICS_PORT": str(ports["http"])}
        if service in ("ingest", "query", "upgrade"):
            env["DRIFTLINE_HTTP__PORT"] = str(ports["http"])
        if service in ("ingest", "query"):
            ports["grpc"] = free_port()
            env["DRIFTLINE_HTTP__GRPC_PORT"] = str(ports["grpc"])
        command = [sys.executable, "-m", f"driftline.{service}"]
        process = start(name, command, self.home / f"logs/{name}.log", ports, env)
        self.addresses[name] = f"http://127.0.0.1:{ports['http']}"
        if "grpc" in ports:
            self.addresses[f"{name}_grpc"] = f"127.0.0.1:{ports['grpc']}"
        return self._keep(process)

    def ready(self, process: Process) -> bool:
        return servers.http_ok(f"http://127.0.0.1:{process.ports['http']}/readyz")

    def wait_ready(self, name: str, timeout_seconds: float | None = None, report: Report = _quiet) -> None:
        """Return when a service is ready. It is given up when it makes no progress, or after `timeout_seconds`."""
        process, patience = self.process(name), self._patience
        if timeout_seconds is not None:
            patience = Patience(patience.stuck_seconds, timeout_seconds)
        try:
            wait_until(process, lambda: self.ready(process), patience, report)
        except Stuck as error:
            checks = servers.http_body(f"http://127.0.0.1:{process.ports['http']}/readyz")
            raise Stuck(f"{error}\n{name} says: {checks}" if checks else str(error)) from error

    def _alone(self) -> None:
        """Only one process may change the parts: where a supervisor runs, it is the supervisor."""
        if self._state.supervisor is not None and self._state.supervisor.running():
            raise StartError(f"the system in {self.home} is supervised: start it with --no-supervise to change parts")

    def restart(self, name: str) -> Process:
        """Start a part again with its old ports; it may not be ready yet."""
        self._alone()
        return self._keep(again(self.process(name)))

    def remove(self, name: str, grace_seconds: float = 20.0) -> None:
        """End one part and forget it."""
        self._alone()
        stop([self.process(name)], grace_seconds)
        self._state.processes = [p for p in self.processes if p.name != name]
        self._save()

    def kill(self, name: str, number: int = signal.SIGKILL) -> Process:
        """Send a signal to a part: what the fault tests do."""
        process = self.process(name)
        process.signal(number)
        return process

    def down(self, grace_seconds: float = 30.0, report: Report = _quiet) -> None:
        """The supervisor first, then the services, then what they stand on. Idempotent; `report` is told of what had to
        be killed."""
        if self._state.supervisor is not None:
            stop([self._state.supervisor], 10)
            # It may have started parts again since this was read.
            self._state = states.load(self.home)
        services = [p for p in self.processes if is_service(p)]
        killed = stop(services, grace_seconds)
        killed += stop([p for p in self.processes if p not in services], grace_seconds)
        for name in killed:
            report(f"{name} did not end within {grace_seconds:g} s and was killed")
        self._state.processes, self._state.supervisor, self._state.restarts = [], None, {}
        self._save()

    def status(self) -> list[dict[str, Any]]:
        """Every part: running, ready, how often it was started again and why, the last lines of one that crashed."""
        supervisor = self._state.supervisor
        return [self._status(p) for p in [*self.processes, *([supervisor] if supervisor else [])]]

    def _status(self, process: Process) -> dict[str, Any]:
        part: dict[str, Any] = {
            "name": process.name,
            "pid": process.pid,
            "since": process.created,
            "ports": process.ports,
            "log": process.log,
            "state": "running",
        }
        if restarts := self._state.restarts.get(process.name):
            part |= {"restarts": restarts.count, "restarted_at": restarts.at, "why": restarts.why}
        if not process.running():
            part |= {"state": "crashed", "last_lines": process.tail() or "(it wrote nothing in this run)"}
        elif is_service(process) and not self.ready(process):
            part["state"] = "not ready"
        return part


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _start_supervisor(home: Path) -> Process:
    command = [sys.executable, "-m", "driftline.local.supervisor", str(home)]
    return start("supervisor", command, home / "logs/supervisor.log")


def _service_env(options: Options, addresses: Mapping[str, str]) -> dict[str, str]:
    return {
        "DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS": addresses["kafka"],
        "DRIFTLINE_KAFKA__PARTITIONS": str(options.partitions),
        # The embedded broker lets a member join after half a session: shorter sessions start sooner.
        "DRIFTLINE_KAFKA__SESSION_TIMEOUT_MS": "6000",
        "DRIFTLINE_KAFKA__HEARTBEAT_INTERVAL_MS": "1000",
        # It also looks for new records only a few times per fetch: longer ones cost latency, shorter ones CPU.
        "DRIFTLINE_KAFKA__FETCH_WAIT_MS": "60" if options.kafka == "embedded" else "500",
        "DRIFTLINE_MILVUS__URI": addresses["milvus"],
        "DRIFTLINE_REDIS__URL": addresses["redis"],
        "DRIFTLINE_TRITON__URL": addresses["triton"],
        "DRIFTLINE_AUTH__MODE": "off",
        "DRIFTLINE_QUERY__LOG_PER_SECOND": "5",
        "DRIFTLINE_UPGRADE__UNLOAD_AFTER_SECONDS": "60",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **options.env,
    }
