"""query: HTTP and gRPC search over the collections.

Guarantees: vectors of another space than the collection's are refused; a cached answer is never older than the
last write its process or Redis knows of; Redis down never fails a request.
"""
