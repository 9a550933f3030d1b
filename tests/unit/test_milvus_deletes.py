"""How deletes are asked of Milvus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from driftline.adapters.milvus import MilvusStore
from driftline.core.settings import MilvusSettings
from driftline.core.store import Removal, WritePlan
from tests.build import a_stored, a_target


class Client:
    """What the store uses of pymilvus' client to write; it remembers the deletes."""

    def __init__(self) -> None:
        self.deletes: list[dict[str, Any]] = []
        self._connection = SimpleNamespace(_channel=None)

    def _get_connection(self) -> Any:
        return self._connection

    def upsert(self, store: str, rows: list[dict[str, Any]], timeout: float) -> dict[str, int]:
        del store, timeout
        return {"upsert_count": len(rows)}

    def delete(self, store: str, ids: list[str], timeout: float, **named: Any) -> None:
        del timeout
        self.deletes.append({"store": store, "ids": ids, **named})

    def query(self, store: str, **named: Any) -> list[dict[str, str]]:
        del store, named
        return [{"pk": "u1:k"}]


def test_every_delete_names_the_partition() -> None:
    """Milvus 2.3.5 drops a delete for all partitions when it loads a compacted segment: the rows came back."""
    store, client = MilvusStore(MilvusSettings()), Client()
    store._calls._connected = client
    store._calls._ensured.add(store._calls.tombstones)
    target = a_target(store="s")
    plan = WritePlan((a_stored("b", version=2),), (Removal("a", 2, 2),), (("b", 1, 3),))
    store.apply(target, plan, lambda: 10.0)
    assert store.purge_tombstones(0) == 1
    assert [(d["store"], d["ids"]) for d in client.deletes] == [
        ("s", ["a:0", "a:1", "b:1", "b:2"]),
        (store._calls.tombstones, ["u1:k"]),
    ]
    assert {d.get("partition_name") for d in client.deletes} == {"_default"}
