"""The state of an upgrade, and what a collection must look like in it. Pure.

registered -> sampling -> fitted -> serving -> backfilling -> complete -> finished, and from every one of them but the
last: rolled_back. `failed` is a rollback that nobody asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from driftline.core import jsons
from driftline.core.collections import Collection
from driftline.core.errors import InvalidRequest
from driftline.core.indexes import DEFAULT_INDEX, Index
from driftline.core.records import Carry, Generation, Leg, UpgradeRecord

Phase = Literal[
    "registered", "sampling", "fitted", "serving", "backfilling", "complete", "finished", "rolled_back", "failed"
]
ENDED: tuple[Phase, ...] = ("finished", "rolled_back", "failed")
Decision = Literal["", "map", "ensemble", "status_quo", "wait"]
# Points of the curve that are kept: the record stays far under a broker's limit.
_CURVE_POINTS = 200


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ShadowQuery(_Model):
    """A query whose answers are known, by id with their grades. No map is fitted on these documents.

    Either a person judged it, or it was made from the one document that it must find again.
    """

    tenant: str = Field("", max_length=128)
    text: str = Field(min_length=1, max_length=2_000)
    relevant: dict[str, float] = Field(min_length=1, max_length=100)


class Estimate(_Model):
    """nDCG@10 of the shadow queries at one moment, and served minus status quo with its 95 % interval."""

    at_us: int
    fraction: float
    queries: int
    served: float
    status_quo: float
    new_only: float | None = None
    difference: tuple[float, float, float]


class Drift(_Model):
    """How far today is from the fit sample; `documents` counts what was looked at. `overlap` is the share of the old
    encoder's ten best hits in the old generation that the carried-over shadow queries find there too."""

    documents: int
    residual: float
    residual_of_fit: float
    shift: float
    overlap: float | None = None

    @property
    def drifted(self) -> bool:
        """The residual is half as large again as it was on held-out pairs, and more than noise."""
        return self.residual > 1.5 * self.residual_of_fit + 0.02


class Progress(_Model):
    """Documents of the older generation, and how many of them the new one holds in the same version."""

    total: int = 0
    done: int = 0
    requested: int = 0
    refused: int = 0
    per_second: float = 0.0
    passes: int = 0


class UpgradeState(_Model):
    id: str
    collection: str
    collection_uid: str
    phase: Phase
    paused: bool = False
    index: str = DEFAULT_INDEX
    added: Index | None = Field(
        None, description="the definition of an index that is added; it has no older generation"
    )
    encoder: str
    old: int
    new: int
    new_space: str
    store: str
    margin: float
    pairs: int
    per_second: float = 0.0
    decision: Decision = ""
    reason: str = ""
    compensation: str = ""
    fallback: str = Field("", description="why the status quo is served although the upgrade goes on; empty: it is not")
    fit: dict[str, Any] = Field(default_factory=dict)
    shadow: tuple[ShadowQuery, ...] = ()
    judged: bool = Field(False, description="the shadow queries were given with judgements; else made from documents")
    progress: Progress = Progress()
    curve: tuple[Estimate, ...] = ()
    drift: Drift | None = Field(None, description="how far what is written now is from what the map was fitted on")
    refits: int = 0
    encoded: int = Field(0, description="texts that the upgrade itself had encoded, the backfill left out")
    entered_us: dict[str, int] = Field(default_factory=dict)
    old_model: str = Field("", description="what became of the older model after the end")

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def aim(self) -> str:
        """What it is for, in words."""
        if self.added is not None:
            return f"index {self.index} is added"
        return f"to {self.encoder}" if self.index == DEFAULT_INDEX else f"index {self.index} to {self.encoder}"

    def into(self, phase: Phase, at_us: int, **changes: Any) -> UpgradeState:
        return self.model_copy(
            update={"phase": phase, "entered_us": {**self.entered_us, phase: at_us}, **changes}
        )  # fmt: skip

    def with_estimate(self, estimate: Estimate) -> UpgradeState:
        """Keeps the first and the last points, and thins out between them; with the fallback that it calls for.

        That begins where the whole interval is under the floor, and ends where the mean is not: between the two
        nothing changes, so noise does not switch it on and off.
        """
        curve = (*self.curve, estimate)
        if len(curve) > _CURVE_POINTS:
            curve = (*curve[:-20:2], *curve[-20:])
        mean, low, high = estimate.difference
        floor = -self.margin * estimate.status_quo
        fallback = "" if mean >= floor else self.fallback
        if high < floor:
            fallback = (
                f"at {mean:+.4f} [{low:+.4f}, {high:+.4f}] of the status quo on {estimate.queries} shadow queries, "
                f"wholly below {floor:.4f}"
            )
        return self.model_copy(update={"curve": curve, "fallback": fallback})

    def record(self) -> UpgradeRecord:
        return UpgradeRecord(self.collection, self.collection_uid, self.model_dump_json())


