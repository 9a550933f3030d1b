"""Triton as a local process: its own environment, and how it is started."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from driftline.local.assets import asset
from driftline.local.processes import StartError, free_port, start
from driftline.local.servers import Starting, http_ok


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
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode"]
    lock = str(asset("triton-requirements.lock"))
    command = [*install, "--python", str(home / "bin/python"), "--require-hashes", "-r", lock]
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


def shm_prefix(home: Path) -> str:
    """How the names of this system's shared memory begin, so that it can be told from that of others."""
    return f"driftline_{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]}_"


def start_triton(home: Path, repository: Path) -> Starting:
    """Triton on CPU with every model of the repository loaded, and explicit control over them."""
    environment = triton_environment()
    site = _site_packages(environment)
    prefix = shm_prefix(home)
    ports = {"triton": free_port(18001), "triton_http": free_port(18000), "triton_metrics": free_port(18002)}
    command = [
        str(site / "pytriton/tritonserver/bin/tritonserver"),
        f"--model-repository={repository}", "--model-control-mode=explicit", "--load-model=*",
        f"--backend-directory={environment / 'backends'}", "--exit-on-error=false", "--disable-auto-complete-config",
        "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1",
        f"--http-port={ports['triton_http']}", f"--grpc-port={ports['triton']}",
        f"--metrics-port={ports['triton_metrics']}", "--log-verbose=0",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        # One model after the other: a stub that does not run for one second while it loads makes this Triton abort
        # (docs/decisions/0012), and the fewer load at once, the sooner each runs.
        "--model-load-thread-count=1",
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
    process = start("triton", command, home / "logs/triton.log", ports, env, shm_prefix=prefix)
    return Starting(process, lambda: http_ok(f"http://127.0.0.1:{ports['triton_http']}/v2/health/ready"))
