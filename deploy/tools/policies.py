"""Scan what the profiles render to, and the Dockerfiles, with checkov: `python deploy/tools/policies.py`.

What is not held is listed here with its reason; anything else found ends it with 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from helm_python.chart import Chart

ROOT = Path(__file__).parents[2]
NOT_HELD = {
    "CKV_K8S_11": "no CPU limits: a throttled consumer misses heartbeats; requests share the cores fairly",
    "CKV_K8S_15": "tags are never moved (docs/releases.md): what is there need not be pulled again",
    "CKV_K8S_21": "the namespace is helm's --namespace",
    "CKV_K8S_35": "one secret in the environment: the key of the collections job, where the command line reads it",
    "CKV_K8S_43": "who installs pins a digest through image.tag (`0.1.0@sha256:...`)",
    "CKV2_K8S_6": "the pods of the jobs have no policy: the topics job runs before any is there, for seconds",
}


def main() -> int:
    chart = Chart.load(str(ROOT / "helm/driftline"))
    with tempfile.TemporaryDirectory() as folder:
        for profile in sorted((ROOT / "helm/driftline/profiles").glob("*.yaml")):
            values = yaml.safe_load(profile.read_text()) | {"image": {"repository": "registry.example.com/driftline"}}
            rendered = chart.render(values, name="dl", namespace="search")
            text = "\n---\n".join(t for path, t in sorted(rendered.items()) if not path.endswith("NOTES.txt"))
            (Path(folder) / f"{profile.stem}.yaml").write_text(text)
        command = [
            str(Path(sys.executable).parent / "checkov"), "--quiet", "--compact", "--skip-download",
            "--skip-check", ",".join(NOT_HELD),
        ]  # fmt: skip
        scans = [
            ["--framework", "kubernetes", "--directory", folder],
            [
                "--framework",
                "dockerfile",
                "--file",
                str(ROOT / "deploy/Dockerfile"),
                str(ROOT / "deploy/Dockerfile.triton"),
            ],
        ]
        return max(subprocess.run([*command, *scan], check=False, timeout=300).returncode for scan in scans)


if __name__ == "__main__":
    raise SystemExit(main())
