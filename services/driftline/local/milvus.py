"""Milvus standalone as a local process: its configuration, its ports, and keeping it on loopback."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from driftline.local.processes import StartError, free_port, start
from driftline.local.servers import Starting, http_ok

# The components that listen, by their names in the template of its configuration. Every one gets a port of its own:
# with the fixed ones (53100, 13333 and others) only one Milvus fits on a machine.
_COMPONENTS = (
    "etcd",
    "root_coord",
    "proxy_internal",
    "query_coord",
    "query_node",
    "index_coord",
    "index_node",
    "data_coord",
    "data_node",
)


def start_milvus(home: Path) -> Starting:
    """Milvus standalone with its embedded etcd and log store; data survives a restart."""
    import milvus

    base = home / "data/milvus"
    ports = {"milvus": free_port(19530), "milvus_http": free_port(19091)}
    config = milvus.MilvusServerConfig(data_dir=str(base))
    config.resolve_storage()
    # Not by its own `resolve`: that tries ports one after the other from the fixed ones, and takes one in TIME_WAIT for
    # occupied.
    config.set("proxy_port", ports["milvus"])
    for name in _COMPONENTS:
        config.set(f"{name}_port", free_port())
    config.write_config()
    milvus._initialize_data_files(str(base))
    _configure(base)
    command = [str(base / "bin/milvus"), "run", "standalone"]
    if not os.environ.get("DRIFTLINE_LISTEN_EVERYWHERE", ""):
        command = [sys.executable, "-m", "driftline.local.loopback", *command]
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
    process = start("milvus", command, home / "logs/milvus.log", ports, env, base)
    return Starting(process, lambda: http_ok(f"http://127.0.0.1:{ports['milvus_http']}/healthz"))


def _configure(base: Path) -> None:
    """Six changes to its configuration.

    A time tick is how long a strong read waits at worst: 200 ms by default, and the floor of local freshness.
    The embedded etcd listens on 2379 and 2380 whatever the configuration says, unless it has a file of its own: two
    local systems, or one beside somebody's etcd, would not start.
    From 4,992 rows on, a growing segment is searched through an interim index that looks into 16 of 128 lists: it
    found 82 % of the true 100 nearest documents of SciFact. Without it growing segments are searched exactly.
    A segment that was compacted is loaded with the deletes since its channel's checkpoint, read from the log store.
    Until that has ended the channel takes nothing in, and no write or search of it is answered. Data is synced after
    600 s by default, so that the checkpoint is up to ten minutes old: under 560 changes a second that took 30 s, again
    and again. Synced after 30 s, it reads no more than that.
    Told to end, its query node waits up to half an hour for coordinators that have ended before it: `driftline down`
    took 30 s and ended in SIGKILL. Nothing is lost that the log store does not have.
    Its components find each other under the machine's first address unless told another; they listen on loopback.
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
    for wanted, instead, times in (
        ("timeTickInterval: 200", "timeTickInterval: 100", 1),
        ("syncPeriod: 600", "syncPeriod: 30", 1),
        ("gracefulStopTimeout: 1800", "gracefulStopTimeout: 1", 1),
        (r"(interimIndex:[^\n]*\n\s+enableIndex:) true", r"\1 false", 1),
        (r"\netcd:\n", f"\netcd:\n  config:\n    path: {etcd}\n", 1),
        (r"\n  ip:[^\n]*", "\n  ip: 127.0.0.1", 7),
    ):
        text, count = re.subn(wanted, instead, text)
        if count != times:
            raise StartError(f"{config} is not as expected: nothing matches {wanted!r}")
    config.write_text(text, encoding="utf-8")
