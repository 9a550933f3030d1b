"""What people and programs are told of an upgrade: the answer of the API, and the metrics. Pure but for the latter."""

from __future__ import annotations

from typing import Any

from driftline.core import metrics
from driftline.upgrade.state import UpgradeState, route


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


def describe(state: UpgradeState) -> dict[str, Any]:
    """The state for people and programs: without the texts of the shadow queries."""
    body = state.model_dump(mode="json", exclude={"shadow"})
    body["shadow_queries"] = len(state.shadow)
    body["route"] = [
        {"generation": leg.generation, "carry": leg.carry.name.lower(), "compensation": leg.compensation}
        for leg in route(state)
    ]
    progress = state.progress
    body["fraction"] = round(min(1.0, progress.done / progress.total), 4) if progress.total else 0.0
    left = max(0, progress.total - progress.done)
    body["eta_seconds"] = round(left / progress.per_second) if progress.per_second and left else None
    return body
