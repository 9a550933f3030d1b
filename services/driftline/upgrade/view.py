"""An upgrade as the API, the command line and the report show it, and as metrics."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from driftline.core import metrics
from driftline.upgrade.state import Estimate, ShadowQuery, UpgradeState, route


def measure(state: UpgradeState) -> None:
    for phase in ("backfilling", "complete", "finished", "rolled_back", "failed"):
        metrics.UPGRADE_PHASE.labels(state.collection, phase).set(float(state.phase == phase))
    progress = state.progress
    metrics.UPGRADE_FRACTION.labels(state.collection).set(progress.done / progress.total if progress.total else 0)
    metrics.UPGRADE_FALLBACK.labels(state.collection).set(float(bool(state.fallback)))
    if state.curve:
        last = state.curve[-1]
        metrics.UPGRADE_QUALITY.labels(state.collection, "served").set(
            last.status_quo if state.fallback else last.served
        )
        metrics.UPGRADE_QUALITY.labels(state.collection, "status_quo").set(last.status_quo)
        for name, value in zip(("mean", "low", "high"), last.difference, strict=True):
            metrics.UPGRADE_DIFFERENCE.labels(state.collection, name).set(value)
    if state.drift is not None:
        metrics.DRIFT_RESIDUAL.labels(state.collection, "now").set(state.drift.residual)
        metrics.DRIFT_RESIDUAL.labels(state.collection, "fit").set(state.drift.residual_of_fit)
        metrics.DRIFT_SHIFT.labels(state.collection).set(state.drift.shift)
        metrics.DRIFT_OVERLAP.labels(state.collection).set(state.drift.overlap or 0.0)


class LegView(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    generation: int
    carry: str
    compensation: str


class UpgradeView(UpgradeState):
    """The state, without the texts of the shadow queries, and what follows from it."""

    shadow: tuple[ShadowQuery, ...] = Field((), exclude=True)
    shadow_queries: int
    route: tuple[LegView, ...] = Field(description="what searches read; empty: one generation, as before")
    fraction: float = Field(description="share of the documents that the new generation holds")
    eta_seconds: int | None = Field(description="until all are there, at the pace of the last minute")

    @property
    def last(self) -> Estimate | None:
        """The last estimate of the quality."""
        return self.curve[-1] if self.curve else None


def view_of(state: UpgradeState) -> UpgradeView:
    progress = state.progress
    left = max(0, progress.total - progress.done)
    return UpgradeView(
        **{name: getattr(state, name) for name in UpgradeState.model_fields if name != "shadow"},
        shadow_queries=len(state.shadow),
        route=tuple(
            LegView(generation=leg.generation, carry=leg.carry.name.lower(), compensation=leg.compensation)
            for leg in route(state)
        ),
        fraction=round(min(1.0, progress.done / progress.total), 4) if progress.total else 0.0,
        eta_seconds=round(left / progress.per_second) if progress.per_second and left else None,
    )
