"""upgrade start, status, pause, resume, rollback, finish and report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from driftline.cli.client import Api
from driftline.cli.evaluate import read_qrels, read_queries
from driftline.cli.files import FileError
from driftline.cli.output import console, emit_json, fail, table

app = typer.Typer(help="Change a collection's embedding model while it runs, and go back.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]
_ENDED = ("finished", "rolled_back", "failed")


@app.command()
def start(
    collection: str,
    to: Annotated[str, typer.Option("--to", help="the new encoder; it must be loaded")],
    margin: Annotated[float | None, typer.Option(help="how far quality may fall, relative to the status quo")] = None,
    pairs: Annotated[int | None, typer.Option(help="documents embedded by both models to fit on")] = None,
    per_second: Annotated[float | None, typer.Option(help="most documents re-embedded per second")] = None,
    judged: Annotated[Path | None, typer.Option(help="BEIR folder with queries and qrels to judge by")] = None,
    as_json: _Json = False,
) -> None:
    """Start carrying a collection to another encoder."""
    options: dict[str, Any] = {"encoder": to, "margin": margin, "pairs": pairs, "per_second": per_second}
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
        else:
            table(
                ["collection", "to", "phase", "re-embedded"],
                [(s["collection"], s["encoder"], _phase(s), f"{s['fraction']:.1%}") for s in found],
            )
        return
    path = f"/v1/upgrades/{collection}"
    state = api.call("GET", path)
    if as_json:
        emit_json(state)
        return
    if not watch:
        console.print(_view(state))
        return
    with Live(_view(state), console=console, refresh_per_second=2) as live:
        while state["phase"] not in (*_ENDED, "complete"):
            time.sleep(1)  # polling a server
            state = api.call("GET", path)
            live.update(_view(state))


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

    state = Api("upgrade").call("GET", f"/v1/upgrades/{collection}")
    file = output or Path(f"upgrade-{collection}.html")
    file.write_text(page(state), encoding="utf-8")
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
    console.print(_view(Api("upgrade").call("POST", f"/v1/upgrades/{collection}/{name}")))


def _phase(state: dict[str, Any]) -> str:
    return str(state["phase"]).replace("_", " ") + (", paused" if state["paused"] else "")


def _served(state: dict[str, Any]) -> str:
    names = {"own": "own encoder", "mapped": "query carried over", "ensemble": "old and carried-over query"}
    legs = [f"generation {leg['generation']} ({names[leg['carry']]})" for leg in state["route"]]
    return " + ".join(legs) or "one generation, no upgrade running"


def _view(state: dict[str, Any]) -> Group:
    progress = state["progress"]
    grid = Table.grid(padding=(0, 2))
    grid.add_row("phase", Text(_phase(state), style="bold"))
    grid.add_row("served", _served(state))
    if state["fallback"]:
        grid.add_row("fallen back", Text(state["fallback"], style="yellow"))
    if state["reason"]:
        grid.add_row("because", state["reason"])
    grid.add_row("against doing nothing", _against(state))
    if state["old_model"]:
        grid.add_row("old model", state["old_model"])
    if state["drift"]:
        grid.add_row("drift", _drift(state))
    grid.add_row("re-embedded", ProgressBar(total=1.0, completed=state["fraction"], width=40))
    left = "-" if state["eta_seconds"] is None else f"about {_duration(state['eta_seconds'])} left"
    counted = f"{progress['done']} of {progress['total']} documents ({state['fraction']:.1%})"
    grid.add_row("", f"{counted}, {progress['per_second']:g}/s, {left}")
    if progress["refused"]:
        grid.add_row("refused", f"{progress['refused']} by the new encoder: `driftline dead-letters list` says why")
    grid.add_row("cost so far", f"{state['encoded']} texts for the sample, {progress['done']} documents")
    if state["phase"] == "complete":
        grid.add_row("next", f"driftline upgrade finish {state['collection']}")
    if state["phase"] not in _ENDED:
        grid.add_row("to go back", f"driftline upgrade rollback {state['collection']}")
    title = Text(f"{state['collection']}: to {state['encoder']}", style="bold")
    return Group(title, grid)


def _against(state: dict[str, Any]) -> str:
    if state["fallback"] and state["curve"]:
        return f"the status quo itself is served: {state['curve'][-1]['status_quo']:.3f} nDCG@10"
    if not state["curve"]:
        return "not measured yet"
    last = state["curve"][-1]
    mean, low, high = last["difference"]
    return (
        f"{last['served']:.3f} against {last['status_quo']:.3f} nDCG@10, {mean:+.3f} [{low:+.3f}, {high:+.3f}] "
        f"on {last['queries']} shadow queries"
    )


def _drift(state: dict[str, Any]) -> str:
    drift = state["drift"]
    again = f", fitted again {state['refits']} times" if state["refits"] else ""
    return (
        f"the map is off by {drift['residual']:.3f} on what was written last, by {drift['residual_of_fit']:.3f} when "
        f"fitted; finds {drift['overlap'] or 0:.0%} of the old top 10{again}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"
