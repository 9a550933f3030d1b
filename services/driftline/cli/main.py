"""The `driftline` command: every group in one place."""

from __future__ import annotations

import os

import typer
from rich.markup import escape

from driftline import __version__
from driftline.cli import (
    collections,
    dead_letters,
    documents,
    evaluate,
    load,
    local,
    models,
    search,
    settings,
    topics,
    upgrade,
    verify,
)
from driftline.cli.output import fail
from driftline.core.errors import ConfigError

app = typer.Typer(
    name="driftline",
    help="A streaming semantic index: documents flow in through Kafka and are searchable in seconds.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
local.register(app)
app.add_typer(collections.app, name="collections")
app.add_typer(models.app, name="models")
app.add_typer(topics.app, name="topics")
app.add_typer(upgrade.app, name="upgrade")
app.command("load")(load.load)
app.command("search")(search.search)
app.add_typer(documents.app, name="document")
app.add_typer(dead_letters.app, name="dead-letters")
app.command("eval")(evaluate.evaluate)
app.command("verify")(verify.verify)
app.command("settings")(settings.settings)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    try:
        app()
    except ConfigError as error:
        fail(escape(str(error)), os.EX_CONFIG)
