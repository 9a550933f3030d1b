"""Splitting a text into the chunks that are embedded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from driftline.core.errors import InvalidRecord
from driftline.core.indexes import Chunking
from driftline.core.limits import MAX_CHUNK_BYTES

Span = tuple[int, int]
# Character spans of a text's tokens, special tokens left out, in order.
TokenSpans = Callable[[str], Sequence[Span]]

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n{2,}")
_WORD = re.compile(r"\w+")
# [CLS] and [SEP] of the BERT family: room every window leaves for the encoder's own tokens.
SPECIAL_TOKENS = 2


def word_spans(text: str) -> list[Span]:
    """Words, where what takes the text has no tokens of its own."""
    return [match.span() for match in _WORD.finditer(text)]


def sentence_spans(text: str) -> list[Span]:
    """Character spans of the sentences, outer white space left out."""
    spans: list[Span] = []
    start = 0
    for match in [*_SENTENCE_END.finditer(text), None]:
        end = match.start() if match else len(text)
        piece = text[start:end]
        if stripped := piece.strip():
            begin = start + piece.index(stripped[0])
            spans.append((begin, begin + len(stripped)))
        start = match.end() if match else end
    return spans


def _pieces(text: str, limit: int, token_spans: TokenSpans) -> list[tuple[Span, int]]:
    """Sentences as (span, tokens); one that is longer than the limit is cut between tokens."""
    pieces: list[tuple[Span, int]] = []
    for start, end in sentence_spans(text):
        tokens = token_spans(text[start:end])
        for first in range(0, max(1, len(tokens)), limit):
            group = tokens[first : first + limit]
            if len(tokens) <= limit or not group:
                pieces.append(((start, end), len(tokens)))
            else:
                pieces.append(((start + group[0][0], start + group[-1][1]), len(group)))
    return pieces


def windows(text: str, chunking: Chunking, encoder_tokens: int, token_spans: TokenSpans) -> list[str]:
    """Windows of whole sentences of at most `max_tokens`, each beginning with up to `overlap_tokens` of the last."""
    limit = max(1, min(chunking.max_tokens, encoder_tokens) - SPECIAL_TOKENS)
    pieces = _pieces(text, limit, token_spans)
    chunks: list[str] = []
    first = 0
    while first < len(pieces):
        last, total = first, 0
        while last < len(pieces) and total + pieces[last][1] <= limit:
            total += pieces[last][1]
            last += 1
        last = max(last, first + 1)
        chunks.append(text[pieces[first][0][0] : pieces[last - 1][0][1]])
        if last >= len(pieces):
            break
        following = last
        kept = 0
        # Going back must leave room for the next sentence, or the window would not move.
        while following - 1 > first:
            back = kept + pieces[following - 1][1]
            if back > chunking.overlap_tokens or back + pieces[last][1] > limit:
                break
            kept = back
            following -= 1
        first = following
    return chunks


def chunk(text: str, chunking: Chunking, encoder_tokens: int, token_spans: TokenSpans) -> list[str]:
    """The chunks of a text, at least one. Raises InvalidRecord when it needs more than `max_chunks`."""
    chunks = [text] if chunking.mode == "whole" else windows(text, chunking, encoder_tokens, token_spans) or [text]
    if len(chunks) > chunking.max_chunks:
        raise InvalidRecord(
            "too_many_chunks", f"the text needs {len(chunks)} chunks, the limit is {chunking.max_chunks}"
        )
    return [c.encode()[:MAX_CHUNK_BYTES].decode(errors="ignore") for c in chunks]
