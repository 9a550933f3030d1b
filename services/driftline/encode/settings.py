"""Settings of the encode service."""

from __future__ import annotations

from pydantic import Field

from driftline.core.settings import RedisSettings, RunnerSettings, Section, ServiceSettings, TritonSettings


class EncodeSection(Section):
    group: str = Field("driftline-encode", description="consumer group")
    request_texts: int = Field(
        64, ge=1, le=1_024, description="texts per Triton request; at most the model's max batch"
    )
    backfill_group: str = Field("driftline-encode-backfill", description="consumer group of the backfill lane")
    backfill_patience_seconds: float = Field(
        20.0, ge=0, le=600, description="longest time a batch of backfills waits for fresh changes to pause"
    )
    deferred_group: str = Field("driftline-encode-deferred", description="consumer group of what was put off")
    deferred_patience_seconds: float = Field(
        1.0, ge=0, le=600, description="longest time a batch of what was put off waits for fresh changes to be embedded"
    )
    share_per_second: float = Field(
        4.0,
        ge=1,
        le=1e6,
        description="documents of a tenant that are embedded at once while more is waiting; what goes beyond is put "
        "off, so that others go first",
    )
    share_seconds: float = Field(
        0.25, ge=0, le=60, description="more documents at once than are embedded in this time: more is waiting"
    )
    background_in_flight: int = Field(
        1,
        ge=1,
        le=256,
        description="requests at Triton, per process, of backfills and of what was put off, while fresh changes come",
    )
    fresh_seconds: float = Field(5.0, ge=0, le=600, description="how long after a fresh change others are counted on")
    cache_ttl_seconds: int = Field(7 * 86_400, ge=1, description="how long an embedding stays in Redis")


class EncodeSettings(ServiceSettings):
    triton: TritonSettings = TritonSettings()
    redis: RedisSettings = RedisSettings()
    # Batches of some seconds of encoding, two in flight: Triton never waits for the next poll.
    runner: RunnerSettings = RunnerSettings(batch_records=256, batch_age_seconds=0.01, max_in_flight=2)
    deferred: RunnerSettings = RunnerSettings(batch_records=32, batch_age_seconds=0.02, max_in_flight=2)
    # Small batches: one that has begun does not yield any more, but for its place in Triton's queue.
    backfill: RunnerSettings = RunnerSettings(batch_records=32, batch_age_seconds=0.05, max_in_flight=2)
    encode: EncodeSection = EncodeSection()
