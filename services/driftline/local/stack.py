"""The whole system on one machine: servers and services as processes, kept track of in one folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.local import models, prometheus, servers
from driftline.local.processes import Process, StartError, again, free_port, start, stop, wait_until

SERVICES = ("ingest", "encode", "index", "query", "upgrade")
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `driftline up` starts. An address uses an existing server instead.

    `kafka`: "embedded", "apache" or host:port; `redis`, `milvus`, `triton`: "" or an address; `redis_executable`
    another redis-server; `models`: recipes that the model repository must hold; `prometheus` watches it all with the
    chart's rules; `env`: more settings.
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


def cache_folder() -> Path:
    """Downloads that every stack of this environment shares."""
    return Path(os.environ.get("DRIFTLINE_CACHE", Path(sys.prefix) / "share/driftline"))


def prepare(report: Report, recipes: Sequence[str] = (models.DEFAULT,)) -> None:
    """Everything `up` needs beyond the package: Triton's environment and the encoders. Idempotent."""
    servers.prepare_triton(report)
    for recipe in recipes:
        built = cache_folder() / "models" / recipe
        if built.exists() and models.outdated(built):
            shutil.rmtree(built)
        if not built.exists():
            report(f"building encoder {recipe}")
            models.add(cache_folder() / "models", recipe, recipe, {})


