"""The models on Triton that live generations need: kept loaded, and unloaded when no collection needs them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from driftline.core.control import ControlView
from driftline.core.errors import NotLoaded, Unavailable
from driftline.core.ports import Embedder
from driftline.core.records import Clock
from driftline.upgrade.state import UpgradeState

log = logging.getLogger(__name__)
# Loading takes seconds, and what cannot be loaded now is not there a second later.
_AGAIN_US = 30_000_000
# Servers come and go, and each is asked.
_LOOK_US = 5_000_000


class Models:
    """Of one thread. Best effort: what cannot be loaded is waited for by whoever needs it, who says so."""

    def __init__(self, view: ControlView, embedder: Embedder, clock: Clock) -> None:
        self._view = view
        self._embedder = embedder
        self._clock = clock
        self._tried_us: dict[str, int] = {}
        self._looked_us: dict[str, int] = {}

    def needed(self, states: Iterable[UpgradeState]) -> set[str]:
        """The encoders of live generations, and those that upgrades go to."""
        found = {state.encoder for state in states if state.encoder and not state.ended}
        for collection in self._view.collections():
            for generation in collection.generations:
                try:
                    space = self._view.space(generation.space)
                except Unavailable:
                    continue
                if not space.analyzer:
                    found.add(space.encoder)
        return found

    def keep(self, states: Iterable[UpgradeState]) -> None:
        """Load what is needed and not loaded on every server: one restarted or joined, or it was unloaded too early."""
        for encoder in sorted(self.needed(states)):
            now = self._clock()
            if now - self._tried_us.get(encoder, -_AGAIN_US) < _AGAIN_US:
                continue
            try:
                self._embedder.describe(encoder)
                loaded = self._everywhere(encoder, now)
            except NotLoaded:
                loaded = False
            except Unavailable:
                return
            if not loaded:
                self._tried_us[encoder] = now
                self._load(encoder)

    def _everywhere(self, encoder: str, now: int) -> bool:
        """Whether every server has it, by what they said in the last seconds."""
        if now - self._looked_us.get(encoder, -_LOOK_US) < _LOOK_US:
            return True
        self._looked_us[encoder] = now
        return self._embedder.loaded_everywhere(encoder)

    def _load(self, encoder: str) -> None:
        try:
            self._embedder.load(encoder)
            log.info("model loaded", extra={"encoder": encoder})
        except Unavailable as error:
            log.warning("model not loaded", extra={"encoder": encoder, "error": str(error)})

    def retire(self, encoder: str, states: Iterable[UpgradeState]) -> str:
        """Unload an encoder unless something needs it; returns what was done, for people."""
        if encoder in self.needed(states):
            return f"{encoder} stays loaded: a collection needs it"
        try:
            self._embedder.unload(encoder)
        except Unavailable as error:
            log.warning("model not unloaded", extra={"encoder": encoder, "error": str(error)})
            return f"{encoder} stays loaded: {error.detail}"
        log.info("model unloaded", extra={"encoder": encoder})
        return f"{encoder} is unloaded"
