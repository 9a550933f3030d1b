"""Settings of the query service."""

from __future__ import annotations

from pydantic import Field

from driftline.core.limits import FUSION_WINDOW
from driftline.core.settings import (
    AuthSettings,
    HttpSettings,
    MilvusSettings,
    RedisSettings,
    Section,
    ServiceSettings,
    TritonSettings,
)


class QuerySection(Section):
    max_limit: int = Field(1_000, ge=1, le=10_000, description="most hits of one search")
    max_window: int = Field(10_000, ge=10, le=16_000, description="most hits a search may page through")
    fusion_window: int = Field(
        FUSION_WINDOW, ge=10, le=10_000, description="documents that each index ranks at least where rankings are fused"
    )
    adhoc_plans: bool = Field(False, description="take plans in searches, beside profiles of the definition")
    max_rerank: int = Field(200, ge=0, le=1_000, description="most hits of one search that `rerank` may embed")
    max_batch: int = Field(64, ge=1, le=1_000, description="most searches of one batch")
    max_wait_seconds: float = Field(60.0, gt=0, le=600, description="longest wait for `after`")
    embedding_ttl_seconds: int = Field(86_400, ge=1, description="how long a query's embedding is cached")
    log_per_second: float = Field(
        0.0, ge=0, le=1_000,
        description="texts of searches written to the `queries` topic, at most; 0: none. Upgrades begin with what is "
        "searched for",
    )  # fmt: skip
    result_ttl_seconds: int = Field(300, ge=0, description="how long a result is cached; 0 switches that off")


class QuerySettings(ServiceSettings):
    http: HttpSettings = HttpSettings(port=8081)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    triton: TritonSettings = TritonSettings(timeout_seconds=10.0)
    milvus: MilvusSettings = MilvusSettings(timeout_seconds=10.0)
    redis: RedisSettings = RedisSettings()
    query: QuerySection = QuerySection()
