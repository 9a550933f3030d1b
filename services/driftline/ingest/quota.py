"""How fast one tenant of a shared collection may write through the API.

encode lets who sends a little go before who floods, but it has to read the flood to know it, some thousand records a
second on a busy core. A tenant that sent 50,000 documents in three seconds held everybody up for nine; at a pace that
encode reads with ease, nobody notices it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from driftline.core.records import ChangeEvent

# Beyond its pace by so much, a tenant that writes one by one is asked to come back later.
_AHEAD_SECONDS = 1.0
_REMEMBERED = 10_000


class Quotas:
    """Thread-safe. Collections without tenancy belong to one producer, and have no quota."""

    def __init__(self, documents_per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """0 switches quotas off."""
        self._rate = documents_per_second
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # When what each tenant has sent so far will have been its share of the time; of those that are ahead only.
        self._due: dict[tuple[str, str], float] = {}

    def charge(self, events: Sequence[ChangeEvent]) -> None:
        """These were accepted."""
        if not self._rate:
            return
        now = self._monotonic()
        counts = Counter((event.collection_uid, event.tenant) for event in events if event.tenant)
        with self._lock:
            if len(self._due) > _REMEMBERED:
                self._due = {tenant: due for tenant, due in self._due.items() if due > now}
            for tenant, count in counts.items():
                self._due[tenant] = max(now, self._due.get(tenant, now)) + count / self._rate

    def ahead_seconds(self, events: Sequence[ChangeEvent]) -> float:
        """How long the tenants of these events would have to rest to be back at their pace, beyond what is let pass."""
        tenants = {(event.collection_uid, event.tenant) for event in events if event.tenant}
        with self._lock:
            latest = max((self._due.get(tenant, 0.0) for tenant in tenants), default=0.0)
        return max(0.0, latest - self._monotonic() - _AHEAD_SECONDS)
