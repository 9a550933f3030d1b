"""Send what every profile renders to a real API server, as a server-side dry run: `make test-cluster`.

`python tests/deploy/cluster.py KUBE_APISERVER` starts etcd and that kube-apiserver on loopback, and ends them. Exits
with 1 when the server refuses a manifest, or warns that a pod breaks the restricted Pod Security Standard. Custom
resources are left out: their definitions are not there.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.deploy.manifests import Manifest, profile, render

_PATHS = {
    "v1": "api/v1", "apps/v1": "apis/apps/v1", "batch/v1": "apis/batch/v1", "policy/v1": "apis/policy/v1",
    "networking.k8s.io/v1": "apis/networking.k8s.io/v1", "autoscaling/v2": "apis/autoscaling/v2",
}  # fmt: skip
_PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
PROFILES = ("small", "production", "gpu", "multi-tenant")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def api_server(executable: str) -> Iterator[httpx.Client]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        etcd, peer, port = _free_port(), _free_port(), _free_port()
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text('local,admin,1,"system:masters"\n')
        commands = [
            ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", f"http://127.0.0.1:{etcd}",
             "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}"],
            [executable, "--etcd-servers", f"http://127.0.0.1:{etcd}", "--bind-address", "127.0.0.1",
             "--secure-port", str(port), "--cert-dir", str(folder / "certs"), "--service-account-issuer", "https://local",
             "--service-account-key-file", str(key), "--service-account-signing-key-file", str(key),
             "--token-auth-file", str(folder / "tokens.csv"), "--authorization-mode", "RBAC"],
        ]  # fmt: skip
        running = []
        try:
            for command in commands:
                log = (folder / f"{Path(command[0]).name}.log").open("wb")
                running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
            # The certificate is the server's own, of this run, on loopback.
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}",
                headers={"Authorization": "Bearer local"},
                verify=False,
                timeout=30,
            ) as client:
                deadline = time.monotonic() + 120
                while not _ready(client):
                    if time.monotonic() > deadline or any(p.poll() is not None for p in running):
                        raise SystemExit((folder / f"{Path(executable).name}.log").read_text()[-2_000:])
                    time.sleep(1)
                yield client
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def dry_run(client: httpx.Client, manifest: Manifest, namespace: str) -> tuple[int, str]:
    """Create it without keeping it; unknown fields are errors. The status, and what the server says."""
    plural = _PLURALS.get(manifest["kind"], manifest["kind"].lower() + "s")
    answer = client.post(
        f"/{_PATHS[manifest['apiVersion']]}/namespaces/{namespace}/{plural}",
        params={"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "helm"},
        json=manifest,
    )
    said = "; ".join(answer.headers.get_list("Warning"))
    return answer.status_code, said if answer.status_code < 300 else f"{answer.json().get('message')} {said}"


def main(executable: str) -> int:
    with api_server(executable) as client:
        print(f"kube-apiserver {client.get('/version').json()['minor']}")
        labels = {"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/enforce": "restricted"}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "search", "labels": labels}}
        client.post("/api/v1/namespaces", json=space).raise_for_status()
        wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
        if dry_run(client, wrong, "search")[0] < 400:
            raise SystemExit("the server accepts what it must refuse")
        bad = 0
        for name in PROFILES:
            sent = left = 0
            for manifest in render(profile(name)):
                if manifest["apiVersion"] not in _PATHS:
                    left += 1
                    continue
                sent += 1
                status, said = dry_run(client, manifest, "search")
                if status >= 300 or said:
                    bad += 1
                    print(f"{name}: {manifest['kind']} {manifest['metadata']['name']}: {status} {said}")
            print(f"{name}: {sent} sent, {left} custom resources left out")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
