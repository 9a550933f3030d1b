"""Plans: how a search finds and ranks, as a list of steps.

A plan stands in a request, or under a name, as a profile, in the definition of a collection. Its first step searches;
each further one takes what the step before it found. A new step is a file with a class, and a line in `STEPS`.
"""

from __future__ import annotations

from typing import Any

from driftline.core.collections import Collection, CollectionDefinition, named
from driftline.core.errors import InvalidRequest
from driftline.core.limits import MAX_STEPS
from driftline.core.schema import validated
from driftline.core.values import shown
from driftline.retrieval.plan.run import Step
from driftline.retrieval.plan.search import IndexSearch, SearchStep

STEPS: dict[str, type[Step]] = {"search": SearchStep}

# The profile of searches that name none.
DEFAULT_PROFILE = "default"

Plan = tuple[Step, ...]


def parse_plan(definition: CollectionDefinition, raw: Any, where: str) -> Plan:
    """The steps of a plan, checked against the definition. Raises InvalidRequest naming the place."""
    plan = _parse(raw, where)
    for i, step in enumerate(plan):
        step.check(definition, f"{where}[{i}].{_kind_of(step)}")
    return plan


def _kind_of(step: Step) -> str:
    return next(kind for kind, known in STEPS.items() if type(step) is known)


def _parse(raw: Any, where: str) -> Plan:
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_STEPS:
        raise InvalidRequest("invalid_plan", f"expected a list of 1 to {MAX_STEPS} steps, found {shown(raw)}", where)
    plan = tuple(_step(step, f"{where}[{i}]") for i, step in enumerate(raw))
    for i, step in enumerate(plan):
        if isinstance(step, SearchStep) != (i == 0):
            raise InvalidRequest("invalid_plan", "expected `search` as the first step, and only there", f"{where}[{i}]")
    return plan


def _step(raw: Any, where: str) -> Step:
    if not isinstance(raw, dict) or len(raw) != 1:
        raise InvalidRequest("invalid_plan", f"expected an object with one key, one of {named(STEPS)}", where)
    ((kind, content),) = raw.items()
    if kind not in STEPS:
        raise InvalidRequest("invalid_plan", f"no step {shown(kind)}; there are {named(STEPS)}", where)
    return validated(STEPS[kind], content, "invalid_plan", f"{where}.{kind}")


def check_profiles(definition: CollectionDefinition) -> None:
    """Raises InvalidRequest for a profile that is no plan, or does not fit the definition."""
    for name, raw in definition.profiles.items():
        parse_plan(definition, raw, f"profiles.{name}")


def profile(definition: CollectionDefinition, name: str) -> Plan:
    """A profile of a definition that was checked. An index that it uses may not be there yet, or any more."""
    return _parse(definition.profiles[name], f"profiles.{name}")


def default_plan(collection: Collection) -> Plan:
    """What a search runs that names nothing: the profile `default`, or the search of the first index."""
    if DEFAULT_PROFILE in collection.definition.profiles:
        return profile(collection.definition, DEFAULT_PROFILE)
    return only(collection.primary.name)


def indexes_of(plan: Plan) -> set[str]:
    """The indexes that a plan searches."""
    return {part.index for step in plan if isinstance(step, SearchStep) for part in step.of}


def only(index: str) -> Plan:
    """The plan that searches one index."""
    return (SearchStep(of=(IndexSearch(index=index),)),)
