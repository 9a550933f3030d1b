"""setup, up, down, status, doctor: the local system."""

from __future__ import annotations

import datetime
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from driftline.cli.client import home
from driftline.cli.output import console, emit_json, fail, table
from driftline.local import models
from driftline.local.processes import StartError
from driftline.local.stack import SERVICES, Options, Stack, prepare
from driftline.local.waiting import Patience

_PATIENCE = Patience()
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def _say(message: str) -> None:
    console.print(f"  {message}", markup=False, highlight=False)


def setup(
    model: Annotated[list[str] | None, typer.Option(help="encoders to build; default: the demo's")] = None,
) -> None:
    """Fetch what `up` needs: Triton's own environment and the encoders. Does nothing the second time."""
    try:
        prepare(_say, model or [models.DEFAULT])
    except (StartError, models.ModelError) as error:
        fail(escape(str(error)))


_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def taking_down_when_interrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt, once: taking down is not interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        for each in _INTERRUPTS:
            signal.signal(each, signal.SIG_IGN)
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write("\n  interrupted; taking down what was started\n")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(stack: Stack, options: Options) -> None:
    """Start a system, or end the command with one clear line; interrupted, with nothing left running."""
    with taking_down_when_interrupted():
        try:
            stack.up(options, _say)
        except (StartError, models.ModelError) as error:
            fail(escape(str(error)))
        except KeyboardInterrupt:
            raise SystemExit(130) from None


def _counts(replicas: list[str]) -> dict[str, int]:
    """`encode=2` and the like. Ends the command when one is of another form."""
    found = {}
    for item in replicas:
        service, _, count = item.partition("=")
        if service not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= 16:
            fail(f"--replicas {escape(item)}: expected SERVICE=N with N from 1 to 16 and one of {', '.join(SERVICES)}")
        found[service] = int(count)
    return found


def up(
    kafka: Annotated[str, typer.Option(help="embedded, apache (needs Java and Maven), or host:port")] = "embedded",
    milvus: Annotated[str, typer.Option(help="http://host:port of an existing Milvus")] = "",
    redis: Annotated[str, typer.Option(help="redis://host:port/db of an existing Redis")] = "",
    triton: Annotated[str, typer.Option(help="host:port (gRPC) of an existing Triton")] = "",
    model: Annotated[list[str] | None, typer.Option(help="encoders to load")] = None,
    replicas: Annotated[list[str] | None, typer.Option(help="SERVICE=N, for example encode=2")] = None,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="watch it with Prometheus and our alerts")] = False,
    supervise: Annotated[bool, typer.Option(help="leave a process behind that starts again what dies")] = True,
    stuck_after: Annotated[
        float, typer.Option(min=1, help="seconds without a log line or processor time, then a part is given up")
    ] = _PATIENCE.stuck_seconds,
    start_limit: Annotated[
        float, typer.Option(min=1, help="seconds that a part may take to start, progress or not")
    ] = _PATIENCE.start_seconds,
) -> None:
    """Start the whole system on this machine: real servers as processes, no containers, no root."""
    options = Options(
        kafka=kafka,
        milvus=milvus,
        redis=redis,
        triton=triton,
        models=model or [models.DEFAULT],
        prometheus=prometheus,
        replicas=_counts(replicas or []),
        supervise=supervise,
        patience=Patience(stuck_after, start_limit),
    )
    stack = Stack(home())
    start(stack, options)
    console.print("[bold green]Driftline is up.[/]")
    table(["part", "address"], sorted(stack.addresses.items()))
    for note in stack.notes:
        console.print(f"[yellow]note[/] {note}")
    console.print(f"Logs: {stack.home / 'logs'}    API: {stack.ingest_url}/docs  {stack.query_url}/docs")


def down() -> None:
    """Stop the local system: services first, then what they stand on."""
    stack = Stack(home())
    stack.down(report=lambda text: console.print(f"[yellow]note[/] {text}"))
    console.print(f"Driftline is down. What Milvus holds is kept; delete {stack.home} to start from nothing.")
    for note in stack.notes:
        console.print(f"[yellow]note[/] {note}")


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _restarts(part: dict[str, Any]) -> str:
    return f"{part['restarts']}, last {_when(part['restarted_at'])}" if "restarts" in part else "-"


def status(as_json: _Json = False) -> None:
    """Every part of the local system, and what was started again. Exit 1 unless all run."""
    parts = Stack(home()).status()
    if as_json:
        emit_json(parts)
    elif not parts:
        console.print(f"Nothing runs in {home()}. Start with `driftline up`.")
    else:
        table(
            ["part", "state", "since", "restarts", "pid", "ports"],
            [
                (
                    part["name"],
                    part["state"],
                    _when(part["since"]),
                    _restarts(part),
                    part["pid"],
                    " ".join(f"{name}={port}" for name, port in part["ports"].items()),
                )
                for part in parts
            ],
        )
        for part in parts:
            if "why" in part:
                console.print(f"\n{part['name']} was started again: {part['why']}", markup=False, highlight=False)
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
