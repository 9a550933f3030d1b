"""API keys: who calls, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from driftline.core.settings import AuthSettings

Role = Literal["search", "write", "admin"]
# A role may do what the roles before it may.
_ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Denied(Exception):
    status: int
    detail: str


class Keys:
    """API keys held as digests. `off` lets everybody do everything."""

    def __init__(self, settings: AuthSettings) -> None:
        self._keys: dict[bytes, Role] | None = None
        if settings.mode == "api_key":
            assert settings.keys_file is not None
            self._keys = _read(settings.keys_file)

    def check(self, authorization: str, api_key: str, needed: Role) -> None:
        """Raises Denied. Takes `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
        if self._keys is None:
            return
        given = api_key or authorization.removeprefix("Bearer ").strip()
        if not given:
            raise Denied(401, "give an API key: Authorization: Bearer KEY, or X-API-Key: KEY")
        digest = hashlib.sha256(given.encode()).digest()
        role = next((r for known, r in self._keys.items() if hmac.compare_digest(known, digest)), None)
        if role is None:
            raise Denied(401, "the API key is not known")
        if _ROLES.index(role) < _ROLES.index(needed):
            raise Denied(403, f"the API key has the role {role}; this needs {needed}")


def _read(path: Path) -> dict[bytes, Role]:
    """Lines of `name role key`. Ends the start with one clear line when a line is wrong."""
    keys: dict[bytes, Role] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        print(f"driftline: auth.keys_file {path}: {error.strerror}", file=sys.stderr)
        raise SystemExit(78) from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 3 or parts[1] not in _ROLES or len(parts[2]) < 16:
            print(f"driftline: auth.keys_file {path}, line {number}: expected `name role key`, a role of "
                  f"{', '.join(_ROLES)} and a key of at least 16 characters", file=sys.stderr)  # fmt: skip
            raise SystemExit(78)
        role: Role = next(r for r in _ROLES if r == parts[1])
        keys[hashlib.sha256(parts[2].encode()).digest()] = role
    return keys
