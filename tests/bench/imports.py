"""What importing each service costs, with bytecode and without: `make bench-imports`.

Processor time of a whole process that does nothing else, the least of several runs. Without bytecode means that the
standard library is compiled too, as in a container image that holds none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import psutil

PROGRAMS = {
    **{name: f"driftline.{name}.__main__" for name in ("ingest", "encode", "index", "query", "upgrade")},
    "command line": "driftline.cli.main",
}
RUNS = 5


def seconds(module: str, before: str = "sys", **env: str) -> float:
    """Processor seconds, user and system, that a process takes which imports `before` and then `module`."""
    process = subprocess.Popen([sys.executable, "-c", f"import {before}, {module}"], env={**os.environ, **env})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"import {module} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    print(f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}\n")
    print("| imports of | with bytecode | without | without, and with pandas |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as empty:
        without = {"PYTHONPYCACHEPREFIX": empty, "PYTHONDONTWRITEBYTECODE": "1"}
        for name, module in PROGRAMS.items():
            # What pymilvus would load by itself. encode and the command line do not import pymilvus.
            needs_pandas = name not in ("encode", "command line")
            compiled = min(seconds(module) for _ in range(RUNS))
            nothing = min(seconds(module, **without) for _ in range(RUNS))
            pandas = min(seconds(module, "pandas", **without) for _ in range(RUNS)) if needs_pandas else nothing
            print(f"| {name} | {compiled:.2f} | {nothing:.2f} | {pandas:.2f} |")


if __name__ == "__main__":
    main()
