"""Every key that Driftline writes to Redis.

A key is a letter for its kind and 128 bits of a hash over its parts. The length of a part goes into the hash before the
part does, so no two lists of parts make one key. A key is of bounded length whatever it stands for, and shows nothing
of it: what people search for is personal, and Redis shows its keys to whoever may look into it.
"""

from __future__ import annotations

import hashlib


def document_embedding(space: str, text: str) -> str:
    """Of a chunk of a document with the space's document prefix before it; it is a function of the two alone.

    It is shared by everything that has this text: other collections of the space, and other tenants.
    """
    return _key("e", space, text)


def query_embedding(space: str, text: str) -> str:
    """Of the text of a search with the space's query prefix before it; shared as above.

    Not the kind of documents' embeddings, whose entries would tell a searcher whether some document has this text.
    """
    return _key("q", space, text)


def result(collection_uid: str, tenant: str, search: str, offset: int) -> str:
    """Of a page of an answer: `search` is a digest of all that was asked for, `offset` its first hit."""
    # "r" was of answers in another form, which may still be there while services are replaced.
    return _key("p", collection_uid, tenant, search, str(offset))


def epoch(collection_uid: str) -> str:
    """Of a collection's count of writes. By uid: a collection that is made anew under the name counts from nothing."""
    return _key("w", collection_uid)


def _key(kind: str, *parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return f"{kind}:{digest.hexdigest()}"
