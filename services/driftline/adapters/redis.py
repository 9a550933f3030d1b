"""Redis as a cache that may be down: no method raises, and after a failure it is left alone for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import redis

from driftline.core import metrics
from driftline.core.errors import ConfigError
from driftline.core.settings import RedisSettings, read_secret

log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RedisCache:
    def __init__(self, settings: RedisSettings) -> None:
        """Raises ConfigError; contacts nobody."""
        self._retry_seconds = settings.retry_seconds
        self._down_until = 0.0
        self._client: Any = None
        if settings.url:
            password = read_secret(settings.password_file, "redis.password_file")
            try:
                self._client = redis.Redis.from_url(
                    settings.url,
                    password=password.get_secret_value() if password else None,
                    socket_timeout=settings.timeout_seconds,
                    socket_connect_timeout=settings.timeout_seconds,
                    retry=None,
                )
            except ValueError as error:
                raise ConfigError(f"redis.url: {error}") from error

    def _try(self, call: Callable[[Any], _T], otherwise: _T) -> _T:
        if self._client is None or time.monotonic() < self._down_until:
            return otherwise
        try:
            return call(self._client)
        except (redis.RedisError, OSError) as error:
            self._down_until = time.monotonic() + self._retry_seconds
            metrics.CACHE_ERRORS.inc()
            log.warning("cache unavailable, going on without", extra={"error": str(error)})
            return otherwise

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        found: list[bytes | None] = self._try(lambda c: c.mget(keys), [None] * len(keys))
        return found

    def set_many(self, items: Mapping[str, bytes], ttl_seconds: int) -> None:
        def write(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            for key, value in items.items():
                pipeline.set(key, value, ex=ttl_seconds)
            pipeline.execute()

        if items:
            self._try(write, None)

    def increment(self, key: str) -> None:
        def write(client: Any) -> None:
            client.incr(key)

        self._try(write, None)

    def healthy(self) -> bool:
        return self._client is None or bool(self._try(lambda c: c.ping(), False))
