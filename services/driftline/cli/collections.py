"""collections create, apply, show, list, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from driftline.cli.client import Api
from driftline.cli.output import console, emit_json, fail, table
from driftline.core import yamls
from driftline.core.collections import parse_definition
from driftline.core.errors import ConfigError

app = typer.Typer(help="Create, change, show, list and delete collections.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def create(
    file: Annotated[Path, typer.Option("-f", "--file", help="YAML or JSON definition")],
    as_json: _Json = False,
) -> None:
    """Create a collection; the same definition again changes nothing."""
    definition = _read(file)
    created = Api("ingest").call("PUT", f"/v1/collections/{definition['name']}", json=definition)
    if as_json:
        emit_json(created)
        return
    console.print(f"collection [bold]{created['name']}[/] with {_indexes(created['definition'])}")


@app.command()
def apply(
    file: Annotated[Path, typer.Option("-f", "--file", help="YAML or JSON definition, the whole of it")],
    as_json: _Json = False,
) -> None:
    """Change a live collection to this definition: fields, profiles, the description; an index more, or fewer of them.

    An index that is added is filled in the background, and searched once it holds every document.
    """
    definition = _read(file)
    changed = Api("upgrade").call("PUT", f"/v1/upgrades/{definition['name']}/definition", json=definition)
    if as_json:
        emit_json(changed)
        return
    console.print(f"collection [bold]{changed['name']}[/]: {', '.join(changed['changes']) or 'nothing changed'}")
    if changed["filling"]:
        console.print(f"[dim]driftline upgrade status {changed['name']} --watch[/]")


def _read(file: Path) -> dict[str, Any]:
    try:
        definition: Any = yamls.parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"{file}: {error}")
    except ConfigError as error:
        fail(str(error))
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        fail(f"{file}: expected a mapping with a `name`")
    return definition


def _indexes(definition: dict[str, Any]) -> str:
    named = parse_definition(definition).named_indexes
    return ", ".join(f"{name} ({index.encoder or 'words'})" for name, index in named.items())


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """List the collections."""
    found = Api("ingest").call("GET", "/v1/collections")["collections"]
    if as_json:
        emit_json(found)
    else:
        table(
            ["collection", "indexes", "metric", "tenancy", "fields"],
            [
                (c["name"], _indexes(c["definition"]), c["definition"]["metric"],
                 "on" if c["definition"]["tenancy"] else "off", ", ".join(c["definition"]["fields"]))
                for c in found
            ],
        )  # fmt: skip


@app.command()
def show(name: str, as_json: _Json = False) -> None:
    """Show a collection: definition, spaces, searchable documents."""
    found = Api("ingest").call("GET", f"/v1/collections/{name}")
    if as_json:
        emit_json(found)
        return
    console.print(f"[bold]{found['name']}[/]  {found['documents']} documents")
    console.print(yaml.safe_dump(found["definition"], sort_keys=False), highlight=False)
    table(
        ["generation", "index", "space", "store"],
        [(g["number"], g["vector_name"], g["space"], g["store"]) for g in found["generations"]],
    )


@app.command()
def delete(name: str, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Delete a collection with everything in it."""
    if not yes and not typer.confirm(f"Delete collection {name} and all its documents?"):
        raise typer.Exit(1)
    Api("ingest").call("DELETE", f"/v1/collections/{name}")
    console.print(f"collection {name} is deleted")
