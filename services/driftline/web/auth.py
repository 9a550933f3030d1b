"""API keys: who calls, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Literal, get_args

from driftline.core.errors import ConfigError, Denied
from driftline.core.settings import AuthSettings

Role = Literal["search", "write", "admin"]
# A role may do what the roles before it may.
_ROLES: tuple[Role, ...] = get_args(Role)
_LEAST_KEY_CHARACTERS = 16


class Keys:
    """API keys held as digests. `off` lets everybody do everything."""

    def __init__(self, settings: AuthSettings) -> None:
        """Raises ConfigError."""
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
    """Lines of `name role key`. Raises ConfigError with the line, never with the key."""
    keys: dict[bytes, Role] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"auth.keys_file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"auth.keys_file {path}: byte {error.start} is not UTF-8") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        role = next((r for r in _ROLES if len(parts) == 3 and r == parts[1]), None)
        if role is None or len(parts[2]) < _LEAST_KEY_CHARACTERS:
            raise ConfigError(
                f"auth.keys_file {path}, line {number}: expected `name role key`, a role of {', '.join(_ROLES)} and a "
                f"key of at least {_LEAST_KEY_CHARACTERS} characters"
            )
        keys[hashlib.sha256(parts[2].encode()).digest()] = role
    if not keys:
        raise ConfigError(f"auth.keys_file {path}: it holds no key, so nobody could call")
    return keys
