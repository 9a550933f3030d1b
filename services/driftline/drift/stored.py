"""A fitted compensation as one file: safetensors with both fingerprints, so that it never maps the wrong space."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from safetensors import SafetensorError
from safetensors.numpy import load, save

from driftline.core import jsons
from driftline.core.errors import InvalidRequest
from driftline.core.limits import MAX_DIMENSION
from driftline.core.schema import validated
from driftline.core.values import shown
from driftline.drift.affine import LowRank, Procrustes, Ridge, ScaledProcrustes
from driftline.drift.base import Compensator
from driftline.drift.calibration import Calibration
from driftline.drift.local import LocalResidual
from driftline.drift.mlp import ResidualMlp
from driftline.drift.translation import Identity, MeanDrift

KINDS: Mapping[str, type[Compensator]] = {
    kind.kind: kind
    for kind in (Identity, MeanDrift, Procrustes, ScaledProcrustes, Ridge, LowRank, ResidualMlp, LocalResidual)
}
_FORMAT = "driftline-compensation-1"
_Dimension = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]


class CompensationError(Exception):
    """A stored compensation cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Compensation:
    """A map from one space to one older space, with what is needed to serve and to judge it.

    `old_weight` 0 searches the old generation with the mapped query alone; above 0 the old encoder's own query is
    mixed in with that weight, and 1 leaves the map out. `calibration` carries scores of the old generation onto the
    new one's scale. Documents that the new model ranks afterwards are looked for with the weight `finder_weight` of the
    old encoder's query. `sample` says what it was fitted on, `metrics` how well it did on held-out queries.
    """

    compensator: Compensator
    new_space: str
    old_space: str
    calibration: Calibration
    old_weight: float = 0.0
    finder_weight: float = 0.0
    sample: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        about = {
            "format": _FORMAT,
            "kind": self.compensator.kind,
            "new_space": self.new_space,
            "old_space": self.old_space,
            "dimensions": [self.compensator.new_dimension, self.compensator.old_dimension],
            "calibration": [self.calibration.source, self.calibration.target],
            "old_weight": self.old_weight,
            "finder_weight": self.finder_weight,
            "sample": self.sample,
            "metrics": self.metrics,
        }
        metadata = {"driftline": orjson.dumps(about, option=orjson.OPT_SORT_KEYS).decode()}
        content: bytes = save(dict(self.compensator.arrays()), metadata=metadata)
        return content


class _About(BaseModel):
    """The metadata as `to_bytes` writes it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["driftline-compensation-1"]
    kind: str
    new_space: str
    old_space: str
    dimensions: tuple[_Dimension, _Dimension]
    calibration: tuple[list[FiniteFloat], list[FiniteFloat]]
    old_weight: float = Field(ge=0, le=1)
    finder_weight: float | None = Field(None, ge=0, le=1)
    sample: dict[str, Any]
    metrics: dict[str, Any]


def identity_of(content: bytes) -> str:
    """The id of a stored compensation: a hash of its bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def read(content: bytes, new_space: str = "", old_space: str = "") -> Compensation:
    """Read a stored compensation. Raises CompensationError when it is damaged or maps other spaces than asked for."""
    try:
        about = validated(_About, jsons.parse(_metadata(content), "metadata"), "not_a_compensation")
        new, old = about.dimensions
        compensator = KINDS[about.kind].build(load(content), new, old)
        # A map whose arrays do not fit together would fail at the first search, not here.
        mapped = compensator.apply(np.eye(1, new, dtype=np.float32))
        if mapped.shape != (1, old) or not np.isfinite(mapped).all():
            raise CompensationError(f"the map gives {mapped.shape} of finite numbers or not; expected (1, {old})")
        source, target = about.calibration
        compensation = Compensation(
            compensator,
            about.new_space,
            about.old_space,
            Calibration(tuple(source), tuple(target)),
            about.old_weight,
            about.old_weight if about.finder_weight is None else about.finder_weight,
            about.sample,
            about.metrics,
        )
    except InvalidRequest as error:
        raise CompensationError(f"not a compensation: {error}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise CompensationError(f"not a compensation: {type(error).__name__}: {error}") from error
    for which, asked, found in (
        ("from", new_space, compensation.new_space), ("to", old_space, compensation.old_space),
    ):  # fmt: skip
        if asked and asked != found:
            raise CompensationError(f"the compensation maps {which} space {found}, not {asked}")
    return compensation


def _metadata(content: bytes) -> str:
    """The metadata of safetensors bytes: the library only reads it from files, the layout is 8 bytes + JSON."""
    size = int.from_bytes(content[:8], "little")
    header = jsons.parse(content[8 : 8 + size], "header")
    found = header["__metadata__"]["driftline"]
    if not isinstance(found, str):
        raise CompensationError(f"expected metadata as text, found {shown(found)}")
    return found
