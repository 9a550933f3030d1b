"""Finding documents: the engine over a collection's generations, and the parts of it that know no server.

What the engine needs of the world comes through the ports of `core`; chunking, filters and measures are pure.
"""
