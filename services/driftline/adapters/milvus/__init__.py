"""Milvus: a collection per embedding space, its identity stored with it."""

from driftline.adapters.milvus.store import MilvusStore

__all__ = ["MilvusStore"]
