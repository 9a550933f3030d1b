"""The one parser of JSON from outside: strict UTF-8, no NaN or infinity, at most 64 levels deep.

The depth is checked before anything is built. A document of 2 KB that is nested 1,000 deep parses well, and then stops
whatever recurses over it: a repr in an error message once ended a whole service.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from driftline.core.errors import InvalidRequest
from driftline.core.limits import MAX_JSON_DEPTH

_NOT_STRUCTURE = bytes(sorted(set(range(256)) - set(b'[]{}"')))
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1
# Marks that are looked at together, so that 10 MB of brackets take some megabytes more and not ten times as much.
_BLOCK = 1 << 18


def parse(content: bytes | str, where: str = "body") -> Any:
    """What the JSON says. Raises InvalidRequest(400) for `where`: too_deep, invalid_utf8, malformed_json."""
    if isinstance(content, str):
        # A command line may hold bytes that are not UTF-8, as lone surrogates.
        content = content.encode("utf-8", "surrogatepass")
    check_depth(content, where)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            content.decode()
        except UnicodeDecodeError as wrong:
            raise InvalidRequest("invalid_utf8", f"byte {wrong.start} is not valid UTF-8", where, 400) from wrong
        raise InvalidRequest("malformed_json", f"expected JSON: {error}", where, 400) from error


def check_depth(content: bytes, where: str) -> None:
    """Raises InvalidRequest for JSON that is nested too deep."""
    # Nearly everything has fewer brackets in all than it may have levels.
    if content.count(b"[") + content.count(b"{") > MAX_JSON_DEPTH and depth(content) > MAX_JSON_DEPTH:
        raise InvalidRequest("too_deep", f"expected at most {MAX_JSON_DEPTH} levels of nesting", where, 400)


def depth(content: bytes) -> int:
    """Levels of nesting of valid JSON; some number for what is not JSON.

    Without escapes, every quote begins or ends a string; then only quotes and brackets count.
    """
    plain = content.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in content else content
    # Two quotes side by side change nothing for what follows, and most strings hold no brackets.
    marks = plain.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    deepest = level = quotes = 0
    for start in range(0, len(marks), _BLOCK):
        block = np.frombuffer(marks, np.uint8, min(_BLOCK, len(marks) - start), start)
        seen = quotes + np.cumsum(block == ord('"'), dtype=np.int64)
        levels = level + np.cumsum(np.where(seen % 2 == 0, _STEPS[block], 0), dtype=np.int64)
        deepest = max(deepest, int(levels.max()))
        level, quotes = int(levels[-1]), int(seen[-1])
    return deepest
