"""Which plan a search runs: its own, a profile of the collection, or the search of one index."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from driftline.core.collections import Collection, CollectionDefinition, named
from driftline.core.errors import InvalidRequest
from driftline.core.values import shown
from driftline.query.request import SearchBody
from driftline.query.settings import QuerySection
from driftline.retrieval.plan import Plan, default_plan, indexes_of, only, parse_plan, profile

_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """A plan, the indexes that it searches, and what tells it apart in the keys of the cache."""

    plan: Plan
    indexes: frozenset[str]
    digest: str


class Plans:
    """Thread-safe. What does not come with a search is read once for each definition of a collection."""

    def __init__(self, settings: QuerySection) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        # By uid, kind and name: the collection that it was read from, and the plan.
        self._known: OrderedDict[tuple[str, str, str], tuple[Collection, Chosen]] = OrderedDict()

    def of(self, collection: Collection, body: SearchBody) -> Chosen:
        """Raises InvalidRequest and NotFound."""
        given = [name for name in ("index", "profile", "plan") if getattr(body, name) is not None]
        if len(given) > 1:
            raise InvalidRequest("invalid_search", f"expected at most one of {' and '.join(given)}", given[1])
        if body.plan is not None:
            if not self._settings.adhoc_plans:
                detail = "plans in searches are switched off here (DRIFTLINE_QUERY__ADHOC_PLANS); name a profile"
                raise InvalidRequest("plans_off", detail, "plan", 403)
            return _chosen(parse_plan(collection.definition, body.plan, "plan"))
        if body.index is not None:
            index = body.index
            return self._kept(collection, "index", index, lambda: only(collection.index(index).name))
        if body.profile is not None:
            name = body.profile
            return self._kept(collection, "profile", name, lambda: _profile(collection.definition, name))
        return self._kept(collection, "default", "", lambda: default_plan(collection))

    def _kept(self, collection: Collection, kind: str, name: str, read: Callable[[], Plan]) -> Chosen:
        place = (collection.uid, kind, name)
        with self._lock:
            known = self._known.get(place)
        if known is not None and known[0] is collection:
            return known[1]
        chosen = _chosen(read())
        with self._lock:
            self._known[place] = (collection, chosen)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return chosen


def _profile(definition: CollectionDefinition, name: str) -> Plan:
    if name not in definition.profiles:
        detail = f"no profile {shown(name)}; there are {named(definition.profiles) or 'none'}"
        raise InvalidRequest("unknown_profile", detail, "profile")
    return profile(definition, name)


def _chosen(plan: Plan) -> Chosen:
    content = orjson.dumps([[type(step).__name__, step.model_dump(mode="json")] for step in plan])
    return Chosen(plan, frozenset(indexes_of(plan)), hashlib.blake2b(content, digest_size=8).hexdigest())
