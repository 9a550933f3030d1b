"""Milvus: a collection per embedding space, its identity stored with it."""

from driftline.adapters.pandas_deferred import pandas_deferred

# Before anything below imports it: pymilvus is first imported here.
with pandas_deferred():
    import pymilvus as _pymilvus  # noqa: F401

from driftline.adapters.milvus.store import MilvusStore

__all__ = ["MilvusStore"]
