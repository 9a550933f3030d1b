"""setup, up, down, status, doctor: the local system."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from driftline.cli.client import home
from driftline.cli.output import console, emit_json, fail, table
from driftline.local import models
from driftline.local.processes import StartError
from driftline.local.stack import Options, Stack, prepare

_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def _say(message: str) -> None:
    console.print(f"  {message}", highlight=False)


def setup(
    model: Annotated[list[str] | None, typer.Option(help="encoders to build; default: the demo's")] = None,
) -> None:
    """Fetch what `up` needs: Triton's own environment and the encoders. Does nothing the second time."""
    try:
        prepare(_say, model or [models.DEFAULT])
    except (StartError, models.ModelError) as error:
        fail(str(error))


def up(
    kafka: Annotated[str, typer.Option(help="embedded, apache (needs Java and Maven), or host:port")] = "embedded",
    milvus: Annotated[str, typer.Option(help="http://host:port of an existing Milvus")] = "",
    redis: Annotated[str, typer.Option(help="redis://host:port/db of an existing Redis")] = "",
    triton: Annotated[str, typer.Option(help="host:port (gRPC) of an existing Triton")] = "",
    model: Annotated[list[str] | None, typer.Option(help="encoders to load")] = None,
    replicas: Annotated[list[str] | None, typer.Option(help="SERVICE=N, for example encode=2")] = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="watch it with Prometheus and our alerts")] = False,
) -> None:
    """Start the whole system on this machine: real servers as processes, no containers, no root."""
    counts = dict(item.split("=", 1) for item in replicas or [])
    options = Options(
        kafka=kafka, milvus=milvus, redis=redis, triton=triton, models=model or [models.DEFAULT],
        prometheus=prometheus, replicas={name: int(n) for name, n in counts.items()},
    )  # fmt: skip
    stack = Stack(home())
    try:
        stack.up(options, _say)
    except (StartError, models.ModelError) as error:
        fail(str(error))
    console.print("[bold green]Driftline is up.[/]")
    table(["part", "address"], sorted(stack.addresses.items()))
    for note in stack.notes:
        console.print(f"[yellow]note[/] {note}")
    console.print(f"Logs: {stack.home / 'logs'}    API: {stack.ingest_url}/docs  {stack.query_url}/docs")


def down() -> None:
    """Stop the local system: services first, then what they stand on."""
    stack = Stack(home())
    stack.down()
    console.print("Driftline is down. What Milvus holds is kept; delete "
                  f"{stack.home} to start from nothing.")  # fmt: skip


def status(as_json: _Json = False) -> None:
    """Every part of the local system; the last lines of one that crashed. Exit 1 unless all run."""
    parts = Stack(home()).status()
    if as_json:
        emit_json(parts)
    elif not parts:
        console.print(f"Nothing runs in {home()}. Start with `driftline up`.")
    else:
        table(
            ["part", "state", "pid", "ports"],
            [(p["name"], p["state"], p["pid"], " ".join(f"{k}={v}" for k, v in p["ports"].items())) for p in parts],
        )
        for part in parts:
            if "last_lines" in part:
                console.print(f"\n[bold red]{part['name']} crashed.[/] The end of {part['log']}:")
                console.print(part["last_lines"], markup=False, highlight=False)
    if not parts or any(p["state"] != "running" for p in parts):
        raise typer.Exit(1)


def doctor(as_json: _Json = False) -> None:
    """Check everything Driftline depends on, and say what to do about what is wrong."""
    from driftline.cli.doctor import checks

    results = list(checks(Stack(home())))
    if as_json:
        emit_json([{"check": name, "problem": problem, "advice": advice} for name, problem, advice in results])
    else:
        for name, problem, advice in results:
            console.print(
                f"[green]ok[/]      {name}" if not problem else f"[red]problem[/] {name}: {problem}\n          {advice}"
            )
    if any(problem for _, problem, _ in results):
        sys.exit(1)


def register(app: typer.Typer) -> None:
    for command in (setup, up, down, status, doctor):
        app.command()(command)
