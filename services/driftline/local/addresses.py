"""Whether a server that the operator names is there, before anything is started for it."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from driftline.local.processes import StartError

# A server on the same network answers a connection in milliseconds; a wrong address may never.
_TIMEOUT_SECONDS = 3.0
_DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "http": 80, "https": 443}


def host_and_port(address: str) -> tuple[str, int]:
    """Of `host:port` or of a URL. Raises ValueError."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    if not parts.hostname or not port:
        raise ValueError("expected host:port" if "//" not in address else "expected a URL with host and port")
    return parts.hostname, port


def probe(server: str, addresses: str) -> None:
    """Return when one of the comma-separated addresses takes a connection. Raises StartError with one clear line."""
    option = f"--{server.lower()}"
    why = ""
    for address in addresses.split(","):
        try:
            socket.create_connection(host_and_port(address.strip()), _TIMEOUT_SECONDS).close()
            return
        except ValueError as error:
            raise StartError(f"{option} {addresses}: {error}") from error
        except OSError as error:
            why = error.strerror or str(error)
    raise StartError(
        f"no {server} answers at {addresses} ({why}): start it, correct {option}, or leave it out to have one started"
    )
