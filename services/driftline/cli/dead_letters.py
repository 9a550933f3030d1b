"""dead-letters list, show, replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import typer

from driftline.cli.connect import connections
from driftline.cli.output import console, emit_json, fail, table
from driftline.core import codec
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.follow import read_to_end
from driftline.core.provision import incarnations
from driftline.core.records import DeadLetter, Outgoing
from driftline.core.settings import KafkaSettings
from driftline.core.topics import BY_NAME, CHANGES, DEAD_LETTERS

app = typer.Typer(help="List, show and replay dead letters.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def read_letters(settings: KafkaSettings) -> Iterator[tuple[int, DeadLetter]]:
    """(offset, letter) of everything in the topic now. Raises Unavailable."""
    from driftline.adapters.kafka import KafkaLogReader

    reader = KafkaLogReader(settings)
    try:
        for record in read_to_end(reader, DEAD_LETTERS.name):
            try:
                yield record.offset, codec.decode_dead_letter(record.value)
            except InvalidRecord as error:
                console.print(f"offset {record.offset}: {error}", style="red")
    finally:
        reader.close()


def _all() -> list[tuple[int, DeadLetter]]:
    try:
        return list(read_letters(connections().kafka))
    except Unavailable as error:
        fail(str(error))


def as_json(offset: int, letter: DeadLetter) -> dict[str, Any]:
    return {
        "offset": offset, "reason": letter.reason, "detail": letter.detail, "service": letter.service,
        "topic": letter.topic, "partition": letter.partition, "record_offset": letter.offset,
        "key": letter.key.decode("utf-8", "backslashreplace"), "value_hex": letter.value.hex(),
        "failed_at_us": letter.failed_at_us, "cut_from": letter.cut_from,
    }  # fmt: skip


@app.command("list")
def list_(
    reason: Annotated[str | None, typer.Option(help="only this reason")] = None,
    limit: Annotated[int, typer.Option()] = 100,
    json_: _Json = False,
) -> None:
    """The newest dead letters, with where they came from and why."""
    letters = [(o, x) for o, x in _all() if reason in (None, x.reason)][-limit:]
    if json_:
        emit_json([as_json(o, x) for o, x in letters])
        return
    table(
        ["#", "reason", "from", "detail"],
        [(o, x.reason, f"{x.topic}/{x.partition}@{x.offset}", x.detail[:100]) for o, x in letters],
    )


@app.command()
def show(offset: int) -> None:
    """One dead letter, whole."""
    for number, letter in _all():
        if number == offset:
            emit_json(as_json(number, letter))
            return
    fail(f"there is no dead letter {offset}")


@app.command("replay")
def replay_(
    offset: Annotated[int | None, typer.Argument(help="one of them; left out: all of --reason")] = None,
    reason: Annotated[str | None, typer.Option()] = None,
    all_: Annotated[bool, typer.Option("--all", help="every dead letter")] = False,
) -> None:
    """Send the original records to their topics again. What is wrong with them still comes back as a dead letter."""
    from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher

    if offset is None and reason is None and not all_:
        fail("say which: an offset, --reason, or --all")
    found = [x for o, x in _all() if offset in (None, o) and reason in (None, x.reason)]
    letters = [x for x in found if not x.cut_from]
    for x in found:
        if x.cut_from:
            console.print(
                f"{x.topic}/{x.partition}@{x.offset} is not replayed: its value of {x.cut_from} bytes is larger than a "
                "record may be; it lies whole in its topic",
                style="red",
            )
    settings = connections().kafka
    publisher = KafkaPublisher(settings)
    reader = KafkaLogReader(settings)
    try:
        base = incarnations(reader)[CHANGES.name].base_version
        publisher.publish([original(letter, base) for letter in letters])
    except Unavailable as error:
        fail(str(error))
    finally:
        publisher.close()
        reader.close()
    console.print(f"{len(letters)} replayed")


def original(letter: DeadLetter, changes_base: int) -> Outgoing:
    """The record to send again: to its own partition, where its document's other changes are.

    A change whose version came from its position keeps that version: a replay must not outrank what was written
    since.
    """
    if letter.topic not in BY_NAME:
        return Outgoing(letter.topic, letter.key, letter.value, None, letter.headers)
    value = letter.value
    if letter.topic == CHANGES.name:
        try:
            event = codec.decode_change(value)
            value = codec.encode_change(replace(event, version=event.version or changes_base + letter.offset))
        except InvalidRecord:
            value = letter.value
    return Outgoing(letter.topic, letter.key, value, letter.partition, letter.headers)
