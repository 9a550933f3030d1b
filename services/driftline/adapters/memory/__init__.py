"""The in-memory twins of the ports: what unit tests run on, held to the same contract suites as the real ones."""

from driftline.adapters.memory.cache import MemoryCache
from driftline.adapters.memory.embedder import MemoryEmbedder
from driftline.adapters.memory.log import (
    MemoryLog,
    MemoryLogReader,
    MemoryPublisher,
    MemorySubscriber,
    MemoryTopicAdmin,
)
from driftline.adapters.memory.store import MemoryStore

__all__ = [
    "MemoryCache",
    "MemoryEmbedder",
    "MemoryLog",
    "MemoryLogReader",
    "MemoryPublisher",
    "MemoryStore",
    "MemorySubscriber",
    "MemoryTopicAdmin",
]
