"""Settings of the index service."""

from __future__ import annotations

from pydantic import Field, model_validator

from driftline.core.settings import MilvusSettings, RedisSettings, RunnerSettings, Section, ServiceSettings
from driftline.core.topics import LOG_DAYS


class IndexSection(Section):
    group: str = Field("driftline-index", description="consumer group")
    tombstone_days: float = Field(
        LOG_DAYS + 1,
        description="how long a deleted version is remembered: an event that comes later than this can resurrect",
    )
    recent_versions: int = Field(200_000, ge=1_000, description="versions this process remembers of its own writes")
    lease_margin_seconds: float = Field(
        1.0, ge=0.1, le=60, description="a write is not begun with less lease than this"
    )

    @model_validator(mode="after")
    def _longer_than_the_log(self) -> IndexSection:
        if self.tombstone_days < LOG_DAYS:
            raise ValueError(f"tombstone_days must be at least {LOG_DAYS}, the retention of the changes log")
        return self


class IndexSettings(ServiceSettings):
    milvus: MilvusSettings = MilvusSettings()
    redis: RedisSettings = RedisSettings()
    runner: RunnerSettings = RunnerSettings(batch_records=1_000, batch_age_seconds=0.02, max_in_flight=3)
    index: IndexSection = IndexSection()
