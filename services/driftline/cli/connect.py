"""Connections of commands that talk to the servers themselves: the local system's, unless settings say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from driftline.cli.client import home
from driftline.core.settings import (
    MilvusSettings,
    RedisSettings,
    ServiceSettings,
    TritonSettings,
    load,
)


class Connections(ServiceSettings):
    milvus: MilvusSettings = MilvusSettings()
    redis: RedisSettings = RedisSettings()
    triton: TritonSettings = TritonSettings()


def connections() -> Connections:
    """Settings of the environment and the file, completed by those of the running local system."""
    from driftline.local.stack import Stack

    return completed(Stack(home()).env)


def completed(local: Mapping[str, str]) -> Connections:
    """The settings; where nothing else says one, that of `local`, by the names of environment variables."""

    class Completed(Connections):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *args: Any, **kwargs: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given = super().settings_customise_sources(settings_cls, *args, **kwargs)
            return (*given, _LocalSource(settings_cls, local))

    return load(Completed)


class _LocalSource(PydanticBaseSettingsSource):
    """The settings that the local system's services were started with."""

    def __init__(self, settings_cls: type[BaseSettings], local: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._local = local

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, dict[str, str]] = {}
        for name, value in self._local.items():
            section, _, key = name.removeprefix("DRIFTLINE_").partition("__")
            if name.startswith("DRIFTLINE_") and section.lower() in self.settings_cls.model_fields:
                found.setdefault(section.lower(), {})[key.lower()] = value
        return found
