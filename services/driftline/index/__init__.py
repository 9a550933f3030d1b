"""index: consumes `vectors`; writes the vector store; produces `documents` (accepted versions) and `receipts`.

Guarantees: only what is newer than what is stored is applied; a delete outlives late upserts for as long as
`index.tombstone_days`; offsets are committed after the store has acknowledged; every event gets a receipt.
"""
