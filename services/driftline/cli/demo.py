"""`make demo`: Python's own documentation, indexed and searched by the whole system."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import orjson
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from driftline.cli.client import Api, home, path_of
from driftline.cli.load import send_lines
from driftline.cli.local import start, taking_down_when_interrupted
from driftline.cli.output import console, table
from driftline.cli.search import show
from driftline.local.stack import Options, Stack

COLLECTION = "python-docs"
DEFINITION = {
    "name": COLLECTION,
    "description": "Documentation of the standard library: modules, classes, functions, methods",
    "fields": {
        "name": {"type": "keyword", "filter": True},
        "kind": {"type": "keyword", "filter": True},
        "module": {"type": "keyword", "filter": True},
        "signature": {"type": "text"},
        "doc": {"type": "text"},
    },
    "indexes": {
        "meaning": {"encoder": "minilm-l6-int8", "fields": ["name", "doc"]},
        "words": {"analyzer": "english", "fields": ["name", "doc"]},
    },
    "profiles": {"default": [{"search": {"of": [{"index": "meaning"}, {"index": "words"}], "fuse": "rrf"}}]},
}
# What the known-item search compares.
WAYS: dict[str, dict[str, Any]] = {
    "by meaning (dense)": {"index": "meaning"},
    "by words (BM25)": {"index": "words"},
    "both (reciprocal rank fusion)": {"profile": "default"},
}
# Importing these prints, opens a window or a browser, or is a test suite.
_SKIPPED = {"antigravity", "this", "idlelib", "test", "lib2to3", "turtledemo", "__main__"}
_LONGEST_DOC = 1_200
WANTED = 6_000


def _modules() -> Iterator[Any]:
    names = sorted(set(sys.stdlib_module_names) - _SKIPPED)
    for name in names:
        if name.startswith("_"):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(name)
        except (ImportError, OSError):
            continue
        yield module
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            if info.name.startswith("_") or info.name in ("test", "tests", "idle_test"):
                continue
            try:
                yield importlib.import_module(f"{name}.{info.name}")
            except (ImportError, OSError, SystemExit):
                continue


def _signature(thing: Any) -> str:
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def _document(name: str, kind: str, module: str, thing: Any) -> dict[str, Any] | None:
    doc = inspect.getdoc(thing)
    if not doc or len(doc) < 20:
        return None
    fields = {
        "name": name,
        "kind": kind,
        "module": module,
        "doc": doc[:_LONGEST_DOC],
        "signature": _signature(thing)[:500],
    }
    return {"id": name, "fields": {k: v for k, v in fields.items() if v}}


def documents() -> list[dict[str, Any]]:
    """One document per module, class, function and method of the standard library that has a docstring."""
    found: dict[str, dict[str, Any]] = {}

    def take(name: str, kind: str, module: str, thing: Any) -> None:
        document = _document(name, kind, module, thing)
        if document is not None:
            found.setdefault(name, document)

    for module in _modules():
        own = module.__name__
        take(own, "module", own, module)
        for name, thing in sorted(vars(module).items()):
            if name.startswith("_") or getattr(thing, "__module__", None) != own:
                continue
            if inspect.isclass(thing):
                take(f"{own}.{name}", "class", own, thing)
                for member, value in sorted(vars(thing).items()):
                    if not member.startswith("_") and callable(value):
                        take(f"{own}.{name}.{member}", "method", own, value)
            elif inspect.isroutine(thing):
                take(f"{own}.{name}", "function", own, thing)
    return list(found.values())


def _freshness(ingest: Api, count: int = 40) -> tuple[float, float]:
    """(p50, p99) in seconds, from a write's acceptance to its being searchable, of single writes one after another."""
    took = []
    for i in range(count):
        path = f"/v1/collections/{COLLECTION}/documents/demo.fresh{i}"
        fields = {
            "name": f"demo.fresh{i}",
            "kind": "demo",
            "doc": f"A document written to see how soon it is found, {i}.",
        }
        answer = ingest.call("PUT", path, params={"wait": "searchable", "timeout_seconds": 30}, json={"fields": fields})
        event = ingest.call("GET", f"/v1/status/{COLLECTION}/demo.fresh{i}", params={"token": answer["token"]})["event"]
        took.append((event["searchable_at_us"] - event["accepted_at_us"]) / 1e6)
        ingest.call("DELETE", path)
    took.sort()
    return took[count // 2], took[min(count - 1, int(count * 0.99))]


def _load(corpus: list[dict[str, Any]]) -> None:
    ingest = Api("ingest")
    begun = time.monotonic()
    refused = send_lines(ingest, COLLECTION, corpus)
    console.print(f"  Kafka has all {len(corpus)} documents after {time.monotonic() - begun:.1f} s ({refused} refused)")
    columns = (TextColumn("  [bold]searchable"), BarColumn(40), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
               TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("documents", total=len(corpus) - refused, rate="")
        while True:
            count = ingest.call("GET", f"/v1/collections/{COLLECTION}")["documents"]
            rate = count / (time.monotonic() - begun)
            progress.update(bar, completed=count, rate=f"{rate:.0f} documents/s")
            if count >= len(corpus) - refused:
                break
            time.sleep(1.0)  # polling a server
    console.print(
        f"  [bold]{count}[/] documents searchable, [bold]{rate:.0f}[/] documents/s through the whole pipeline"
    )


def _searches() -> None:
    for text in (
        "read a file line by line",
        "make a background thread and wait for it",
        "parse command line arguments",
    ):
        console.print(f"\n[bold]search[/] {text}")
        show(Api("query").call("POST", f"/v1/collections/{COLLECTION}/search", json={"text": text, "limit": 3}))
    console.print('\n[bold]search[/] compress data   [dim]filter {"field": "kind", "eq": "module"}[/]')
    body = {"text": "compress data", "limit": 3, "filter": {"field": "kind", "eq": "module"}}
    show(Api("query").call("POST", f"/v1/collections/{COLLECTION}/search", json=body))


def _live(ingest: Api) -> None:
    """An update and a delete becoming visible, with the time each took."""
    path = f"/v1/collections/{COLLECTION}/documents/{path_of('demo.driftline')}"
    search = f"/v1/collections/{COLLECTION}/search"
    socks, bread = "Knits warm woollen socks for penguins.", "Bakes sourdough bread in a volcano."
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("insert", "PUT", {"json": {"fields": {"name": "demo.driftline", "kind": "function", "doc": socks}}}),
        ("update", "PUT", {"json": {"fields": {"name": "demo.driftline", "kind": "function", "doc": bread}}}),
        ("delete", "DELETE", {}),
    ]
    rows = []
    for name, method, kwargs in steps:
        begun = time.monotonic()
        answer = ingest.call(method, path, params={"wait": "searchable", "timeout_seconds": 30}, **kwargs)
        took = time.monotonic() - begun
        found = [
            next((h["text"] for h in Api("query").call("POST", search, json={"text": text, "limit": 1})["hits"]
                  if h["id"] == "demo.driftline"), "-")
            for text in ("woollen socks for penguins", "sourdough bread in a volcano")
        ]  # fmt: skip
        rows.append((name, answer["state"], f"{took * 1000:.0f} ms", *found))
    console.print()
    table(["change", "state", "visible after", "search: socks for penguins", "search: bread in a volcano"], rows)


def _known_items(corpus: list[dict[str, Any]], count: int = 100) -> None:
    """The beginning of a documentation, without its name, must find its document."""
    rng = random.Random(7)  # noqa: S311 - a sample, not a secret
    sample = rng.sample([d for d in corpus if len(d["fields"]["doc"]) > 120], count)
    rows = []
    for name, way in WAYS.items():
        ranks = []
        for document in sample:
            body = {"text": document["fields"]["doc"][:200], "limit": 10, "output_fields": [], **way}
            hits = Api("query").call("POST", f"/v1/collections/{COLLECTION}/search", json=body)["hits"]
            ranks.append(next((i for i, hit in enumerate(hits) if hit["id"] == document["id"]), None))
        top = sum(1 for r in ranks if r == 0) / count
        mrr = sum(1 / (r + 1) for r in ranks if r is not None) / count
        rows.append((name, f"{top:.0%}", f"{mrr:.3f}"))
    console.print(f"\nKnown-item search: the first 200 characters of {count} documents")
    table(["way", "found first", "MRR@10"], rows)


def _show(stack: Stack) -> None:
    ingest = Api("ingest")
    ingest.call("PUT", f"/v1/collections/{COLLECTION}", json=DEFINITION)
    corpus = documents()
    corpus = random.Random(7).sample(corpus, min(WANTED, len(corpus)))  # noqa: S311
    size = sum(len(orjson.dumps(d)) for d in corpus) / 1e6
    console.print(f"  corpus: {len(corpus)} documents of Python's standard library, {size:.1f} MB")
    _load(corpus)
    p50, p99 = _freshness(ingest)
    console.print(f"  freshness of single writes: p50 [bold]{p50 * 1000:.0f} ms[/], p99 [bold]{p99 * 1000:.0f} ms[/]")
    _searches()
    _live(ingest)
    _known_items(corpus)
    console.print("\n[bold green]It is still running.[/] Go on with:\n"
                  f"  .venv/bin/driftline search {COLLECTION} \"how do I sort a list\" --explain\n"
                  "  .venv/bin/driftline status      .venv/bin/driftline doctor\n"
                  f"  open {stack.ingest_url}/docs and {stack.query_url}/docs\n"
                  "  .venv/bin/driftline down")  # fmt: skip


def main() -> int:
    stack = Stack(home())
    console.rule("[bold]Driftline demo")
    if stack.running():
        _show(stack)
        return 0
    start(stack, Options(supervise=True))
    with taking_down_when_interrupted():
        try:
            _show(stack)
        except KeyboardInterrupt:
            stack.down(grace_seconds=10)
            return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
