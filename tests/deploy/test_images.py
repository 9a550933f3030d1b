"""Images and compose files. No container engine is needed: what an image would hold is installed and started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.deploy.manifests import REPOSITORY, ROOT, by_kind, pods, profile, render

SERVICES = ["ingest", "encode", "index", "query", "upgrade"]
DEPLOY = ROOT / "deploy"


def run(*command: str, env: dict[str, str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.triton"])
def test_dockerfiles_pass_hadolint(name: str) -> None:
    done = run(str(Path(sys.executable).parent / "hadolint"), str(DEPLOY / name))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["compose.yaml", "compose.observability.yaml"])
def test_compose_files_hold_their_specification(name: str) -> None:
    found = yaml.safe_load((DEPLOY / name).read_text())
    parsed = PyCompose.from_yaml(yaml.safe_dump({k: v for k, v in found.items() if not k.startswith("x-")}))
    parsed.to_spec()
    parsed.validate()
    assert set(parsed.service_names()) == set(found["services"])


@pytest.mark.parametrize("wrong", [{"ports": "8080"}, {"depends_on": {"a": {"condition": "soon"}}}, {"restrat": "no"}])
def test_the_compose_check_refuses_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong)) + "|unknown|invalid|expected"):
        PyCompose.from_yaml(yaml.safe_dump({"services": {"a": {"image": "a", **wrong}}})).to_spec()


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_compose_runs_every_service_locked_down_and_on_loopback() -> None:
    services = compose()["services"]
    assert set(SERVICES) <= set(services)
    for name in SERVICES:
        assert services[name]["build"]["args"]["SERVICE"] == name
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    observed = yaml.safe_load((DEPLOY / "compose.observability.yaml").read_text())["services"]
    for service in [*services.values(), *observed.values()]:
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_a_client_on_the_host_reaches_kafka_by_the_address_that_the_broker_gives() -> None:
    """A client asks any broker where the partitions are: what it is told must be reachable from where it is."""
    kafka = compose()["services"]["kafka"]
    environment = kafka["environment"]
    listeners = dict(e.split("://") for e in environment["KAFKA_LISTENERS"].split(","))
    told = dict(e.split("://") for e in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(e.split(":") for e in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(protocols) == set(listeners) == {*told, environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    (published,) = [p.removeprefix("127.0.0.1:").split(":") for p in kafka["ports"]]
    assert told["HOST"] == f"localhost:{published[0]}"
    assert listeners["HOST"] == f":{published[1]}"
    assert told[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]] == "kafka:9092"
    for service in SERVICES:
        known = compose()["services"][service]["environment"]["DRIFTLINE_KAFKA__BOOTSTRAP_SERVERS"]
        assert known == told["PLAINTEXT"]


def test_what_compose_must_keep_is_on_volumes() -> None:
    """Kafka's log, and of Milvus the vectors with the metadata that says where they are."""
    services = compose()["services"]
    for name, variable in (("kafka", "KAFKA_LOG_DIRS"), ("milvus", "ETCD_DATA_DIR")):
        mounts = [volume.split(":")[1] for volume in services[name]["volumes"]]
        assert any(services[name]["environment"][variable].startswith(mount) for mount in mounts), name


def test_prometheus_scrapes_every_service_of_compose() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    assert {j["job_name"] for j in jobs} == {*(f"driftline-{s}" for s in SERVICES), "triton"}


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_what_its_service_imports_and_nothing_else_is_needed(service: str, tmp_path: Path) -> None:
    """The builder's steps: the lock by hash, then the package. The entry point of an image then refuses to start
    without settings, with one line: so everything that it imports is there."""
    uv = shutil.which("uv") or str(ROOT / ".venv/bin/uv")
    target = tmp_path / "opt"
    assert run(uv, "venv", "--quiet", str(target)).returncode == 0
    python = str(target / "bin/python")
    lock = str(DEPLOY / f"locks/{service}.lock")
    for step in (["--require-hashes", "-r", lock], ["--no-deps", "."]):
        done = run(uv, "pip", "install", "--quiet", "--python", python, *step)
        assert done.returncode == 0, done.stderr
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    started = run(
        str(target / f"bin/driftline-{service}"),
        env=clean | {"DRIFTLINE_AUTH__MODE": "off", "DRIFTLINE_KAFKA__PARTITIONS": "x"},
    )
    assert started.returncode == 78, started.stderr
    assert "DRIFTLINE_KAFKA__PARTITIONS" in started.stderr
    assert "Traceback" not in started.stderr
    cli = run(str(target / "bin/driftline"), "topics", "--help", env=clean)
    assert cli.returncode == 0, cli.stderr


