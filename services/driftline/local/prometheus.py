"""A local Prometheus over a local system: its configuration, targets that follow the services, and the process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from driftline.local.assets import asset
from driftline.local.processes import Process, StartError, free_port, start
from driftline.local.servers import Starting, http_ok

_CONFIG = """\
# Written by `driftline up --prometheus`; the rules are those of the chart.
global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files: [{rules}]
scrape_configs:
  - job_name: driftline
    file_sd_configs:
      - files: [{targets}]
        refresh_interval: 5s
"""


def write_targets(folder: Path, processes: Iterable[Process], services: Iterable[str]) -> None:
    """What Prometheus scrapes: every service under the job name that rules and dashboards know, and Triton."""
    found = []
    for process in processes:
        service = process.name.partition("-")[0]
        if service in services:
            address, job = f"127.0.0.1:{process.ports['http']}", f"driftline-{service}"
        elif service == "triton":
            address, job = f"127.0.0.1:{process.ports['triton_metrics']}", "triton"
        else:
            continue
        found.append({"targets": [address], "labels": {"job": job}})
    part = folder / "targets.json.part"
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    part.rename(folder / "targets.json")


def start_prometheus(home: Path) -> Starting:
    """Debian's Prometheus, or any on the PATH. Raises StartError, also when there is none."""
    executable = shutil.which("prometheus")
    if executable is None:
        raise StartError(
            "--prometheus needs `prometheus` on the PATH: Debian's package `prometheus`, or `make servers`"
        )
    folder = home / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "targets.json").exists():
        write_targets(folder, [], [])
    rules = ", ".join(str(asset(name)) for name in ("recording.rules.yaml", "alerts.rules.yaml"))
    config = folder / "prometheus.yaml"
    config.write_text(_CONFIG.format(rules=rules, targets=folder / "targets.json"), encoding="utf-8")
    port = free_port(9090)
    command = [
        executable, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=7d", "--log.level=warn",
    ]  # fmt: skip
    process = start("prometheus", command, home / "logs/prometheus.log", {"prometheus": port})
    return Starting(process, lambda: http_ok(f"http://127.0.0.1:{port}/-/ready"))
