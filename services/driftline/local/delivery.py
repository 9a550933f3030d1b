"""Encoder entries in an object store, from which every Triton of a cluster loads them (docs/models.md).

An entry is sent so that nobody ever sees a mixture: `space.json` first, created only where there is none, claims the
name for one embedding space; the files follow, each whole or not at all; `config.pbtxt`, without which Triton loads
nothing, is last. What was interrupted is finished by sending it again.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

from driftline.local import models
from driftline.local.models import ModelError

_CLAIM, _CONFIG = "space.json", "config.pbtxt"
# What Triton's own path to an object may hold.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOLD = ("dimension", "max_tokens", "pooling", "normalized")


class Folder(Protocol):
    """What lies below one address of an object store. Methods raise ConfigError and Unavailable."""

    def names(self) -> list[str]:
        """The names of the folders directly below."""
        ...

    def paths(self, folder: str) -> list[str]:
        """Every object below a folder, relative to it."""
        ...

    def read(self, path: str) -> bytes | None:
        """None where there is no such object."""
        ...

    def fetch(self, path: str, into: Path) -> None: ...

    def holds(self, path: str, content: Path) -> bool:
        """Whether the object is there with these bytes. May say False of one that is."""
        ...

    def put(self, path: str, content: Path) -> None:
        """The whole object or nothing."""
        ...

    def create(self, path: str, content: bytes) -> bool:
        """Put it unless there is one already; whether it was put."""
        ...


def push(folder: Folder, repository: Path, name: str) -> dict[str, Any]:
    """Send the entry `repository/name`; its description, read from what is stored then.

    Sending again what is there changes nothing, but for `config.pbtxt` (instances, batches). Raises ModelError: no such
    entry, files that do not make the space that it declares, another space under that name, or other bytes stored.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name!r}: expected letters, digits, '.', '_' and '-', which Triton finds in an object store")
    entry = repository / name
    own = models.read(entry)
    claim = {"fingerprint": own["fingerprint"], **{key: own[key] for key in _TOLD}}
    if not folder.create(f"{name}/{_CLAIM}", json.dumps(claim, indent=2).encode()):
        _refuse_another(folder, name, own["fingerprint"])
    files = [p.relative_to(entry).as_posix() for p in sorted(entry.rglob("*")) if p.is_file()]
    for path in sorted((f for f in files if "__pycache__" not in f), key=lambda f: f == _CONFIG):
        if not folder.holds(f"{name}/{path}", entry / path):
            folder.put(f"{name}/{path}", entry / path)
    with tempfile.TemporaryDirectory(prefix="driftline-pushed-") as scratch:
        return _fetched(folder, name, Path(scratch) / name)


def pull(folder: Folder, repository: Path, name: str) -> dict[str, Any]:
    """Bring an entry into a local model repository; its description. Raises ModelError, as `push` does."""
    if (repository / name).exists():
        own = models.read(repository / name)
        _refuse_another(folder, name, own["fingerprint"])
        return own
    repository.mkdir(parents=True, exist_ok=True)
    # In the same file system, and into place by one rename: a server never sees half of an entry.
    with tempfile.TemporaryDirectory(prefix=".pulled-", dir=repository) as scratch:
        description = _fetched(folder, name, Path(scratch) / name)
        (Path(scratch) / name).rename(repository / name)
    return description


def describe(folder: Folder) -> list[dict[str, Any]]:
    """Every entry, by what it says of itself; `problem` where one was not sent to its end."""
    found = []
    for name in folder.names():
        claim = folder.read(f"{name}/{_CLAIM}")
        if claim is None:
            continue
        description = {"name": name, **dict.fromkeys(("fingerprint", *_TOLD), ""), **_parsed(name, claim)}
        if folder.read(f"{name}/{_CONFIG}") is None:
            description["problem"] = "incomplete: push it again"
        found.append(description)
    return found


def _refuse_another(folder: Folder, name: str, fingerprint: str) -> None:
    stored = _parsed(name, folder.read(f"{name}/{_CLAIM}") or b"{}").get("fingerprint")
    if stored != fingerprint:
        raise ModelError(
            f"{name} is there with embedding space {stored}, and yours makes {fingerprint}: "
            "a changed model needs a new name"
        )


def _parsed(name: str, claim: bytes) -> dict[str, Any]:
    try:
        found = json.loads(claim)
    except ValueError as error:
        raise ModelError(f"{name}/{_CLAIM} in the object store is not JSON: delete {name} there") from error
    if not isinstance(found, dict):
        raise ModelError(f"{name}/{_CLAIM} in the object store is no object: delete {name} there")
    return found


def _fetched(folder: Folder, name: str, entry: Path) -> dict[str, Any]:
    """The stored entry as files at `entry`, whose bytes make the space that it declares."""
    paths = [p for p in folder.paths(name) if p != _CLAIM]
    if _CONFIG not in paths:
        raise ModelError(f"there is no complete entry {name}: push it first")
    for path in paths:
        target = entry / path
        if entry.resolve() not in target.resolve().parents:
            raise ModelError(f"the object {name}/{path} would be written outside its entry")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.fetch(f"{name}/{path}", target)
    try:
        description = models.read(entry)
    except ModelError as error:
        raise ModelError(
            f"the object store holds other bytes than were sent as {name}: delete the entry, and push it again"
        ) from error
    _refuse_another(folder, name, description["fingerprint"])
    return description
