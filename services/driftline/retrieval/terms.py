"""From texts to terms: words, stems, n-grams, and the 32 bits that stand for each."""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from functools import cache
from importlib import resources

import Stemmer

from driftline.core.analysis import Analyzer

# Letters and digits, with an apostrophe inside: a stemmer knows what to make of "don't" and "house's".
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
# What is written without spaces: Thai and Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f]+"
)
# Of a term: longer ones are encoded data, and nobody types them.
_LONGEST = 64
# Words whose terms are remembered: natural language has some hundred thousand.
_REMEMBERED = 200_000


@cache
def stop_words(language: str) -> frozenset[str]:
    """Those of a language; none where there is no list of it."""
    file = resources.files("driftline.retrieval") / "stopwords" / f"{language}.txt"
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


def term_of(word: str) -> int:
    """32 bits of a hash of a term. In a text of 1,000 terms two fall together with a probability of 1 in 8,600."""
    return int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=4).digest(), "little")


def without_accents(word: str) -> str:
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


class Terms:
    """What an analyzer makes of texts. Thread-safe."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._ngrams = analyzer.ngrams
        self._stop = stop_words(analyzer.language) if analyzer.stop_words else frozenset()
        self._language = analyzer.language if analyzer.stemming and analyzer.language != "none" else ""
        # A stemmer has a buffer of its own.
        self._local = threading.local()
        self._known: dict[str, tuple[int, ...]] = {}

    def of(self, text: str) -> list[int]:
        """The terms of a text, in order, each as often as it is there."""
        found: list[int] = []
        known = self._known
        for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
            terms = known.get(word)
            if terms is None:
                terms = self._terms(word[:_LONGEST] if not _UNSPACED.search(word) else word)
                if len(word) <= _LONGEST:
                    if len(known) >= _REMEMBERED:
                        known.clear()
                    known[word] = terms
            found += terms
        return found

    def _terms(self, word: str) -> tuple[int, ...]:
        if not _UNSPACED.search(word):
            return self._word(word)
        terms: list[int] = []
        end = 0
        for run in _UNSPACED.finditer(word):
            terms += self._word(word[end : run.start()][:_LONGEST]) + self._grams(run[0])
            end = run.end()
        return (*terms, *self._word(word[end:][:_LONGEST]))

    def _word(self, word: str) -> tuple[int, ...]:
        word = word.replace("\u2019", "'")
        if not word or word in self._stop:
            return ()
        if self._language:
            word = self._stemmer().stemWord(word)
        return (term_of(without_accents(word)),)

    def _grams(self, run: str) -> tuple[int, ...]:
        """Those of a run of characters; the run itself where it is shorter than one."""
        size = self._ngrams
        return tuple(term_of(run[i : i + size]) for i in range(max(1, len(run) - size + 1)))

    def _stemmer(self) -> Stemmer.Stemmer:
        found: Stemmer.Stemmer | None = getattr(self._local, "stemmer", None)
        if found is None:
            found = self._local.stemmer = Stemmer.Stemmer(self._language)
        return found
