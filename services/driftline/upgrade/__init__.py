"""upgrade: changing a collection's embedding model while it runs.

Consumes control (and is led by whoever owns its one partition); produces control and backfill. Guarantees: the older
generation stays complete until `finish`, so that going back is one control record; every step can be done twice;
what is served never stays below the status quo by more than the margin once the shadow queries show it.
"""
