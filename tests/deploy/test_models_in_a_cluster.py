"""Two Tritons, started as the chart starts them, on one object store: each has what an upgrade asks for."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from driftline.adapters import triton_servers
from driftline.adapters.s3 import Location, S3Folder
from driftline.adapters.triton import TritonEmbedder
from driftline.core.errors import NotLoaded
from driftline.core.settings import TritonSettings
from driftline.local import delivery, triton
from tests.deploy import object_store
from tests.deploy.manifests import ROOT, pods, render
from tests.deploy.object_store import Store

# The encoders that `make setup` built: no weights, but real entries for the real backend.
BUILT = ROOT / ".venv/share/driftline/models"
HOSTS = ("127.0.0.1", "127.0.0.2")
MODEL, LATER = "hashing-64", "hashing"


@dataclass
class Cluster:
    """Two servers that differ by address alone, as pods do, and the bucket with their models."""

    port: int
    http: int
    store: Store
    folder: S3Folder
    embedder: TritonEmbedder

    def loaded(self, model: str) -> list[bool]:
        """Of each server, by its own word."""
        return [tritonclient.InferenceServerClient(f"{h}:{self.port}").is_model_ready(model) for h in HOSTS]

    def ready(self) -> list[bool]:
        """Whether the chart's readiness probe lets each server be used."""
        return [httpx.get(f"http://{h}:{self.http}/v2/health/ready", trust_env=False).is_success for h in HOSTS]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def a_triton(host: str, ports: tuple[int, int, int], store: Store, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The container's command line and environment, on the Triton of `make setup`."""
    values = {"enabled": True, "modelRepository": store.address("prod")}
    (container,) = pods(render({"triton": values}))["Deployment/dl-driftline-triton"]["containers"]
    environment = triton.triton_environment()
    site = environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    own = [f"--{kind}-address={host}" for kind in ("http", "grpc", "metrics")]
    own += [f"--{kind}-port={port}" for kind, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    own += [f"--backend-directory={environment / 'backends'}", "--disable-auto-complete-config"]
    env = {
        **store.environment(), "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"), "PYTHONPATH": str(site),
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "TRITON_AWS_MOUNT_DIRECTORY": str(folder),
    }  # fmt: skip
    assert container["args"][0] == "tritonserver"
    command = [str(site / "pytriton/tritonserver/bin/tritonserver"), *container["args"][1:], *own]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not answers(f"http://{host}:{ports[0]}/v2/health/ready"):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, ports = tmp_path_factory.mktemp("cluster"), (free_port(), free_port(), free_port())
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        store = stack.enter_context(object_store.serving(folder / "s3"))
        for name, value in store.environment().items():
            patch.setenv(name, value)
        pushed = S3Folder(Location.parse(store.address("prod")))
        delivery.push(pushed, BUILT, MODEL)
        for host in HOSTS:
            (folder / host).mkdir()
            stack.enter_context(a_triton(host, ports, store, folder / host))
        # What a headless Service's name stands for.
        patch.setattr(triton_servers, "addresses", lambda url: [f"{host}:{ports[1]}" for host in HOSTS])
        embedder = TritonEmbedder(TritonSettings(url=f"127.0.0.1:{ports[1]}"))
        yield Cluster(ports[1], ports[0], store, pushed, embedder)


@pytest.mark.timeout(600)
def test_every_server_starts_with_what_is_in_the_bucket(cluster: Cluster) -> None:
    assert cluster.loaded(MODEL) == [True, True]
    assert cluster.embedder.loaded_everywhere(MODEL)
    space = cluster.embedder.describe(MODEL)
    (vectors,) = cluster.embedder.embed(MODEL, space.fingerprint, [["red shoes"]])
    assert np.asarray(vectors).shape == (1, 64)


@pytest.mark.timeout(600)
def test_a_model_that_is_pushed_later_is_loaded_by_every_server_when_it_is_asked_for(cluster: Cluster) -> None:
    made = delivery.push(cluster.folder, BUILT, LATER)
    assert cluster.loaded(LATER) == [False, False] and not cluster.embedder.loaded_everywhere(LATER)
    cluster.embedder.load(LATER)
    assert cluster.loaded(LATER) == [True, True] and cluster.embedder.loaded_everywhere(LATER)
    assert cluster.embedder.describe(LATER).fingerprint == made["fingerprint"]


@pytest.mark.timeout(600)
def test_a_server_that_lacks_a_model_is_noticed_and_given_it(cluster: Cluster) -> None:
    tritonclient.InferenceServerClient(f"{HOSTS[1]}:{cluster.port}").unload_model(MODEL)
    wait_for(lambda: cluster.loaded(MODEL) == [True, False])
    assert not cluster.embedder.loaded_everywhere(MODEL)
    cluster.embedder.load(MODEL)
    assert cluster.loaded(MODEL) == [True, True]


@pytest.mark.timeout(600)
def test_a_model_is_unloaded_from_every_server(cluster: Cluster) -> None:
    cluster.embedder.unload(MODEL)
    wait_for(lambda: cluster.loaded(MODEL) == [False, False])
    cluster.embedder.load(MODEL)


@pytest.mark.timeout(600)
def test_an_entry_that_cannot_be_loaded_takes_no_server_out_of_service(cluster: Cluster, tmp_path: Path) -> None:
    """By default Triton is not ready once any model failed: one wrong entry would take every pod from the Service."""
    broken = cluster.store.folder / "prod/broken"
    shutil.copytree(BUILT / MODEL, broken)
    config = (broken / "config.pbtxt").read_text()
    (broken / "config.pbtxt").write_text(config.replace(MODEL, "broken"))
    (broken / "1/tokenizer.json").write_text("{}")
    with pytest.raises(NotLoaded, match="driftline models add"):
        cluster.embedder.load("broken")
    assert cluster.ready() == [True, True]
    cluster.embedder.ping()


def wait_for(reached: Callable[[], bool]) -> None:
    """Triton unloads in the background, once no request is in flight."""
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
