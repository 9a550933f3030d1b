"""What a process imports before it can work: compiled beforehand, and nothing that it does not need."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from driftline.adapters.pandas_deferred import pandas_deferred
from driftline.cli.main import COMMANDS
from driftline.local.stack import SERVICES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services/driftline"
# `make setup` compiles what is newer than this file; what was edited since then is compiled at import.
COMPILED = Path(sys.prefix) / ".bytecode"


def edited(source: Path) -> bool:
    return source.stat().st_mtime > COMPILED.stat().st_mtime


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *options, "-c", code], env=env, capture_output=True, text=True, check=True)


def imported_by(*modules: str) -> set[str]:
    return set(python(f"import sys, {', '.join(modules)}\nprint(*sys.modules)").stdout.split())


def test_what_the_services_import_was_compiled_at_setup() -> None:
    modules = [f"driftline.{service}.__main__" for service in SERVICES]
    told = python(f"import {', '.join(modules)}", "-v").stderr
    # `python -v` quotes the path when the code comes from bytecode, and does not when it was compiled just now.
    start = "# code object from "
    compiled_now = [Path(line.removeprefix(start)) for line in told.splitlines() if line.startswith(start + "/")]
    assert f"{start}'{Path(importlib.util.cache_from_source(str(PACKAGE / 'query/search.py')))}'" in told
    late = [p for p in compiled_now if p.is_relative_to(sys.prefix) or (p.is_relative_to(PACKAGE) and not edited(p))]
    assert late == [], "`rm -rf .venv && make setup` compiles them"


def test_the_packages_bytecode_is_checked_against_its_source_and_not_against_a_time() -> None:
    """A checkout or a copy can turn times back: bytecode of another source must not win."""
    for source in [p for p in PACKAGE.rglob("*.py") if not edited(p)]:
        compiled = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert int.from_bytes(compiled[4:8], "little") == 0b11, source


def test_no_service_imports_pandas() -> None:
    loaded = imported_by(*(f"driftline.{service}.__main__" for service in SERVICES))
    assert {"pymilvus", "kafka", "driftline.adapters.milvus"} <= loaded
    assert {"pandas", "pandas.api", "pandas.api.types", "pyarrow", "matplotlib"} & loaded == set()


def test_the_command_line_imports_no_client_of_a_server_before_a_command_needs_it() -> None:
    loaded = imported_by("driftline.cli.main", *(f"driftline.cli.{c.module}" for c in COMMANDS.values()))
    clients = {"kafka", "pymilvus", "redis", "tritonclient", "grpc"}
    assert {m for m in loaded if m.startswith("driftline.adapters.")} | (clients & loaded) == set()


def test_pandas_is_there_when_it_is_called_for_after_all() -> None:
    told = python(
        "import sys\n"
        "from driftline.adapters import milvus\n"
        "from pymilvus.orm import schema, types\n"
        "assert 'pandas' not in sys.modules\n"
        "assert not isinstance([], schema.pd.DataFrame)\n"
        "assert 'pandas' not in sys.modules\n"
        "assert types.is_scalar(1) and not types.is_list_like(1)\n"
        "import pandas\n"
        "assert pandas.__version__\n"
        "assert isinstance(pandas.DataFrame({'a': [1]}), schema.pd.DataFrame)\n"
        "assert isinstance(schema.pd.DataFrame({'a': [1]}), pandas.DataFrame)\n"
        "print('as it should be')\n"
    )
    assert told.stdout == "as it should be\n"


def test_stand_ins_are_gone_when_the_imports_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m == "pandas" or m.startswith("pandas.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="no_such_client"), pandas_deferred():
        importlib.import_module("no_such_client")
    assert "pandas" not in sys.modules
    assert "pandas.api.types" not in sys.modules
