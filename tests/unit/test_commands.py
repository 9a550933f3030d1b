"""What the README, the documentation, the hooks and CI tell to run exists, and CI says what it did."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^(?:\s*entry: |step )?(?:[A-Z_]+=\S+ )*make ([a-z-]+)", re.M)
QUOTED = re.compile(r"`(?:[A-Z_]+=\S+ )*make ([a-z-]+)")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("name", ["README.md", ".ci/run", ".pre-commit-config.yaml"])
def test_every_target_that_is_called_exists(name: str) -> None:
    named = set(COMMAND.findall((ROOT / name).read_text()))
    assert named
    assert named <= targets()


def test_every_target_that_is_written_of_exists() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*.md"), ROOT / "Makefile"]
    named = {(file.name, target) for file in files for target in QUOTED.findall(file.read_text())}
    assert len(named) > 10
    assert [(file, target) for file, target in named if target not in targets()] == []


def hooks() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return list(repository["hooks"])


def test_a_commit_checks_the_changed_files_and_a_push_the_rest() -> None:
    at_commit = [hook for hook in hooks() if hook["stages"] == ["pre-commit"]]
    assert [hook["entry"].split()[:2] for hook in at_commit] == [
        [".venv/bin/ruff", "format"],
        [".venv/bin/ruff", "check"],
    ]
    assert all(hook.get("pass_filenames", True) for hook in at_commit)
    at_push = [hook["entry"] for hook in hooks() if hook["stages"] == ["pre-push"]]
    assert at_push == ["make lint", "make test-unit"]


def ci(tmp_path: Path, make: str) -> subprocess.CompletedProcess[str]:
    """CI with another `make`, a shell script."""
    (tmp_path / "make").write_text(f"#!/bin/sh\n{make}\n")
    (tmp_path / "make").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True, check=False, timeout=30)


def test_ci_says_what_took_how_long(tmp_path: Path) -> None:
    done = ci(tmp_path, "echo $1 says so; cat")
    assert done.returncode == 0, done.stderr
    steps = re.findall(r"^ +\d+ s  ok +make (\S+)$", done.stdout, re.M)
    assert steps == re.findall(r"^step make (\S+)$", (ROOT / ".ci/run").read_text(), re.M)
    assert "test-faults says so\n" in done.stdout
    assert re.search(r"^ +\d+ s  in all\n\Z", done.stdout, re.M)


def test_ci_says_it_of_a_step_that_fails_too_and_goes_no_further(tmp_path: Path) -> None:
    done = ci(tmp_path, '[ "$1" != test-deploy ] || exit 3')
    assert done.returncode == 3
    rows = re.findall(r"^ +\d+ s  (\w+) +make (\S+)$", done.stdout, re.M)
    assert rows[:2] == [("ok", "setup"), ("ok", "test")]
    assert rows[-1] == ("failed", "test-deploy")
    assert "s  in all\n" in done.stdout


def test_ci_says_it_when_it_is_told_to_end(tmp_path: Path) -> None:
    done = ci(tmp_path, '[ "$1" != test ] || kill -TERM $PPID')
    assert done.returncode != 0
    assert re.findall(r"^ +\d+ s  (\w+) +make (\S+)$", done.stdout, re.M) == [("ok", "setup"), ("stopped", "test")]
