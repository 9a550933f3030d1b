"""What people search for, from the `queries` log: those documents are re-embedded first."""

from __future__ import annotations

import logging
import math
from collections import Counter

from driftline.core import codec
from driftline.core.errors import InvalidRecord, Unavailable
from driftline.core.follow import read_to_end
from driftline.core.ports import LogReader
from driftline.core.records import document_key
from driftline.core.topics import QUERIES

log = logging.getLogger(__name__)
_READ = 200_000
_KEPT = 50_000


def most_wanted(reader: LogReader, collection_uid: str) -> list[str]:
    """Keys of the collection's documents that searches found, the most wanted first, at most 50,000.

    A hit counts 1 / log2(rank + 1), as in nDCG; the last 200,000 searches count. Empty without a log.
    """
    weights: Counter[str] = Counter()
    try:
        for record in read_to_end(reader, QUERIES.name, last=_READ):
            _count(weights, record.value, collection_uid)
            if len(weights) > 4 * _KEPT:
                weights = Counter(dict(weights.most_common(_KEPT)))
    except Unavailable as error:
        log.warning("the log of searches cannot be read", extra={"error": str(error)})
    return [key for key, _ in weights.most_common(_KEPT)]


def _count(weights: Counter[str], value: bytes | None, collection_uid: str) -> None:
    try:
        query = codec.decode_query(value)
    except InvalidRecord as error:
        log.warning("unreadable searched query", extra={"error": str(error)})
        return
    if query.collection_uid == collection_uid:
        for rank, hit in enumerate(query.hits):
            weights[document_key(query.tenant, hit)] += round(1_000 / math.log2(rank + 2))
