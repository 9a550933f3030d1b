"""The indexes of a collection: what each finds documents by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from driftline.core.analysis import Analyzer
from driftline.core.limits import MAX_CHUNKS, MAX_FIELDS
from driftline.core.schema import DefinitionPart

# Of the only index of a collection that was defined by `embedding`.
DEFAULT_INDEX = "default"
# Of an entry of Triton's model repository: a folder.
_ENCODER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Chunking(DefinitionPart):
    """`whole` takes a document as one chunk (cut at the encoder's limit); `sentences` as windows of sentences."""

    mode: Literal["whole", "sentences"] = "whole"
    max_tokens: int = Field(
        200, ge=16, le=8_192, description="of a window: the encoder's own tokens, or words for an analyzer"
    )
    overlap_tokens: int = Field(40, ge=0, le=4_096)
    max_chunks: int = Field(256, ge=1, le=MAX_CHUNKS, description="documents that need more are refused")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunking:
        if self.mode == "sentences" and self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


class Index(DefinitionPart):
    """One way of finding a collection's documents: the text of `fields`, joined with a space, as vectors of an
    encoder (dense or sparse, as the encoder's are), or by its words as an analyzer tells them."""

    encoder: str = Field("", description="entry of the model repository")
    analyzer: Analyzer | None = Field(None, description="for a lexical index (BM25), in place of an encoder")
    fields: tuple[str, ...] = Field(min_length=1, max_length=MAX_FIELDS)
    chunking: Chunking = Chunking()

    @model_validator(mode="after")
    def _one_way(self) -> Index:
        if bool(self.encoder) == (self.analyzer is not None):
            raise ValueError("encoder: expected either the name of an encoder, or an analyzer")
        if self.encoder and not _ENCODER.fullmatch(self.encoder):
            raise ValueError("encoder: expected the name of an encoder: up to 128 letters, digits, '_', '-' and '.'")
        return self

    def text_of(self, fields: Mapping[str, Any]) -> str:
        """What of a document is found by this index; empty: it has nothing for it."""
        return " ".join(str(fields[name]) for name in self.fields if fields.get(name))
