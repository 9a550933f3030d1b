"""Continue training an encoder on new pairs, so that it stays near to the one it comes from (extra `train`).

Reads a Hugging Face style folder and pairs, writes a folder of the same kind, which `driftline models add` makes an
encoder of: a new space, to which `driftline upgrade` carries a collection.
"""
