"""Collections of Milvus as the store makes them: one per embedding space with its identity, one for tombstones."""

from __future__ import annotations

from typing import Any

import orjson

from driftline.adapters import store_rows
from driftline.adapters.milvus.client import DataType, LoadState, MilvusException
from driftline.adapters.milvus.sparse import WIDTH, add_sparse_index, has_sparse_vectors, is_native
from driftline.core.errors import SpaceMismatch
from driftline.core.settings import MilvusSettings
from driftline.core.store import StoreTarget

# Milvus Lite keeps no descriptions. Stores that were made before have no such property.
_IDENTITY = "driftline.identity"
_METRICS = {"cosine": "COSINE", "ip": "IP", "l2": "L2"}


class Schemas:
    """Makes collections with the settings' shards and index. Every call has the settings' time limit."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._timeout = settings.timeout_seconds
        self._sparse: bool | None = None

    def ensure_store(self, client: Any, target: StoreTarget) -> None:
        """Raises SpaceMismatch when it is there for another space."""
        identity = {"space": target.space, "dimension": target.dimension, "metric": target.metric}
        sparse = target.kind == "sparse"
        native = sparse and self._native(client, target.store)
        schema = client.create_schema(
            auto_id=False, enable_dynamic_field=False, description=orjson.dumps(identity).decode()
        )
        schema.add_field("pk", DataType.VARCHAR, max_length=48, is_primary=True)
        schema.add_field("key", DataType.VARCHAR, max_length=32)
        schema.add_field("tenant", DataType.VARCHAR, max_length=store_rows.TENANT_BYTES)
        schema.add_field("id", DataType.VARCHAR, max_length=store_rows.ID_BYTES)
        schema.add_field("version", DataType.INT64)
        schema.add_field("chunk", DataType.INT32)
        schema.add_field("chunks", DataType.INT32)
        schema.add_field("text", DataType.VARCHAR, max_length=store_rows.TEXT_BYTES)
        schema.add_field("fields", DataType.VARCHAR, max_length=store_rows.FIELDS_BYTES)
        schema.add_field("attributes", DataType.JSON)
        index = client.prepare_index_params()
        if native:
            schema.add_field("vector", DataType.SPARSE_FLOAT_VECTOR)
            add_sparse_index(index)
        else:
            if sparse:
                schema.add_field("weights", DataType.VARCHAR, max_length=65_535)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH if sparse else target.dimension)
            index.add_index(
                "vector",
                index_type="HNSW",
                metric_type="IP" if sparse else _METRICS[target.metric],
                params={"M": self._settings.hnsw_m, "efConstruction": self._settings.hnsw_ef_construction},
            )
        self._create(client, target.store, schema, index)
        found = client.describe_collection(target.store, timeout=self._timeout)
        stored = _identity(found.get("description", "")) or _identity(found["properties"].get(_IDENTITY, ""))
        if stored.get("space") != target.space or stored.get("dimension") != target.dimension:
            raise SpaceMismatch(f"milvus collection {target.store!r}", target.space, str(stored.get("space", "")))

    def ensure_tombstones(self, client: Any, name: str) -> None:
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description="driftline tombstones")
        schema.add_field("pk", DataType.VARCHAR, max_length=80, is_primary=True)
        schema.add_field("version", DataType.INT64)
        schema.add_field("deleted_at_us", DataType.INT64)
        # Milvus 2.3 wants a vector in every collection; this one is never searched.
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2", params={})
        self._create(client, name, schema, index)

    def _native(self, client: Any, store: str) -> bool:
        """Whether a sparse store holds Milvus' own sparse vectors, or will. A server is tried once."""
        if client.has_collection(store, timeout=self._timeout):
            return is_native(client.describe_collection(store, timeout=self._timeout))
        if self._sparse is None:
            self._sparse = has_sparse_vectors(client, self._settings.prefix, {"timeout": self._timeout})
        return self._sparse

    def _create(self, client: Any, name: str, schema: Any, index: Any) -> None:
        """Make a collection with its index, loaded. A creation that stopped half-way, here or in another process, is
        brought to its end: each of the three steps can be done again."""
        limit = {"timeout": self._timeout}
        if not client.has_collection(name, **limit):
            try:
                client.create_collection(
                    name,
                    schema=schema,
                    num_shards=self._settings.shards,
                    consistency_level="Bounded",
                    properties={_IDENTITY: schema.description},
                    **limit,
                )
            except MilvusException:
                # Another replica may have been first.
                if not client.has_collection(name, **limit):
                    raise
        # In this order: Milvus Lite calls a collection without an index loaded.
        if not client.list_indexes(name, **limit):
            client.create_index(name, index, **limit)
        if client.get_load_state(name, **limit)["state"] != LoadState.Loaded:
            client.load_collection(name, **limit)


def _identity(description: str) -> dict[str, Any]:
    try:
        found = orjson.loads(description)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
