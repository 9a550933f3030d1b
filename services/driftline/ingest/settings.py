"""Settings of the ingest service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from driftline.core.settings import (
    AuthSettings,
    HttpSettings,
    MilvusSettings,
    RunnerSettings,
    Section,
    ServiceSettings,
    TritonSettings,
)


class IngestSection(Section):
    max_pending: int = Field(20_000, ge=1, description="accepted events that Kafka has not acknowledged; over it: 429")
    tenant_documents_per_second: float = Field(
        1_000.0,
        ge=0,
        description="pace of a tenant of a collection with tenancy, per replica: a bulk request is read at this pace, "
        "single writes beyond it are answered 429; 0: no limit",
    )
    bulk_lines: int = Field(500, ge=1, le=10_000, description="lines of a bulk request handled at once")
    max_line_bytes: int = Field(200_000, ge=1_000, description="longest line of a bulk request")
    max_bulks: int = Field(16, ge=1, le=1_000, description="bulk requests at once, of some MB each; more: 429")
    max_wait_seconds: float = Field(60.0, gt=0, le=600, description="longest wait=searchable")
    create_wait_seconds: float = Field(
        10.0, ge=0, le=60, description="longest wait of a creation of a collection until its store is made"
    )
    sources_file: Path | None = Field(None, description="YAML file of sources (docs/sources.md)")
    sources_group: str = Field("driftline-sources", description="consumer groups of the sources: this, '.', the topic")
    source_pause_seconds: float = Field(
        300.0, gt=0, description="how long a source rests after most of its records were refused (runner.dead_letter_*)"
    )


class IngestSettings(ServiceSettings):
    http: HttpSettings = HttpSettings(port=8080)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    milvus: MilvusSettings = MilvusSettings()
    triton: TritonSettings = TritonSettings()
    runner: RunnerSettings = RunnerSettings(batch_records=500, batch_age_seconds=0.02)
    ingest: IngestSection = IngestSection()
