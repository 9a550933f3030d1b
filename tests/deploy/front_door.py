"""The APIs' own routes, a proxy configured from the rendered Ingress, and the rendered HTTPRoute evaluated."""

from __future__ import annotations

import inspect
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import orjson
import uvicorn
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from driftline.core.health import Health
from driftline.core.settings import AuthSettings
from driftline.ingest import server as ingest
from driftline.ingest.settings import IngestSettings
from driftline.query import server as query
from driftline.query.settings import QuerySettings
from driftline.upgrade import server as upgrade
from driftline.upgrade.settings import UpgradeSettings
from tests.deploy.manifests import Manifest

# What an id may hold that a proxy could trip over: slashes, escapes, the ends of other routes, dots.
_IDS = ("a", "a/b", "x/search", "x/bulk", "50% off?", "ä b", "a//b", "v1.2")


@dataclass(frozen=True)
class Call:
    """A request that an API has a route for."""

    service: str
    method: str
    route: str
    path: str
    document: str = ""


def applications() -> dict[str, FastAPI]:
    """The three APIs. Whom they work with is left out: only their routes are asked for."""
    made: dict[str, tuple[Callable[..., FastAPI], Any]] = {
        "ingest": (ingest.create_app, IngestSettings),
        "query": (query.create_app, QuerySettings),
        "upgrade": (upgrade.create_app, UpgradeSettings),
    }
    found = {}
    for service, (create, settings) in made.items():
        needed = [n for n, p in inspect.signature(create).parameters.items() if p.default is inspect.Parameter.empty]
        known = {"settings": settings(auth=AuthSettings(mode="off")), "health": Health()}
        found[service] = create(**{name: known.get(name) or MagicMock() for name in needed})
    return found


def calls(apps: dict[str, FastAPI]) -> list[Call]:
    """Every route of every API below /v1, with each of the ids in it."""
    found = []
    for service, app in apps.items():
        for route in app.routes:
            if not isinstance(route, APIRoute) or not route.path.startswith("/v1"):
                continue
            for sample in _IDS if "{document_id:path}" in route.path else ("",):
                path = route.path.replace("{document_id:path}", quote(sample, safe=""))
                path = re.sub(r"\{\w+\}", "books", path)
                found += [Call(service, method, route.path, path, sample) for method in sorted(route.methods)]
    return found


def recording(service: str, app: FastAPI) -> ASGIApp:
    """Answers which service and route a request came to, by the routes of `app`; 404 and 405 as it would."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        matches = [(route.matches(scope), route) for route in app.routes if isinstance(route, APIRoute)]
        full = [(child, route) for (match, child), route in matches if match is Match.FULL]
        told: dict[str, Any] = {"service": service, "route": None}
        status = 405 if any(match is Match.PARTIAL for (match, _), _ in matches) else 404
        if full:
            child, route = full[0]
            status, told = 200, told | {"route": route.path, "document": child["path_params"].get("document_id", "")}
        body = orjson.dumps(told)
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": length})
        await send({"type": "http.response.body", "body": body})

    return answer


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port of a server for `app` on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Connections wait from here on for a server that is still starting.
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)


def nginx_config(ingress: Manifest, ports: dict[str, int], listen: int, folder: Path) -> str:
    """What an ingress controller makes of the rendered Ingress. `ports` are those of the Services by name.

    Prefix and Exact are the path types whose meaning every controller shares; the chart uses no other.
    """
    servers = []
    for rule in ingress["spec"]["rules"]:
        locations = []
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["port"] == {"name": "http"}
            # Without a path behind the address, nginx passes on the request's own, escapes included.
            target = f"{{ proxy_pass http://127.0.0.1:{ports[backend['name']]}; }}"
            value = path["path"].rstrip("/")
            locations.append(f"location = {value} {target}")
            if path["pathType"] == "Prefix":
                locations.append(f"location {value}/ {target}")
            else:
                assert path["pathType"] == "Exact", path["pathType"]
        inner = "\n    ".join(["location / { return 404; }", *locations])
        servers.append(f"server {{\n    listen 127.0.0.1:{listen};\n    server_name {rule['host']};\n    {inner}\n  }}")
    nowhere = f"server {{ listen 127.0.0.1:{listen} default_server; return 404; }}"
    temporary = "\n  ".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    inner = "\n  ".join([temporary, "access_log off;", "merge_slashes off;", nowhere, *servers])
    return (
        f"pid {folder / 'nginx.pid'};\ndaemon off;\nerror_log {folder / 'error.log'};\n"
        f"events {{}}\nhttp {{\n  {inner}\n}}\n"
    )


@contextmanager
def proxying(ingress: Manifest, ports: dict[str, int], folder: Path) -> Iterator[int]:
    """The port of an nginx that does what the Ingress says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = int(probe.getsockname()[1])
    file = folder / "nginx.conf"
    file.write_text(nginx_config(ingress, ports, listen, folder))
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(file)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", listen)) != 0:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield listen
    finally:
        process.terminate()
        process.wait(10)


def backends(route: Manifest, call: Call, whole: bool) -> list[str]:
    """The Services of every rule of an HTTPRoute that matches `call`, by its path as it is given.

    `whole`: a pattern must match the whole path; else a part is enough. The specification leaves that open.
    """
    found = []
    for rule in route["spec"]["rules"]:
        if any(_matches(match, call, whole) for match in rule["matches"]):
            (backend,) = rule["backendRefs"]
            assert backend["port"] == 8080
            found.append(backend["name"])
    return found


def _matches(match: dict[str, Any], call: Call, whole: bool) -> bool:
    assert set(match) <= {"method", "path"}, f"not evaluated: {match}"
    if match.get("method", call.method) != call.method:
        return False
    kind, value = match["path"]["type"], match["path"]["value"]
    if kind == "RegularExpression":
        return bool((re.fullmatch if whole else re.search)(value, call.path))
    return call.path == value or (kind == "PathPrefix" and call.path.startswith(value.rstrip("/") + "/"))
