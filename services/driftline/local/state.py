"""What is known of a local system between commands: one JSON file in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from driftline.local.processes import Process


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a part was started again by the supervisor, when last (seconds since 1970), and why."""

    count: int
    at: float
    why: str


@dataclass(slots=True)
class State:
    """The parts that were started, where they answer, and what came of them."""

    processes: list[Process] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    restarts: dict[str, Restarts] = field(default_factory=dict)
    supervisor: Process | None = None

    def keep(self, process: Process) -> None:
        """Put a process in the place of the one with its name."""
        self.processes = [p for p in self.processes if p.name != process.name] + [process]


def path_of(home: Path) -> Path:
    return home / "state.json"


def load(home: Path) -> State:
    """An empty state where there is no file."""
    path = path_of(home)
    if not path.exists():
        return State()
    found = json.loads(path.read_text(encoding="utf-8"))
    supervisor = found.get("supervisor")
    return State(
        [Process(**p) for p in found["processes"]],
        found["addresses"],
        found["env"],
        found["notes"],
        {name: Restarts(**r) for name, r in found.get("restarts", {}).items()},
        Process(**supervisor) if supervisor else None,
    )


def save(home: Path, state: State) -> None:
    """Into place by one rename, so that a reader never sees half of it."""
    home.mkdir(parents=True, exist_ok=True)
    part = home / "state.json.part"
    part.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    part.rename(path_of(home))
