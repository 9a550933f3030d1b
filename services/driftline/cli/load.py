"""load: documents from files into a collection."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from driftline.cli.client import Api, home, path_of
from driftline.cli.files import FileError, Line, read
from driftline.cli.output import console, emit_json, errors, fail

_BATCH = 200


def load(
    collection: str,
    path: Annotated[str, typer.Argument(help="JSONL, CSV, TSV, Parquet, a BEIR folder, or - for standard input")],
    id_field: Annotated[str | None, typer.Option("--id", help="field that holds the id; default: id or _id")] = None,
    tenant: Annotated[str | None, typer.Option()] = None,
    wait: Annotated[bool, typer.Option(help="until the last document is searchable")] = True,
    restart: Annotated[bool, typer.Option(help="from the beginning, even if an earlier load stopped midway")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Load documents. A load that was stopped goes on where it was when it is started again."""
    mark = _Mark(collection, path)
    skip = 0 if restart else mark.line
    if skip:
        errors.print(f"going on after line {skip} (use --restart to begin again)")
    try:
        result = send(Api("ingest"), collection, read(path, id_field), tenant, skip, mark, quiet=as_json)
    except FileError as error:
        fail(str(error))
    if wait:
        result["searchable"] = wait_searchable(Api("ingest"), collection, result.pop("last", {}))
    else:
        result.pop("last", None)
    mark.clear()
    if as_json:
        emit_json(result)
    else:
        console.print(f"{result['accepted']} accepted, {result['refused']} refused, {result['seconds']:.1f} s")
    if result["refused"]:
        raise typer.Exit(1)


class _Mark:
    """How far a load came: a file beside the local system's state."""

    def __init__(self, collection: str, path: str) -> None:
        name = hashlib.sha256(f"{collection}\0{Path(path).resolve()}".encode()).hexdigest()[:16]
        self._file = home() / "loads" / f"{name}.json" if path != "-" else None
        self.line = 0
        if self._file is not None and self._file.exists():
            self.line = int(json.loads(self._file.read_text())["line"])

    def set(self, line: int) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({"line": line}))

    def clear(self) -> None:
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _batches(lines: Iterator[Line], skip: int) -> Iterator[list[Line]]:
    batch: list[Line] = []
    for line in lines:
        if line.number <= skip:
            continue
        batch.append(line)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def send(
    api: Api,
    collection: str,
    lines: Iterator[Line],
    tenant: str | None,
    skip: int,
    mark: _Mark,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Send everything; returns counts, seconds and the last token of each partition."""
    begun = time.monotonic()
    accepted = refused = 0
    last: dict[str, tuple[int, str]] = {}
    with ExitStack() as stack:
        columns = (SpinnerColumn(), TextColumn("[bold]loading"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("documents {task.fields[rate]}"), TimeElapsedColumn())  # fmt: skip
        bar = None if quiet else stack.enter_context(Progress(*columns, console=errors))
        task = bar.add_task("load", total=None, rate="") if bar else None
        for batch in _batches(lines, skip):
            bodies = [line.body if tenant is None else {**line.body, "tenant": tenant} for line in batch]
            results = _send_batch(api, collection, bodies)
            for line, result in zip(batch, results, strict=True):
                if "problem" in result:
                    refused += 1
                    problem = result["problem"]
                    errors.print(f"line {line.number}: {problem.get('field', '')}: {problem['detail']}", markup=False)
                else:
                    accepted += 1
                    partition, _, offset = result["token"].partition(".")
                    last[partition] = (int(offset), result["id"])
            mark.set(batch[-1].number)
            if bar is not None and task is not None:
                rate = accepted / max(1e-6, time.monotonic() - begun)
                bar.update(task, advance=len(batch), rate=f"{rate:,.0f}/s")
    return {
        "accepted": accepted,
        "refused": refused,
        "seconds": round(time.monotonic() - begun, 3),
        "last": last,
    }


def _send_batch(api: Api, collection: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send lines, again and again those that met a full or restarting service."""
    content = [orjson.dumps(body) + b"\n" for body in bodies]
    results: list[dict[str, Any]] = [{}] * len(bodies)
    todo = list(range(len(bodies)))
    for attempt in range(60):
        answers = api.bulk(collection, iter([content[i] for i in todo]))
        for i, answer in zip(todo, answers, strict=True):
            results[i] = answer
        todo = [i for i in todo if results[i].get("problem", {}).get("status") in (429, 503)]
        if not todo:
            return results
        time.sleep(min(5.0, 0.2 * 2 ** min(attempt, 5)))  # as Retry-After asks
    return results


def send_lines(api: Api, collection: str, bodies: list[dict[str, Any]]) -> int:
    """Send documents in bulk; returns how many were refused."""
    parts = (bodies[i : i + _BATCH] for i in range(0, len(bodies), _BATCH))
    return sum("problem" in result for part in parts for result in _send_batch(api, collection, part))


def wait_searchable(api: Api, collection: str, last: dict[str, tuple[int, str]], timeout_seconds: float = 3600) -> bool:
    """Wait for the last event of every partition: all before it are done then."""
    deadline = time.monotonic() + timeout_seconds
    waiting = dict(last)
    while waiting and time.monotonic() < deadline:
        for partition, (offset, document_id) in list(waiting.items()):
            path = f"/v1/status/{collection}/{path_of(document_id)}"
            # 503: the store of a collection that was created just now may exist and not be loaded yet.
            answer = api.call("GET", path, allowed=(503,), params={"token": f"{partition}.{offset}"})
            if answer.get("event", {}).get("state", "unknown") != "unknown":
                del waiting[partition]
        if waiting:
            time.sleep(0.2)  # polling a server
    return not waiting