class Stack:
    """One local system in `home`. Methods raise StartError."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.processes: list[Process] = []
        self.addresses: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self.notes: list[str] = []
        self._load()

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
        return any(p.running() for p in self.processes)

    def process(self, name: str) -> Process:
        """The process of a part, `encode` or `encode-2`."""
        for found in self.processes:
            if found.name == name:
                return found
        raise StartError(f"{name} is not part of the system in {self.home}")

    # State

    def _load(self) -> None:
        path = self.home / "state.json"
        if path.exists():
            state = json.loads(path.read_text(encoding="utf-8"))
            self.processes = [Process(**p) for p in state["processes"]]
            self.addresses, self.env, self.notes = state["addresses"], state["env"], state["notes"]

    def _save(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        state = {
            "processes": [p.as_json() for p in self.processes],
            "addresses": self.addresses,
            "env": self.env,
            "notes": self.notes,
        }
        part = self.home / "state.json.part"
        part.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        part.rename(self.home / "state.json")
        if (self.home / "prometheus").exists():
            prometheus.write_targets(self.home / "prometheus", self.processes, SERVICES)

    def _keep(self, process: Process) -> Process:
        self.processes = [p for p in self.processes if p.name != process.name] + [process]
        self._save()
        return process

    # Up and down

    def up(self, options: Options, report: Report = print) -> None:
        """Start everything and return when it is ready. What was started is ended again when a part fails."""
        if self.running():
            raise StartError(f"a system is running in {self.home}: see `driftline status`, or `driftline down` first")
        self.processes, self.addresses, self.notes = [], {}, []
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers(options, report)
            if options.prometheus:
                report("starting Prometheus")
                process = self._keep(prometheus.start_prometheus(self.home))
                self.addresses["prometheus"] = f"http://127.0.0.1:{process.ports['prometheus']}"
            self.env = self._service_env(options)
            for service in SERVICES:
                for number in range(options.replicas.get(service, 1)):
                    self.start_service(service, number + 1)
            for process in [p for p in self.processes if p.name.partition("-")[0] in SERVICES]:
                report(f"waiting for {process.name}")
                self.wait_ready(process.name)
            self._save()
        except (StartError, models.ModelError):
            self.down()
            raise

    def _start_servers(self, options: Options, report: Report) -> None:
        if options.kafka == "embedded":
            report("starting Kafka (embedded)")
            self.addresses["kafka"] = f"127.0.0.1:{self._keep(servers.start_embedded_kafka(self.home)).ports['kafka']}"
            self.notes.append(
                "The embedded Kafka broker keeps its log in memory: after `down`, what Milvus holds stays on disk, but "
                "the log and the collections are gone. Use --kafka apache or --kafka host:port to keep them."
            )
        elif options.kafka == "apache":
            report("starting Apache Kafka")
            process = self._keep(servers.start_apache_kafka(self.home, cache_folder()))
            self.addresses["kafka"] = f"127.0.0.1:{process.ports['kafka']}"
        else:
            self.addresses["kafka"] = options.kafka
        self.addresses["redis"] = options.redis
        if not options.redis:
            report("starting Redis")
            process = self._keep(servers.start_redis(self.home, options.redis_executable))
            self.addresses["redis"] = f"redis://127.0.0.1:{process.ports['redis']}/0"
        self.addresses["milvus"] = options.milvus
        if not options.milvus:
            report("starting Milvus")
            process = self._keep(servers.start_milvus(self.home))
            self.addresses["milvus"] = f"http://127.0.0.1:{process.ports['milvus']}"
        self.addresses["triton"] = options.triton
        if not options.triton:
            prepare(report, options.models)
            for recipe in options.models:
                if not (self.repository / recipe).exists():
                    shutil.copytree(cache_folder() / "models" / recipe, self.repository / recipe)
            report("starting Triton")
            process = self._keep(servers.start_triton(self.home, self.repository))
            self.addresses["triton"] = f"127.0.0.1:{process.ports['triton']}"
            self.addresses["triton_http"] = f"http://127.0.0.1:{process.ports['triton_http']}"

    def _service_env(self, options: Options) -> dict[str, str]:
        return {
            "DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS": self.addresses["kafka"],
            "DRIFTLINE_KAFKA__PARTITIONS": str(options.partitions),
            # The embedded broker lets a member join after half a session: shorter sessions start sooner.
            "DRIFTLINE_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "DRIFTLINE_KAFKA__HEARTBEAT_INTERVAL_MS": "1000",
            # It also looks for new records only a few times per fetch: longer ones cost latency, shorter ones CPU.
            "DRIFTLINE_KAFKA__FETCH_WAIT_MS": "60" if options.kafka == "embedded" else "500",
            "DRIFTLINE_MILVUS__URI": self.addresses["milvus"],
            "DRIFTLINE_REDIS__URL": self.addresses["redis"],
            "DRIFTLINE_TRITON__URL": self.addresses["triton"],
            "DRIFTLINE_AUTH__MODE": "off",
            "DRIFTLINE_QUERY__LOG_PER_SECOND": "5",
            "DRIFTLINE_UPGRADE__UNLOAD_AFTER_SECONDS": "60",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **options.env,
        }

    def start_service(self, service: str, number: int = 1) -> Process:
        """Start one replica of a service; it may not be ready yet."""
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

    def wait_ready(self, name: str, timeout_seconds: float = 90) -> None:
        process = self.process(name)
        try:
            wait_until(process, lambda: self.ready(process), timeout_seconds)
        except StartError as error:
            checks = servers.http_body(f"http://127.0.0.1:{process.ports['http']}/readyz")
            raise StartError(f"{error}\n{name} says: {checks}" if checks else str(error)) from error

    def restart(self, name: str) -> Process:
        """Start a part again with its old ports; it may not be ready yet."""
        return self._keep(again(self.process(name)))

    def remove(self, name: str, grace_seconds: float = 20.0) -> None:
        """End one part and forget it."""
        stop([self.process(name)], grace_seconds)
        self.processes = [p for p in self.processes if p.name != name]
        self._save()

    def kill(self, name: str, number: int = signal.SIGKILL) -> Process:
        """Send a signal to a part: what the fault tests do."""
        process = self.process(name)
        process.signal(number)
        return process

    def down(self, grace_seconds: float = 30.0) -> None:
        """Services first, then what they stand on. Idempotent."""
        services = [p for p in self.processes if p.name.partition("-")[0] in SERVICES]
        stop(services, grace_seconds)
        stop([p for p in self.processes if p not in services], grace_seconds)
        self.processes = []
        self._save()

    def status(self) -> list[dict[str, Any]]:
        """Every part: running, ready, and the last lines of one that crashed."""
        report = []
        for process in self.processes:
            running = process.running()
            part: dict[str, Any] = {
                "name": process.name,
                "pid": process.pid,
                "ports": process.ports,
                "log": process.log,
            }
            part["state"] = "running" if running else "crashed"
            if not running:
                part["last_lines"] = process.tail()
            elif process.name.partition("-")[0] in SERVICES and not self.ready(process):
                part["state"] = "not ready"
            report.append(part)
        return report
