"""Everything that reads what others wrote, and how one input is tried."""

from __future__ import annotations

import re

from tests.fuzz import api, files, lexical, records
from tests.fuzz.target import Target, check_told

TARGETS: tuple[Target, ...] = (*api.TARGETS, *records.TARGETS, *files.TARGETS, *lexical.TARGETS)
BY_NAME = {target.name: target for target in TARGETS}
# Of the places that errors name, the words that are ours: what a caller called a field is not another way to end.
_WORDS = re.compile(
    "body|line|fields?|id|version|tenant|operation|filter|and|or|not|eq|in|contains|text|vector|values|document|cursor|"
    "limit|offset|after|embedding|indexes|analyzer|profiles|plan|chunking|type|name|queries|title|kind|year|price|sold|seen|tags|codes"
)


def check(name: str, content: bytes) -> str:
    """Run one input; a word for how it ended. Raises what is not documented, as it came."""
    target = BY_NAME[name]
    try:
        return target.run(content)
    except target.documented as error:
        check_told(error)
        place = ".".join(sorted(set(_WORDS.findall(getattr(error, "field", "")))))
        return f"{type(error).__name__} {getattr(error, 'code', getattr(error, 'reason', ''))} {place}"
