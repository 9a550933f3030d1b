"""The cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class MemoryCache:
    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.down = False

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [None if self.down else self.items.get(key) for key in keys]

    def set_many(self, items: Mapping[str, bytes], ttl_seconds: int) -> None:
        del ttl_seconds
        if not self.down:
            self.items.update(items)

    def increment(self, key: str) -> None:
        if not self.down:
            self.items[key] = str(int(self.items.get(key, b"0")) + 1).encode()

    def healthy(self) -> bool:
        return not self.down
