"""Which plan a search runs: its own, a profile of the collection, or the search of one index."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import orjson

from driftline.core.collections import Collection, CollectionDefinition, named
from driftline.core.errors import InvalidRequest
from driftline.core.values import shown
from driftline.query.request import SearchBody
from driftline.query.settings import QuerySection
from driftline.retrieval.plan import DEFAULT_PROFILE, Plan, default_plan, only, parse_plan, profile

_KEPT = 1_000


class Plans:
    """Thread-safe."""

    def __init__(self, settings: QuerySection) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        # By uid and name of the profile: the definition that it was read from, and its plan.
        self._known: OrderedDict[tuple[str, str], tuple[CollectionDefinition, Plan]] = OrderedDict()

    def of(self, collection: Collection, body: SearchBody) -> Plan:
        """Raises InvalidRequest and NotFound."""
        given = [name for name in ("index", "profile", "plan") if getattr(body, name) is not None]
        if len(given) > 1:
            raise InvalidRequest("invalid_search", f"expected at most one of {' and '.join(given)}", given[1])
        if body.plan is not None:
            if not self._settings.adhoc_plans:
                detail = "plans in searches are switched off here (DRIFTLINE_QUERY__ADHOC_PLANS); name a profile"
                raise InvalidRequest("plans_off", detail, "plan", 403)
            return parse_plan(collection.definition, body.plan, "plan")
        if body.index is not None:
            return only(collection.index(body.index).name)
        profiles = collection.definition.profiles
        if body.profile is not None and body.profile not in profiles:
            detail = f"no profile {shown(body.profile)}; there are {named(profiles) or 'none'}"
            raise InvalidRequest("unknown_profile", detail, "profile")
        name = DEFAULT_PROFILE if body.profile is None else body.profile
        return self._profile(collection, name) if name in profiles else default_plan(collection)

    def _profile(self, collection: Collection, name: str) -> Plan:
        """Read once for each definition of a collection."""
        place = (collection.uid, name)
        with self._lock:
            known = self._known.get(place)
        if known is None or known[0] is not collection.definition:
            known = (collection.definition, profile(collection.definition, name))
            with self._lock:
                self._known[place] = known
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known[1]

    @staticmethod
    def digest(plan: Plan) -> str:
        """What tells plans apart in the keys of the cache."""
        content = orjson.dumps([[type(step).__name__, step.model_dump(mode="json")] for step in plan])
        return hashlib.blake2b(content, digest_size=8).hexdigest()
