"""Calls to Milvus: one connection, and errors as the port says them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import grpc

from driftline.adapters.milvus.client import MilvusClient, MilvusException
from driftline.adapters.milvus.errors import Meaning, meaning_of
from driftline.adapters.milvus.fence import guard_writes
from driftline.core import metrics
from driftline.core.errors import ConfigError, DriftlineError, Fenced, PartlyUnavailable, Unavailable
from driftline.core.settings import MilvusSettings, read_secret

T = TypeVar("T")
Call = Callable[[Any], T]


class MilvusCalls:
    """Thread-safe: pymilvus' connection is, and what this object keeps is behind its lock."""

    def __init__(self, settings: MilvusSettings) -> None:
        """Raises ConfigError; contacts nobody."""
        self._settings = settings
        self._token = read_secret(settings.token_file, "milvus.token_file")
        self._lock = threading.Lock()
        self._connected: Any = None
        self._ensured: set[str] = set()

    @property
    def tombstones(self) -> str:
        """The collection of the tombstones."""
        return f"{self._settings.prefix}tombstones"

    def client(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = MilvusClient(
                    uri=self._settings.uri,
                    token=self._token.get_secret_value() if self._token else "",
                    db_name=self._settings.database,
                    timeout=min(10.0, self._settings.timeout_seconds),
                )
                guard_writes(self._connected._get_connection(), self._settings.timeout_seconds)
            return self._connected

    def call(
        self,
        operation: str,
        call: Call[T],
        store: str = "",
        *,
        refused: Callable[[str], DriftlineError] | None = None,
        harmless: Call[object] | None = None,
    ) -> T:
        """Call, and raise what the port says in place of what Milvus or pymilvus raise.

        `refused` makes the error of a value that can never be taken; without it, that is the store's trouble and its
        collection waits. `harmless` is a call of the same kind that no store refuses: see `_once_more`.
        """
        channel = None
        try:
            with metrics.STORE_SECONDS.labels(operation).time():
                client = self.client()
                channel = client._get_connection()._channel
                return call(client)
        except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError, ConnectionError) as error:
            meaning, origin = meaning_of(error)
            if meaning is Meaning.UNTOLD and refused is not None and harmless is not None:
                return self._once_more(operation, call, store, refused, harmless)
            self._raise(operation, meaning, origin, store, refused, channel)

    def _once_more(
        self,
        operation: str,
        call: Call[T],
        store: str,
        refused: Callable[[str], DriftlineError],
        harmless: Call[object],
    ) -> T:
        """Milvus 2.3 has one code for a value that it refuses and for a failure inside (65535). If it then does what is
        harmless, and fails at the same call again, it is the value."""
        self.call(operation, harmless, store)
        try:
            return self.call(operation, call, store, refused=refused)
        except PartlyUnavailable as error:
            if isinstance(error.__cause__, Exception) and meaning_of(error.__cause__)[0] is Meaning.UNTOLD:
                raise refused(error.detail) from error.__cause__
            raise

    def _raise(
        self,
        operation: str,
        meaning: Meaning,
        origin: BaseException,
        store: str,
        refused: Callable[[str], DriftlineError] | None,
        channel: Any,
    ) -> NoReturn:
        detail = f"{operation}: {str(origin)[:300]}"
        if isinstance(origin, Fenced):
            raise origin
        match meaning:
            case Meaning.SETTING:
                raise ConfigError(f"milvus.uri {self._settings.uri!r}: expected http(s)://host:port") from origin
            case Meaning.UNREACHABLE:
                raise Unavailable("milvus", detail) from origin
            case Meaning.REFUSED if refused is not None:
                raise refused(detail) from origin
            case Meaning.BUG:
                if isinstance(origin, ValueError) and channel is not self.client()._get_connection()._channel:
                    # gRPC's error of a closed channel: pymilvus connected anew while this call was under way.
                    raise Unavailable("milvus", f"{operation}: the connection was made anew") from origin
                raise origin
            case Meaning.REFUSED | Meaning.UNTOLD | Meaning.PART:
                # Whoever ensures it next looks again whether it is there and loaded.
                self.forget(store, self.tombstones)
                raise PartlyUnavailable("milvus", f"collection {store!r}: {detail}") from origin

    def forget(self, *stores: str) -> None:
        with self._lock:
            self._ensured.difference_update(stores)

    def ensure(self, store: str, make: Call[None]) -> None:
        """Make a collection, unless it was made or seen before by this object and no call found it unusable since."""
        with self._lock:
            if store in self._ensured:
                return
        # Without the lock: it takes seconds, and may be done twice at once.
        self.call("ensure", make, store)
        with self._lock:
            self._ensured.add(store)
