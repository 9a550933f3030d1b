"""document get, delete, status."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from driftline.cli.client import Api, path_of
from driftline.cli.output import emit_json

app = typer.Typer(help="Get, delete and inspect single documents.", no_args_is_help=True)
_Tenant = Annotated[str | None, typer.Option(help="for collections with tenancy")]


def _params(**given: Any) -> dict[str, Any]:
    return {k: v for k, v in given.items() if v is not None}


@app.command()
def get(collection: str, document_id: str, tenant: _Tenant = None) -> None:
    """Print a stored document."""
    path = f"/v1/collections/{collection}/documents/{path_of(document_id)}"
    emit_json(Api("query").call("GET", path, params=_params(tenant=tenant)))


@app.command()
def delete(
    collection: str,
    document_id: str,
    tenant: _Tenant = None,
    version: Annotated[int | None, typer.Option(help="external version")] = None,
    wait: Annotated[bool, typer.Option(help="until it is gone from searches")] = True,
) -> None:
    """Delete a document."""
    path = f"/v1/collections/{collection}/documents/{path_of(document_id)}"
    params = _params(tenant=tenant, version=version, wait="searchable" if wait else None)
    emit_json(Api("ingest").call("DELETE", path, params=params))


@app.command()
def status(
    collection: str, document_id: str, tenant: _Tenant = None,
    token: Annotated[str | None, typer.Option(help="also the outcome of this change")] = None,
) -> None:  # fmt: skip
    """What is stored of a document, and the outcome of a change."""
    path = f"/v1/status/{collection}/{path_of(document_id)}"
    emit_json(Api("ingest").call("GET", path, params=_params(tenant=tenant, token=token)))
