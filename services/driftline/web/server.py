"""The HTTP server of a service, and how it ends: no request that reached it goes without its answer."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from driftline.core.errors import ConfigError
from driftline.core.health import Health
from driftline.core.settings import HttpSettings
from driftline.web.connection import Connection, Connections

log = logging.getLogger(__name__)

# After SIGTERM connections are taken for so long still, each answer closing its own: who has one open learns in time
# that it ends. A server that nobody is connected to does not wait.
_TAKING_SECONDS = 5.0
# The first request of a connection that was taken last.
_FIRST_REQUEST_SECONDS = 3.0
# A handshake that began before connections were refused; between two regions one takes up to 0.3 s.
_HANDSHAKE_SECONDS = 0.3
# Without a connection for so long, nobody comes any more.
_QUIET_SECONDS = 0.3


class HttpServer(uvicorn.Server):  # type: ignore[misc]
    """uvicorn with bounded connections, whose clean end by SIGTERM is a success.

    `on_stop` is called once, as soon as SIGTERM or SIGINT came.
    """

    def __init__(self, app: FastAPI, settings: HttpSettings, health: Health, on_stop: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            loop="uvloop",
            http=Connection,
            ws="none",
            lifespan="off",
            server_header=False,
            timeout_keep_alive=settings.idle_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        super().__init__(config)
        self.server_state: Connections = Connections(settings)
        self._health = health
        self._on_stop = on_stop
        self._listener = _listen(settings)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn itself raises the signal once more when it is done."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def serve_forever(self) -> None:
        self.run(sockets=[self._listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._health.not_ready("serving", "the service is stopping")
        self._on_stop()
        self.server_state.drain()
        await self._until_quiet(_TAKING_SECONDS)
        await self._stop_listening()
        await self._until_quiet(_FIRST_REQUEST_SECONDS)
        await super().shutdown(sockets)

    async def _until_quiet(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = busy = loop.time()
        deadline = now + seconds
        while now < min(deadline, busy + _QUIET_SECONDS):
            await asyncio.sleep(0.05)
            now = loop.time()
            if self.server_state.connections:
                busy = now

    async def _stop_listening(self) -> None:
        """Take what the kernel holds already: closing the listener would reset those connections, and those that are
        made between the last that is taken and the close."""
        if _refuse_handshakes(self._listener):
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        taken = []
        while True:
            try:
                taken.append(self._listener.accept()[0])
            except OSError:  # nobody waits (or no descriptor is left)
                break
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in taken:
            connection.setblocking(False)
            await loop.connect_accepted_socket(lambda: Connection(self.config, self.server_state, {}, loop), connection)


# Classic BPF: of a segment with SYN in its flags (byte 13 of the TCP header) nothing is kept, of any other everything.
_WITHOUT_SYN = b"".join(
    struct.pack("HBBI", *step)
    for step in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 2**32 - 1))
)
_SO_ATTACH_FILTER = 26


def _refuse_handshakes(listener: socket.socket) -> bool:
    """Let the kernel drop every attempt to connect from now on; False where it cannot.

    A client tries again after a second and is then refused, the listener being closed by then.
    """
    if sys.platform != "linux":
        return False
    steps = ctypes.create_string_buffer(_WITHOUT_SYN)
    program = struct.pack("HL", len(_WITHOUT_SYN) // 8, ctypes.addressof(steps))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:  # a kernel that is none of Linux' own, such as gVisor's
        log.info("connections are reset at the very end", extra={"error": str(error)})
        return False
    return True


def _listen(settings: HttpSettings) -> socket.socket:
    """Raises ConfigError."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"http.host {settings.host}, http.port {settings.port}: {error.strerror}") from error
