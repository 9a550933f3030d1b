"""verify: compare what is searchable with the log, and repair what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from driftline.cli.client import Api
from driftline.cli.connect import connections
from driftline.cli.output import emit_json, fail, table
from driftline.core import codec
from driftline.core.collections import fields_of, parse_definition
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.follow import read_to_end
from driftline.core.indexes import Index
from driftline.core.ports import LogReader, VectorStore
from driftline.core.records import REPAIR, ChangeEvent, Operation, Outgoing, document_key, record_key
from driftline.core.store import StoreTarget
from driftline.core.topics import CHANGES, DOCUMENTS


def accepted_documents(reader: LogReader, collection_uid: str) -> tuple[dict[str, ChangeEvent], list[str]]:
    """The newest accepted event of every document of a collection, from the compacted `documents`; and where records
    stand that cannot be read, of whatever collection. Raises Unavailable."""
    newest: dict[str, ChangeEvent] = {}
    unreadable: list[str] = []
    for record in read_to_end(reader, DOCUMENTS.name):
        try:
            event = codec.decode_change(record.value)
        except InvalidRecord as error:
            unreadable.append(f"{record.topic}/{record.partition}/{record.offset}: {error}")
            continue
        key = document_key(event.tenant, event.id)
        known = newest.get(key)
        if event.collection_uid == collection_uid and (known is None or event.version >= known.version):
            newest[key] = event
    return newest, unreadable


def differences(
    store: VectorStore, target: StoreTarget, log: dict[str, ChangeEvent], index: Index | None = None
) -> list[tuple[str, str, str]]:
    """(key, document id, what is wrong): missing, stale, resurrected, unknown, orphaned chunks.

    `index` tells which documents the store has rows of; None: of all.
    """
    rows: dict[str, dict[int, int]] = {}
    ids: dict[str, str] = {}
    for key, document_id, version, chunk in store.scan(target):
        rows.setdefault(key, {})[chunk] = version
        ids[key] = document_id
    wrong = []
    for key, event in log.items():
        stored = rows.get(key)
        if event.operation is Operation.DELETE:
            if stored:
                wrong.append((key, event.id, "resurrected" if 0 in stored else "orphaned chunks"))
        elif index is not None and not index.text_of(fields_of(event.fields_json)).strip():
            if stored:
                wrong.append((key, event.id, "stale" if 0 in stored else "orphaned chunks"))
        elif stored is None or 0 not in stored:
            wrong.append((key, event.id, "missing"))
        elif stored[0] != event.version:
            wrong.append((key, event.id, "stale" if stored[0] < event.version else "newer than the log"))
        elif len(set(stored.values())) > 1 or set(stored) != set(range(len(stored))):
            wrong.append((key, event.id, "orphaned chunks"))
    wrong += [(key, ids[key], "unknown to the log") for key in rows.keys() - log.keys()]
    return wrong


def repairs(log: dict[str, ChangeEvent], wrong: list[tuple[str, str, str]]) -> list[Outgoing]:
    """The log's versions of what differs, marked so that index takes out every row that is not theirs."""
    keys = dict.fromkeys(key for key, _, _ in wrong if key in log)
    events = [replace(log[key], source=REPAIR) for key in keys]
    return [
        Outgoing(CHANGES.name, record_key(e.collection_uid, e.tenant, e.id), codec.encode_change(e)) for e in events
    ]


def verify(
    collection: str,
    repair: Annotated[bool, typer.Option("--repair", help="send the log's version of what differs again")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare a collection in Milvus with the accepted documents in the log. Exit 1 when they differ.

    Every index is compared, in the generation that holds all of it. Records of the log that cannot be read are listed,
    and may be of any collection."""
    # Here: the clients cost half of what the command line takes to import, and the image of encode has none of Milvus.
    from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher
    from driftline.adapters.milvus import MilvusStore

    shown = Api("ingest").call("GET", f"/v1/collections/{collection}")
    definition = parse_definition(shown["definition"])
    generations = {g["number"]: g for g in shown["generations"]}
    settings = connections()
    try:
        log, unreadable = accepted_documents(KafkaLogReader(settings.kafka), shown["uid"])
        store, wrong = MilvusStore(settings.milvus), []
        for name, index in definition.named_indexes.items():
            generation = generations[shown["indexes"][name]["complete"]]
            target = StoreTarget(generation["store"], generation["space"], 0, "", shown["uid"])
            wrong += [(key, i, f"{problem} in index {name}" if len(definition.named_indexes) > 1 else problem)
                      for key, i, problem in differences(store, target, log, index)]  # fmt: skip
        if repair and wrong:
            publisher = KafkaPublisher(settings.kafka)
            publisher.publish(repairs(log, wrong))
            publisher.close()
    except Unavailable as error:
        fail(str(error))
    if as_json:
        found = [{"id": i, "problem": p} for _, i, p in wrong]
        emit_json({"documents": len(log), "differences": found, "unreadable": unreadable})
    else:
        print(f"{len(log)} documents in the log, {len(wrong)} differences{' sent again' if repair and wrong else ''}")
        table(["document", "problem"], [(i, p) for _, i, p in wrong[:50]])
        for where in unreadable[:20]:
            print(f"unreadable record {where}")
    if wrong:
        raise typer.Exit(1)
