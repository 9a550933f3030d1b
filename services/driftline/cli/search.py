"""search: ask a collection."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from driftline.cli.client import Api
from driftline.cli.output import console, emit_json, fail
from driftline.core import jsons
from driftline.core.errors import InvalidRequest


def search(
    collection: str,
    text: Annotated[str, typer.Argument(help="what to look for")] = "",
    like: Annotated[str | None, typer.Option(help="id of a document: find more like it")] = None,
    limit: Annotated[int, typer.Option()] = 10,
    profile: Annotated[str | None, typer.Option(help="a plan of the collection's definition")] = None,
    index: Annotated[str | None, typer.Option(help="the only index to search")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help='JSON, e.g. {"field":"kind","eq":"class"}')] = None,
    tenant: Annotated[str | None, typer.Option()] = None,
    explain: Annotated[bool, typer.Option("--explain")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Search a collection."""
    body: dict[str, Any] = {"limit": limit, "explain": explain}
    body |= {"document": like} if like else {"text": text}
    chosen = {"tenant": tenant, "profile": profile, "index": index}
    body |= {name: value for name, value in chosen.items() if value}
    if filter_:
        try:
            body["filter"] = jsons.parse(filter_, "--filter")
        except InvalidRequest as error:
            fail(str(error))
    answer = Api("query").call("POST", f"/v1/collections/{collection}/search", json=body)
    if as_json:
        emit_json(answer)
        return
    show(answer)
    if explain:
        console.print_json(data=answer["explain"])


def show(answer: dict[str, Any]) -> None:
    """Hits for people: rank, score, id, and the beginning of the chunk."""
    for rank, hit in enumerate(answer["hits"], 1):
        snippet = " ".join(hit["text"].split())[:160]
        console.print(f"[dim]{rank:2}[/] [cyan]{hit['score']:.3f}[/] [bold]{hit['id']}[/]", highlight=False)
        console.print(f"         {snippet}", style="dim", markup=False, highlight=False)
    console.print(f"[dim]{len(answer['hits'])} hits in {answer['took_ms']:.1f} ms, by {answer['score_kind']}[/]")
    for name, why in answer.get("left_out", {}).items():
        console.print(f"[yellow]index {name} was left out: {why}[/]")
