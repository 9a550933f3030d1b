"""How a lexical index makes terms of a text, and how much a term counts. What does it is `retrieval.lexical`."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from driftline.core.records import Space
from driftline.core.schema import DefinitionPart

Language = Literal[
    "none", "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "english", "esperanto", "estonian",
    "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian",
    "nepali", "norwegian", "persian", "polish", "portuguese", "romanian", "russian", "serbian", "sesotho", "spanish",
    "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
LANGUAGES: tuple[str, ...] = get_args(Language)
# Of what `retrieval.lexical` makes of a text with the same settings: raised with every change of that, since two ways
# of making terms are two spaces, which are never compared.
VERSION = 1


class Analyzer(DefinitionPart):
    """Words in lower case, stems of a language, without its stop words and without accents; n-grams of what is written
    without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) and of Korean, whose spaces stand between phrases.
    `english` is short for `{language: english}`.

    `k1` and `b` are those of BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009, section 3.4).
    The length that texts are compared with is a setting, and not taken from the collection: so a document's weights
    never depend on when it was written.
    """

    language: Language = Field("english", description="whose stems and stop words; none: words as they are")
    stemming: bool = True
    stop_words: bool = Field(True, description="leave out the language's most frequent words, where it has a list")
    ngrams: int = Field(2, ge=1, le=4, description="characters of an n-gram of what is written without spaces")
    k1: float = Field(1.2, ge=0, le=10, description="how much a term counts more for being there more often")
    b: float = Field(0.75, ge=0, le=1, description="how much long texts are marked down")
    average_length: float = Field(100.0, ge=1, le=1e6, description="terms of a text that is neither short nor long")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"language": given} if isinstance(given, str) else given

    def canonical(self) -> str:
        """All that decides what vectors it makes, as JSON."""
        return f'{{"version":{VERSION},"analyzer":{self.model_dump_json()}}}'

    def space(self) -> Space:
        """The space of its vectors."""
        canonical = self.canonical()
        return Space(
            fingerprint=hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest(),
            encoder=f"words-{self.language}",
            encoder_version=str(VERSION),
            dimension=1,
            normalized=False,
            pooling="bm25",
            query_prefix="",
            document_prefix="",
            max_tokens=1_000_000,
            max_batch=1_000,
            kind="sparse",
            analyzer=canonical,
        )
