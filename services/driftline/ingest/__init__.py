"""ingest: HTTP and gRPC in, and sources; produces `changes`; keeps the collections in `control`.

Guarantees: answers "accepted" only when Kafka has the event on all in-sync replicas; refuses what does not fit
the collection, naming the field; over its bound answers 429 and has taken nothing.
"""
