"""Fusion: one ranking of what several indexes found. A new one is a file with a class, and a line in `FUSIONS`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from driftline.core.values import shown
from driftline.retrieval.fusion.base import Fused, Fusion, Ranked, Ranking
from driftline.retrieval.fusion.calibrated import Calibrated
from driftline.retrieval.fusion.dbsf import Dbsf
from driftline.retrieval.fusion.minmax import MinMax
from driftline.retrieval.fusion.rrf import Rrf

__all__ = ["FUSIONS", "Fused", "Fusion", "FusionSpec", "Ranked", "Ranking", "Rrf"]

FUSIONS: dict[str, type[Fusion]] = {
    "rrf": Rrf,
    "minmax": MinMax,
    "dbsf": Dbsf,
    "calibrated": Calibrated,
}


def _read(given: Any) -> Any:
    """`"rrf"`, or `{"kind": "rrf", "k": 20}`."""
    if isinstance(given, Fusion):
        return given
    settings = {"kind": given} if isinstance(given, str) else given
    kind = settings.get("kind") if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in FUSIONS:
        raise ValueError(f"expected one of {', '.join(FUSIONS)}, found {shown(given)}")
    return FUSIONS[kind].model_validate({name: value for name, value in settings.items() if name != "kind"})


# In a plan: the name of a fusion, or an object with `kind` and its settings.
FusionSpec = Annotated[SerializeAsAny[Fusion], BeforeValidator(_read)]
