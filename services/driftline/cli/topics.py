"""topics create, list."""

from __future__ import annotations

from typing import Annotated

import typer

from driftline.cli.connect import connections
from driftline.cli.output import emit_json, fail, table
from driftline.core.errors import Unavailable
from driftline.core.provision import ensure_topics, register_changes
from driftline.core.topics import TOPICS

app = typer.Typer(help="Make and verify the topics.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def create(as_json: _Json = False) -> None:
    """Create missing topics with the right configuration, verify the others, register the log. Exit 1 on a problem."""
    from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaTopicAdmin

    settings = connections().kafka
    try:
        admin, reader, publisher = (
            KafkaTopicAdmin(settings),
            KafkaLogReader(settings),
            KafkaPublisher(settings),
        )
        reports = ensure_topics(admin, settings)
        log = register_changes(admin, reader, publisher)
        publisher.close()
        reader.close()
        admin.close()
    except Unavailable as error:
        fail(str(error))
    if as_json:
        emit_json(
            [
                {"topic": r.topic, "partitions": r.partitions, "created": r.created, "problems": r.problems}
                for r in reports
            ]
        )
    else:
        table(
            ["topic", "partitions", "state"],
            [
                (
                    settings.topic_prefix + r.topic,
                    r.partitions,
                    "; ".join(r.problems) or ("created" if r.created else "ok"),
                )
                for r in reports
            ],
        )
        print(f"changes: topic id {log.topic_id}, versions from {log.base_version}")
    if any(r.problems for r in reports):
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: _Json = False) -> None:
    """What every topic is for."""
    if as_json:
        emit_json(
            [{"topic": t.name, "key": t.key, "value": t.value, "config": dict(t.config), "why": t.why} for t in TOPICS]
        )
        return
    table(
        ["topic", "key", "value", "from", "to", "why"],
        [(t.name, t.key, t.value, ", ".join(t.producers), ", ".join(t.consumers), t.why) for t in TOPICS],
    )
