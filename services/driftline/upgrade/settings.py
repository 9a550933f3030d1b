"""Settings of the upgrade service."""

from __future__ import annotations

from pydantic import Field

from driftline.core.settings import (
    AuthSettings,
    HttpSettings,
    MilvusSettings,
    Section,
    ServiceSettings,
    TritonSettings,
)


class UpgradeSection(Section):
    group: str = Field("driftline-upgrade", description="consumer group; its one member with a partition leads")
    pairs: int = Field(1_000, ge=50, le=50_000, description="documents embedded by both models to fit a compensation")
    held_out: int = Field(300, ge=20, le=2_000, description="documents, with a query each, kept out of every fit")
    margin: float = Field(
        0.01, ge=0, le=0.5, description="how far, relative to the status quo, quality may fall before going back to it"
    )
    window: int = Field(512, ge=1, le=100_000, description="documents asked to be backfilled and not yet there")
    per_second: float = Field(0.0, ge=0, description="most documents backfilled per second; 0: as fast as it goes")
    retry_seconds: float = Field(120.0, gt=0, description="after which a document that is not there is asked for again")
    quality_every_seconds: float = Field(30.0, gt=0, description="between two estimates of the served quality")
    shadow_queries: int = Field(100, ge=10, le=2_000, description="queries of one estimate")
    unload_after_seconds: float = Field(
        0.0, ge=0, description="after the end of an upgrade, when the older model is unloaded from Triton if no "
        "collection needs it; 0: never, as it must be where triton.url hides all servers but one or others use them",
    )  # fmt: skip
    statistics_documents: int = Field(
        20_000, ge=100, le=1_000_000, description="documents read to tell how often terms occur in a lexical index"
    )
    statistics_every_seconds: float = Field(
        10.0, gt=0, description="between two looks at whether a lexical index has grown or shrunk by a tenth"
    )
    tick_seconds: float = Field(1.0, gt=0, le=60, description="between two steps of the control loop")


class UpgradeSettings(ServiceSettings):
    http: HttpSettings = HttpSettings(port=8082)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    triton: TritonSettings = TritonSettings()
    milvus: MilvusSettings = MilvusSettings()
    upgrade: UpgradeSection = UpgradeSection()
