"""Settings of the encode service."""

from __future__ import annotations

from pydantic import Field

from driftline.core.settings import RedisSettings, RunnerSettings, Section, ServiceSettings, TritonSettings


class EncodeSection(Section):
    group: str = Field("driftline-encode", description="consumer group")
    request_texts: int = Field(
        32, ge=1, le=1_024, description="texts per Triton request; at most the model's max batch"
    )
    cache_ttl_seconds: int = Field(7 * 86_400, ge=1, description="how long an embedding stays in Redis")


class EncodeSettings(ServiceSettings):
    triton: TritonSettings = TritonSettings()
    redis: RedisSettings = RedisSettings()
    # Batches of some seconds of encoding, two in flight: Triton never waits for the next poll.
    runner: RunnerSettings = RunnerSettings(batch_records=256, batch_age_seconds=0.01, max_in_flight=2)
    encode: EncodeSection = EncodeSection()
