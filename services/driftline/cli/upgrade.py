"""upgrade start, status, pause, resume, rollback, finish and report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from driftline.cli.client import Api
from driftline.cli.evaluate import read_qrels, read_queries
from driftline.cli.files import FileError
from driftline.cli.output import console, emit_json, fail, table
from driftline.upgrade.view import UpgradeView

app = typer.Typer(help="Change a collection's embedding model while it runs, and go back.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def start(
    collection: str,
    to: Annotated[str, typer.Option("--to", help="the new encoder; it must be loaded")],
    index: Annotated[str | None, typer.Option(help="which index; left out: the first")] = None,
    margin: Annotated[float | None, typer.Option(help="how far quality may fall, relative to the status quo")] = None,
    pairs: Annotated[int | None, typer.Option(help="documents embedded by both models to fit on")] = None,
    per_second: Annotated[float | None, typer.Option(help="most documents re-embedded per second")] = None,
    judged: Annotated[Path | None, typer.Option(help="BEIR folder with queries and qrels to judge by")] = None,
    as_json: _Json = False,
) -> None:
    """Start carrying a collection to another encoder."""
    options: dict[str, Any] = {
        "encoder": to,
        "index": index,
        "margin": margin,
        "pairs": pairs,
        "per_second": per_second,
    }
    body = {name: value for name, value in options.items() if value is not None}
    if judged is not None:
        body["queries"] = _judged(judged)
    state = Api("upgrade").call("POST", f"/v1/upgrades/{collection}", json=body)
    if as_json:
        emit_json(state)
    else:
        console.print(f"upgrade of [bold]{collection}[/] to [bold]{to}[/] has begun")
        console.print(f"[dim]driftline upgrade status {collection} --watch[/]")


@app.command()
def status(
    collection: Annotated[str, typer.Argument(help="left out: all")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="until it ends; leave with Ctrl-C")] = False,
    as_json: _Json = False,
) -> None:
    """What is served, how good it is against doing nothing, what it cost, how long it takes, how to go back."""
    api = Api("upgrade")
    if not collection:
        found = api.call("GET", "/v1/upgrades")["upgrades"]
        if as_json:
            emit_json(found)
            return
        rows = [(u.collection, u.aim, _phase(u), f"{u.fraction:.1%}") for u in map(_read, found)]
        table(["collection", "what", "phase", "embedded"], rows)
        return
    path = f"/v1/upgrades/{collection}"
    told = api.call("GET", path)
    if as_json:
        emit_json(told)
        return
    upgrade = _read(told)
    if not watch:
        console.print(_shown(upgrade))
        return
    with Live(_shown(upgrade), console=console, refresh_per_second=2) as live:
        while not upgrade.ended and upgrade.phase != "complete":
            time.sleep(1)  # polling a server
            upgrade = _read(api.call("GET", path))
            live.update(_shown(upgrade))


@app.command()
def pause(collection: str) -> None:
    """Stop re-embedding where it is; what is served stays as it is."""
    _command(collection, "pause")


@app.command()
def resume(collection: str) -> None:
    """Go on with a paused upgrade."""
    _command(collection, "resume")


@app.command()
def rollback(collection: str) -> None:
    """Serve the older model again, at once, and drop the new generation."""
    _command(collection, "rollback")


@app.command()
def finish(
    collection: str,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="also when the shadow queries find it worse")] = False,
) -> None:  # fmt: skip
    """Drop the older generation of a complete upgrade. There is no way back afterwards."""
    if not yes and not typer.confirm(f"Drop the older generation of {collection}? There is no way back afterwards."):
        raise typer.Exit(1)
    _command(collection, "finish?force=true" if force else "finish")


@app.command()
def report(
    collection: str,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file to write")] = None,
) -> None:
    """Write the upgrade as a page, with the curve as a plot."""
    from driftline.upgrade.report import page

    upgrade = _read(Api("upgrade").call("GET", f"/v1/upgrades/{collection}"))
    file = output or Path(f"upgrade-{collection}.html")
    file.write_text(page(upgrade), encoding="utf-8")
    console.print(f"written to {file}")


def _judged(folder: Path) -> list[dict[str, Any]]:
    """Queries with at least one relevant document."""
    try:
        texts, qrels = read_queries(folder), read_qrels(folder, "test")
    except (OSError, FileError) as error:
        fail(f"{folder}: not a judged dataset in the BEIR layout: {error}")
    found = []
    for query, text in texts.items():
        relevant = {document: grade for document, grade in qrels.get(query, {}).items() if grade > 0}
        if relevant:
            best = sorted(relevant.items(), key=lambda item: -item[1])[:100]
            found.append({"text": text[:2_000], "relevant": dict(best)})
    return found[:1_000]


def _command(collection: str, name: str) -> None:
    console.print(_shown(_read(Api("upgrade").call("POST", f"/v1/upgrades/{collection}/{name}"))))


def _read(told: Any) -> UpgradeView:
    """What the service tells of an upgrade. One of another version may tell it otherwise."""
    try:
        return UpgradeView.model_validate(told)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        fail(f"the upgrade service tells of an upgrade otherwise than this version expects ({wrong}): try --json")


def _phase(upgrade: UpgradeView) -> str:
    return str(upgrade.phase).replace("_", " ") + (", paused" if upgrade.paused else "")


def _served(upgrade: UpgradeView) -> str:
    names = {"own": "own encoder", "mapped": "query carried over", "ensemble": "old and carried-over query"}
    legs = [f"generation {leg.generation} ({names[leg.carry]})" for leg in upgrade.route]
    return " + ".join(legs) or "one generation, no upgrade running"


def _shown(upgrade: UpgradeView) -> Group:
    progress = upgrade.progress
    grid = Table.grid(padding=(0, 2))
    grid.add_row("phase", Text(_phase(upgrade), style="bold"))
    if upgrade.added is None:
        grid.add_row("served", _served(upgrade))
    if upgrade.fallback:
        grid.add_row("fallen back", Text(upgrade.fallback, style="yellow"))
    if upgrade.reason:
        grid.add_row("because", upgrade.reason)
    if upgrade.added is None:
        grid.add_row("against doing nothing", _against(upgrade))
    if upgrade.old_model:
        grid.add_row("old model", upgrade.old_model)
    if upgrade.drift:
        grid.add_row("drift", _drift(upgrade))
    grid.add_row(
        "re-embedded" if upgrade.added is None else "filled in",
        ProgressBar(total=1.0, completed=upgrade.fraction, width=40),
    )
    left = "-" if upgrade.eta_seconds is None else f"about {_duration(upgrade.eta_seconds)} left"
    counted = f"{progress.done} of {progress.total} documents ({upgrade.fraction:.1%})"
    grid.add_row("", f"{counted}, {progress.per_second:g}/s, {left}")
    if progress.refused:
        grid.add_row("refused", f"{progress.refused} by the new encoder: `driftline dead-letters list` says why")
    grid.add_row("cost so far", f"{upgrade.encoded} texts for the sample, {progress.done} documents")
    if upgrade.phase == "complete":
        grid.add_row("next", f"driftline upgrade finish {upgrade.collection}")
    if not upgrade.ended:
        grid.add_row("to go back", f"driftline upgrade rollback {upgrade.collection}")
    title = Text(f"{upgrade.collection}: {upgrade.aim}", style="bold")
    return Group(title, grid)


def _against(upgrade: UpgradeView) -> str:
    last = upgrade.last
    if last is None:
        return "not measured yet"
    if upgrade.fallback:
        return f"the status quo itself is served: {last.status_quo:.3f} nDCG@10"
    mean, low, high = last.difference
    return (
        f"{last.served:.3f} against {last.status_quo:.3f} nDCG@10, {mean:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"on {last.queries} shadow queries"
    )


def _drift(upgrade: UpgradeView) -> str:
    drift = upgrade.drift
    assert drift is not None
    again = f", fitted again {upgrade.refits} times" if upgrade.refits else ""
    return (
        f"the map is off by {drift.residual:.3f} on what was written last, by {drift.residual_of_fit:.3f} when "
        f"fitted; finds {drift.overlap or 0:.0%} of the old top 10{again}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