def read_state(record: UpgradeRecord) -> UpgradeState:
    """Raises ValueError for a state that this version cannot read."""
    try:
        return UpgradeState.model_validate(jsons.parse(record.state_json, "state_json"))
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def route(state: UpgradeState) -> tuple[Leg, ...]:
    """What searches read in this state. The last leg's generation holds every document."""
    if state.ended or state.added:
        return ()
    if state.fallback or state.phase not in ("serving", "backfilling", "complete"):
        return (Leg(state.old),)
    return planned_route(state)


def planned_route(state: UpgradeState) -> tuple[Leg, ...]:
    """What searches would read if there were no fallback."""
    if state.phase == "complete":
        return (Leg(state.new),)
    carry = {"map": Carry.MAPPED, "ensemble": Carry.ENSEMBLE, "status_quo": Carry.OWN}.get(state.decision)
    if carry is None:
        # Nothing could be fitted, so nothing can be merged: the old generation answers until the new one can alone.
        return (Leg(state.old),)
    return (Leg(state.new), Leg(state.old, carry, state.compensation))


def new_generation(state: UpgradeState) -> Generation:
    return Generation(state.new, state.index, state.new_space, state.store)


def _with_added(state: UpgradeState, index: Index, collection: Collection) -> Collection:
    fresh, name = new_generation(state), state.index
    indexes = {n: i for n, i in collection.definition.named_indexes.items() if n != name}
    generations = tuple(g for g in collection.generations if g != fresh)
    retired = tuple(g for g in collection.retired if g != fresh)
    unfinished = tuple(n for n in collection.unfinished if n != name)
    if state.phase in ("rolled_back", "failed"):
        retired = (*retired, fresh)
    elif state.phase == "registered" or fresh in collection.retired:
        # Not before its store is there; and one that was removed meanwhile stays so.
        return collection
    else:
        indexes, generations = indexes | {name: index}, (*generations, fresh)
        unfinished = unfinished if state.phase == "finished" else (*unfinished, name)
    known = dict(collection.definition.named_indexes)
    return replace(
        collection,
        definition=collection.definition if known == indexes else collection.definition.with_indexes(indexes),
        generations=generations,
        retired=retired,
        unfinished=unfinished,
        next_generation=max(collection.unused_number, state.new + 1),
    )


def wanted(state: UpgradeState, collection: Collection) -> Collection:
    """The collection as it must be in this state, other indexes as they are. What is as it must be comes back equal."""
    if state.added is not None:
        return _with_added(state, state.added, collection)
    fresh = new_generation(state)
    live = {g.number: g for g in collection.generations}
    gone = {g.number: g for g in collection.retired}
    if state.phase in ("rolled_back", "failed"):
        live.pop(state.new, None)
        gone[state.new] = fresh
    elif state.phase == "finished":
        if state.old in live and state.new in live:
            gone[state.old] = live.pop(state.old)
    elif state.phase != "registered":
        # Not before its store is there: changes would wait for it while Milvus makes it, which takes seconds.
        live[state.new] = fresh
    ours = {g.number for g in (*collection.index(state.index).generations, fresh)}
    return replace(
        collection,
        generations=tuple(live[n] for n in sorted(live)),
        retired=tuple(gone[n] for n in sorted(gone)),
        legs=(*(leg for leg in collection.legs if leg.generation not in ours), *route(state)),
        next_generation=max(collection.unused_number, state.new + 1),
    )
