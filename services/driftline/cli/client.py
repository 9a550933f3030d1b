"""The services' REST APIs, as the commands use them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from driftline.cli.output import fail


def home() -> Path:
    """Folder of the local system: $DRIFTLINE_HOME, else ./.driftline."""
    return Path(os.environ.get("DRIFTLINE_HOME", ".driftline"))


def _url(service: str) -> str:
    """Address of a service: $DRIFTLINE_INGEST_URL / $DRIFTLINE_QUERY_URL, else the running local system's."""
    given = os.environ.get(f"DRIFTLINE_{service.upper()}_URL", "")
    if given:
        return given.rstrip("/")
    from driftline.local.stack import Stack

    found = Stack(home()).addresses.get(service, "")
    if not found:
        fail(f"no local system in {home()}: run `driftline up`, or set DRIFTLINE_{service.upper()}_URL")
    return found


def path_of(document_id: str) -> str:
    return quote(document_id, safe="")


class Api:
    """One service. Problems end the command with their detail."""

    def __init__(self, service: str, url: str = "") -> None:
        self.service = service
        self.url = url or _url(service)
        headers = {}
        if key := os.environ.get("DRIFTLINE_API_KEY", ""):
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(base_url=self.url, timeout=120, headers=headers, trust_env=False)

    def call(self, method: str, path: str, allowed: Iterable[int] = (), **kwargs: Any) -> Any:
        """The answer's JSON, None without a body. Statuses in `allowed` are answers too."""
        try:
            response = self._client.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            fail(f"the {self.service} service at {self.url} does not answer: {error}")
        if response.status_code >= 400 and response.status_code not in set(allowed):
            fail(problem_line(response))
        return orjson.loads(response.content) if response.content else None

    def bulk(self, collection: str, lines: Iterator[bytes]) -> list[dict[str, Any]]:
        """Send some hundred NDJSON lines; one result per line."""
        try:
            response = self._client.post(f"/v1/collections/{collection}/bulk", content=lines)
        except httpx.HTTPError as error:
            fail(f"the {self.service} service at {self.url} does not answer: {error}")
        if response.status_code >= 400:
            fail(problem_line(response))
        return each_line(response.content)


def each_line(answer: bytes) -> list[dict[str, Any]]:
    """One result per line of a bulk request whose answer tells them all, as it does for requests of some hundred lines.

    Lines with an equal problem, which the answer tells together, are taken apart.
    """
    *told, last = (orjson.loads(line) for line in answer.splitlines())
    results = [
        {**result, "line": number}
        for result in told
        for number in range(result["line"], result.get("last_line", result["line"]) + 1)
    ]
    if len(results) != last["summary"]["lines"]:
        raise ValueError(f"the answer tells {len(results)} of {last['summary']['lines']} lines")
    return results


def problem_line(response: httpx.Response) -> str:
    try:
        body = orjson.loads(response.content)
        where = f"{body['field']}: " if body.get("field") else ""
        return f"{where}{body['detail']} [dim]({body['status']} {body['code']})[/]"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"{response.status_code} {response.text[:300]}"
