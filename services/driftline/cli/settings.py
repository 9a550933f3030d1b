"""settings: the effective settings of a service."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import BaseModel

from driftline.cli.output import emit_json, fail, table
from driftline.core.settings import ServiceSettings, load


def kinds() -> dict[str, type[ServiceSettings]]:
    from driftline.encode.settings import EncodeSettings
    from driftline.index.settings import IndexSettings
    from driftline.ingest.settings import IngestSettings
    from driftline.query.settings import QuerySettings
    from driftline.upgrade.settings import UpgradeSettings

    return {
        "ingest": IngestSettings,
        "encode": EncodeSettings,
        "index": IndexSettings,
        "query": QuerySettings,
        "upgrade": UpgradeSettings,
    }


def settings(
    service: Annotated[str, typer.Argument(help="ingest, encode, index, query or upgrade")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print the effective settings of a service with their environment variables; secrets are only named files."""
    known = kinds()
    if service not in known:
        fail(f"expected one of {', '.join(known)}")
    effective = load(known[service])
    if as_json:
        emit_json(effective.model_dump(mode="json"))
        return
    table(["setting", "value", "what it is"], rows(effective))


def rows(effective: ServiceSettings) -> list[tuple[str, Any, str]]:
    """(environment variable, value, description) of every setting."""
    found: list[tuple[str, Any, str]] = []
    for section in type(effective).model_fields:
        value = getattr(effective, section)
        assert isinstance(value, BaseModel)
        for name, field in type(value).model_fields.items():
            found.append(
                (
                    f"DRIFTLINE_{section.upper()}__{name.upper()}",
                    getattr(value, name),
                    field.description or "",
                )
            )
    return found
