"""Tables for people, JSON for programs, and errors as one clear line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

console = Console()
errors = Console(stderr=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with one line."""
    errors.print(f"[bold red]driftline:[/] {message}", highlight=False, markup=True, soft_wrap=True)
    raise SystemExit(code)


def emit_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    grid = Table(*columns, title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*[str(cell) for cell in row])
    console.print(grid)
