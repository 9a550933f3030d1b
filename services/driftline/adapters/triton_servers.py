"""The servers behind one address of Triton: a headless Service in Kubernetes stands for all of its pods.

Requests are spread over them by gRPC. To load and unload models is each server's own affair: whoever asks one of them
has changed one of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tritonclient.grpc as triton

from driftline.core.errors import Unavailable

CHANNEL = [
    # Over every server that the name stands for; the default would stay with the first one that answers.
    ("grpc.lb_policy_name", "round_robin"),
    # As a broker, a server that is back is found within two seconds, whatever its outage took. By default the pause
    # grows to two minutes: after 40 s without a server, three of eight connections took another 25 to 31 s.
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def addresses(url: str) -> list[str]:
    """host:port of every server that `url` stands for. Raises Unavailable when the name is not known.

    Of IPv4 and IPv6 only one: in a cluster with both, every pod has both, and a local server may listen on one.
    """
    host, _, port = url.rpartition(":")
    try:
        found = {
            (info[0], info[4][0]) for info in socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        }
    except OSError as error:
        raise Unavailable("triton", f"{url}: {error.strerror or error}") from error
    four = sorted(str(address) for family, address in found if family == socket.AF_INET)
    six = sorted(str(address) for family, address in found if family != socket.AF_INET)
    return [f"{address}:{port}" for address in four] or [f"[{address}]:{port}" for address in six]


def on_every_server(url: str, work: Callable[[Any], Any]) -> list[Any]:
    """What `work` answers for a client of each server, all at once. Raises what the first of them raises."""

    def one(address: str) -> Any:
        with triton.InferenceServerClient(address) as client:
            return work(client)

    known = addresses(url)
    with ThreadPoolExecutor(len(known), thread_name_prefix="triton-each") as pool:
        return list(pool.map(one, known))
