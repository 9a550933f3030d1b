"""The stores that the contract is held to: the memory twin, Milvus 2.3.5 and Milvus Lite."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from driftline.adapters.memory import MemoryStore
from driftline.adapters.milvus import MilvusStore
from driftline.core.ports import VectorStore
from driftline.core.store import StoreTarget


@pytest.fixture(scope="module", params=["memory", "milvus_settings", "milvus_lite_settings"])
def store(request: pytest.FixtureRequest) -> VectorStore:
    if request.param == "memory":
        return MemoryStore()
    return MilvusStore(request.getfixturevalue(request.param))


@pytest.fixture
def target(store: VectorStore) -> Iterator[StoreTarget]:
    name = f"contract_{uuid.uuid4().hex[:10]}"
    made = StoreTarget(name, "s1", 8, "cosine", name)
    store.ensure(made)
    yield made
    store.drop(made)
