"""Topics that are deleted and made anew while the system runs.

What holds then, for each: the services go on without anybody restarting them, a document that is written afterwards is
searchable and its receipt comes, and what was searchable before stays so. What the topic held is gone: receipts of
before (events that were told of stay told of), versions in `documents` (verify calls those documents unknown to the
log), requests in `backfill` (the upgrade asks again), the sample in `queries`. Two topics are more than that: with
`changes` goes what was not indexed yet, and its next life must outrank the versions of the former once it is
registered; with `control` go the definitions, which running services keep and a service that starts does not find, so
that one is restored from a backup and never made empty (docs/operations.md).
"""

from __future__ import annotations

import time

import pytest

from driftline.adapters.kafka import KafkaLogReader, KafkaPublisher, KafkaTopicAdmin
from driftline.core.provision import ensure_topics, register_changes
from driftline.core.settings import KafkaSettings
from tests.client import User, until
from tests.faults.arena import Arena


def made_anew(arena: Arena, topic: str) -> None:
    """What an operator does: delete it, and run `driftline topics create`."""
    settings = KafkaSettings(bootstrap_servers=arena.stack.addresses["kafka"], partitions=4)
    admin, reader, publisher = KafkaTopicAdmin(settings), KafkaLogReader(settings), KafkaPublisher(settings)
    try:
        before = admin.describe(topic)
        assert before is not None
        admin._client.delete_topics([settings.topic_prefix + topic])
        until(lambda: admin.describe(topic) is None, 30)
        ensure_topics(admin, settings)
        until(lambda: admin.describe(topic) is not None, 30)
        after = admin.describe(topic)
        assert after is not None and after[0] != before[0]
        register_changes(admin, reader, publisher)
    finally:
        publisher.close()
        reader.close()
        admin.close()


def searchable(user: User, collection: str, id: str, seconds: float) -> dict[str, object]:
    """Write it until its receipt says searchable: right after the change a write may be refused or wait too long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = user.ingest.put(
            f"/v1/collections/{collection}/documents/{id}",
            json={"fields": {"title": f"document {id}"}},
            params={"wait": "searchable", "timeout_seconds": "10"},
        )
        body: dict[str, object] = answer.json()
        if answer.status_code == 201:
            return body
        assert time.monotonic() < deadline, (answer.status_code, body)
        time.sleep(0.5)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("topic", ["documents", "receipts", "backfill", "queries", "vectors", "changes"])
def test_the_pipeline_goes_on_when_a_topic_is_made_anew(arena: Arena, topic: str) -> None:
    user = User(arena.stack)
    collection = user.create()
    for i in range(8):
        assert user.put(collection, f"old{i}", title=f"document old{i}")["state"] == "searchable"
    before = user.put(collection, "twice", title="document twice")
    made_anew(arena, topic)
    # Every partition must go on, and a document that was there before must take a new version.
    for i in range(8):
        searchable(user, collection, f"new{i}", 90)
    after = searchable(user, collection, "twice", 60)
    assert int(str(after["version"])) > int(str(before["version"]))
    until(lambda: user.count(collection) == 17, 60)
    found = {hit["id"] for hit in user.search(collection, "document", limit=50)}
    assert found == {"twice", *(f"old{i}" for i in range(8)), *(f"new{i}" for i in range(8))}
    arena.calm()
    assert arena.died == []
