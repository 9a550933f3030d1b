"""A TCP proxy between a service and a server, whose connections can be cut, held and slowed while it runs.

All proxies of a process share one event loop on one thread; every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

_READ = 64 * 1024
# SO_LINGER with no time to linger: closing sends RST instead of FIN, as a machine that lost its state would.
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """What connections suffer.

    `drop`: they are closed, and new ones at once; `reset`: the same with RST; `hold`: they stay open and nothing gets
    through in either direction, as when a peer is gone without a word. `latency_seconds` delays what is read,
    `bytes_per_second` is what passes one way of one connection; 0 is unbounded.
    """

    drop: bool = False
    reset: bool = False
    hold: bool = False
    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0


FAIR = Weather()


class _Loop:
    """The event loop of all proxies; started with the first, ends with the process."""

    _lock = threading.Lock()
    _running: asyncio.AbstractEventLoop | None = None

    @classmethod
    def call(cls, work: Coroutine[Any, Any, Any]) -> Any:
        with cls._lock:
            if cls._running is None:
                cls._running = asyncio.new_event_loop()
                threading.Thread(target=cls._running.run_forever, name="proxies", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(work, cls._running).result(30)


class Proxy:
    """Listens on loopback and forwards to `upstream` (host, port), which need not listen yet."""

    def __init__(self, upstream: Callable[[], tuple[str, int]]) -> None:
        self._upstream = upstream
        self._weather = FAIR
        self._changed: asyncio.Event | None = None
        self._links: set[_Link] = set()
        self.port = 0
        self.accepted = 0
        _Loop.call(self._listen())

    async def _listen(self) -> None:
        self._changed = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    @property
    def weather(self) -> Weather:
        return self._weather

    def suffer(self, weather: Weather) -> None:
        """From now on, for open connections too. Those that were held are reset when the hold ends: their peers
        have long given them up, and half of a message may be missing."""
        _Loop.call(self._suffer(weather))

    async def _suffer(self, weather: Weather) -> None:
        assert self._changed is not None
        before, self._weather = self._weather, weather
        self._changed.set()
        self._changed = asyncio.Event()
        if weather.drop or weather.reset or (before.hold and not weather.hold):
            for link in list(self._links):
                link.end(reset=weather.reset or before.hold)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(writer)
        if self._weather.drop or self._weather.reset:
            link.end(self._weather.reset)
            return
        self._links.add(link)
        try:
            await self._let_pass()
            to_server = await asyncio.open_connection(*self._upstream())
            link.other = to_server[1]
            await asyncio.gather(self._pump(reader, to_server[1]), self._pump(to_server[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._links.discard(link)
            link.end(reset=False)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while content := await reader.read(_READ):
                await self._let_pass()
                weather = self._weather
                pause = weather.latency_seconds
                if weather.bytes_per_second:
                    pause += len(content) / weather.bytes_per_second
                if pause:
                    await asyncio.sleep(pause)
                    await self._let_pass()
                writer.write(content)
                await writer.drain()
        finally:
            writer.close()

    async def _let_pass(self) -> None:
        while self._weather.hold:
            assert self._changed is not None
            await self._changed.wait()

    def close(self) -> None:
        """Stop listening and close every connection."""
        _Loop.call(self._close())

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.end(reset=False)


class _Link:
    """The two ends of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.other: asyncio.StreamWriter | None = None

    def end(self, reset: bool) -> None:
        for writer in (self._writer, self.other):
            if writer is None:
                continue
            if reset:
                connected: socket.socket | None = writer.get_extra_info("socket")
                if connected is not None and connected.fileno() >= 0:
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                writer.transport.abort()
            else:
                writer.close()
