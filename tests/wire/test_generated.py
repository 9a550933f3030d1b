"""The committed generated code is what the protos generate, and the protos keep to their rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_code_is_that_of_the_protos(tmp_path: Path) -> None:
    """`make protos` writes it."""
    protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "protos/driftline/v1").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Idriftline/wire=protos/driftline"]
    command += [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *protos], cwd=ROOT, check=True)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.py*"))
    assert made
    for path in made:
        assert (tmp_path / path).read_text() == (ROOT / "services" / path).read_text(), path