def test_an_image_that_cannot_be_written_to_compiles_nothing_when_it_starts(tmp_path: Path) -> None:
    """As the builder installs, with its environment; then as a container starts."""
    text = (DEPLOY / "Dockerfile").read_text()
    building, running = (
        dict(re.findall(r"(\w+)=(\S+)", line)) for line in re.findall(r"^ENV (.*(?:\\\n.*)*)", text, re.M)
    )
    uv = shutil.which("uv") or str(ROOT / ".venv/bin/uv")
    target = tmp_path / "opt"
    assert run(uv, "venv", "--quiet", str(target)).returncode == 0
    for step in (["--require-hashes", "-r", str(DEPLOY / "locks/encode.lock")], ["--no-deps", "."]):
        install = [uv, "pip", "install", "--quiet", "--python", str(target / "bin/python"), *step]
        done = run(*install, env={**os.environ, **building})
        assert done.returncode == 0, done.stderr
    settings = {"PYTHONDONTWRITEBYTECODE": running["PYTHONDONTWRITEBYTECODE"]}
    started = run(str(target / "bin/python"), "-v", "-c", "import driftline.encode.__main__", env=settings)
    assert started.returncode == 0, started.stderr[-2000:]
    # `python -v` quotes the path of bytecode, and leaves that of a source that it compiled just now bare.
    assert f"# code object from '{target}/lib" in started.stderr
    assert re.findall(rf"^# code object from ({target}/\S+)", started.stderr, re.M) == []
    # Python's own image comes without bytecode: the Dockerfile compiles the standard library.
    assert re.search(r"^RUN python -m compileall [^\n]*\\\n[^\n]*get_path\(\"stdlib\"\)", text, re.M)


def test_the_locks_of_the_images_are_the_versions_that_are_tested() -> None:
    def versions(path: Path) -> dict[str, str]:
        lines = [line.split(" ")[0] for line in path.read_text().splitlines() if "==" in line]
        return dict(line.rstrip("\\").split("==") for line in lines)

    tested = versions(ROOT / "requirements.lock")
    for service in SERVICES:
        for name, version in versions(DEPLOY / f"locks/{service}.lock").items():
            assert tested[name] == version, f"{service}: {name}: run `make lock`"


def test_chart_images_and_package_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "helm/driftline/Chart.yaml").read_text())
    assert chart["appVersion"] == project["version"]
    assert f"ARG VERSION={project['version']}" in (DEPLOY / "Dockerfile").read_text()
    for name, deployment in by_kind(render(profile("small")), "Deployment").items():
        service = name.removeprefix("dl-driftline-")
        if service in SERVICES:
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"{REPOSITORY}-{service}:{project['version']}"
            assert f"driftline-{service}" in project["scripts"]


def test_make_images_builds_and_pushes_what_the_chart_pulls(tmp_path: Path) -> None:
    """With a recorder in docker's place: no container engine is needed."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    docker.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = run("make", "--no-print-directory", "images", f"REPOSITORY={REPOSITORY}", env=env)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    built = [words[words.index("-t") + 1] for words in (a.split() for a in asked) if words[0] == "build"]
    pushed = [a.removeprefix("push ") for a in asked if a.startswith("push ")]
    manifests = render({"triton": {"enabled": True}, "collectionsJob": {"enabled": True}})
    pulled = {c["image"] for pod in pods(manifests).values() for c in pod["containers"]}
    assert set(built) == set(pushed) == pulled


def test_make_images_needs_to_know_where_to() -> None:
    done = run("make", "--no-print-directory", "images")
    assert done.returncode != 0 and "REPOSITORY" in done.stderr
