"""The `driftline` command. A command's module is imported when it is called, so that `--help` need not wait for all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from driftline import __version__
from driftline.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command or a group (a Typer) is, and what the list of commands says of it: its own first line."""

    module: str
    attribute: str
    help: str


# In the order of the list. A test holds each line to the first one of the command itself.
COMMANDS = {
    "setup": _Command(
        "local",
        "setup",
        "Fetch what `up` needs: Triton's own environment and the encoders. Does nothing the second time.",
    ),
    "up": _Command(
        "local", "up", "Start the whole system on this machine: real servers as processes, no containers, no root."
    ),
    "down": _Command("local", "down", "Stop the local system: services first, then what they stand on."),
    "status": _Command(
        "local", "status", "Every part of the local system, and what was started again. Exit 1 unless all run."
    ),
    "doctor": _Command(
        "local", "doctor", "Check everything Driftline depends on, and say what to do about what is wrong."
    ),
    "collections": _Command("collections", "app", "Create, change, show, list and delete collections."),
    "models": _Command("models", "app", "Add, list and check encoders; bring them to a cluster."),
    "topics": _Command("topics", "app", "Make and verify the topics."),
    "upgrade": _Command("upgrade", "app", "Change a collection's embedding model while it runs, and go back."),
    "load": _Command(
        "load", "load", "Load documents. A load that was stopped goes on where it was when it is started again."
    ),
    "search": _Command("search", "search", "Search a collection."),
    "document": _Command("documents", "app", "Get, delete and inspect single documents."),
    "dead-letters": _Command("dead_letters", "app", "List, show and replay dead letters."),
    "eval": _Command(
        "evaluate",
        "evaluate",
        "nDCG@10, recall@10, recall@100 and MRR of a collection that holds the dataset's corpus, of ways of searching "
        "side by side.",
    ),
    "verify": _Command(
        "verify",
        "verify",
        "Compare a collection in Milvus with the accepted documents in the log. Exit 1 when they differ.",
    ),
    "settings": _Command(
        "settings",
        "settings",
        "Print the effective settings of a service with their environment variables; secrets are only named files.",
    ),
}


def resolve(name: str) -> Any:
    """The command itself, its module imported. (Of a type that newer versions of typer carry themselves.)"""
    where = COMMANDS[name]
    found = getattr(import_module(f"driftline.cli.{where.module}"), where.attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name)(found)
        command = typer.main.get_command(single)
    command.name = name
    return command


class _Lazy(TyperGroup):
    """Lists commands by their entries, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS:
            return TyperCommand(cmd_name, help=COMMANDS[cmd_name].help)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            return args[0], resolve(args[0]), args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="driftline",
    cls=_Lazy,
    help="A streaming semantic index: documents flow in through Kafka and are searchable in seconds.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version  # its callback has printed it


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    try:
        app()
    except ConfigError as error:
        from rich.markup import escape

        from driftline.cli.output import fail

        fail(escape(str(error)), os.EX_CONFIG)
