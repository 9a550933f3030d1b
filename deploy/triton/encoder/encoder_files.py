"""The files of an encoder entry and the fingerprint of the space they make. Needs only the standard library.

An entry's version folder holds `encoder.json` (how vectors are made), `tokenizer.json`, and `model.onnx` unless the
kind is `hashing`. Used by `driftline models`, which writes entries, and by Triton's model.py, which checks them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# What makes a vector: a change in any of these is another space.
_IDENTITY = (
    "kind", "output", "pooling", "normalized", "dimension", "max_tokens", "query_prefix", "document_prefix",
)  # fmt: skip
_CONTENT = ("model.onnx", "tokenizer.json")


def read_description(folder: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    return description


def fingerprint(folder: Path) -> str:
    """32 hexadecimal digits over the content of the model and tokenizer and over how they are used."""
    description = read_description(folder)
    digest = hashlib.sha256()
    digest.update(json.dumps({name: description[name] for name in _IDENTITY}, sort_keys=True).encode())
    for name in _CONTENT:
        path = folder / name
        digest.update(f"\0{name}\0".encode())
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
