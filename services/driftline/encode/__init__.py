"""encode: consumes `changes`, produces `vectors`.

Guarantees: exactly one VectorRecord per change event, in the order of its partition; a text that fails takes
only its own document with it; an unreachable Triton pauses the partitions and loses nothing.
"""
