"""Connections of commands that talk to the servers themselves: the local system's, unless settings say otherwise."""

from __future__ import annotations

import os

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
    """Settings of the environment, completed by those of the running local system."""
    from driftline.local.stack import Stack

    for name, value in Stack(home()).env.items():
        if name.startswith("DRIFTLINE_"):
            os.environ.setdefault(name, value)
    return load(Connections)
