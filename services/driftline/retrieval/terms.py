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
from driftline.core.vectors import MAX_TERM

# A chunk has at most 65,000 bytes, so 32,500 words and fewer n-grams. What callers outside the pipeline send may have
# more, and is read up to here.
MAX_TOKENS = 65_535
# Of a word: a longer one is encoded data, and is cut into several.
_LONGEST = 64
# Words whose terms are remembered: some 8 MB. All of SciFact, 5,183 abstracts, has 36,162.
_KNOWN_WORDS = 65_536
# In place of a term, for a word that gives none.
_NO_TERM = -1

# Combining marks are parts of words in most scripts of India and South East Asia; `\w` leaves them out. They lie in
# these ranges, which are looked through at import in 2 ms. Those beyond U+FFFF, of scripts that are rarely written, are
# left out: with them `re` searches a list and not a table, and takes 260 us for an abstract instead of 43.
_MARK_RANGES = ((0x0300, 0x2000), (0x3099, 0x309B), (0xA66F, 0xAC00))
_MARKS = "".join(
    chr(code) for first, end in _MARK_RANGES for code in range(first, end) if unicodedata.category(chr(code))[0] == "M"
)
# Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Han, kana, bopomofo; and Korean, whose
# spaces stand between phrases. Digits and punctuation are left out.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u1000-\u103f\u1050-\u108f\u109a-\u109d\u1100-\u11ff"
    "\u1780-\u17d3\u17d7\u17dc\u17dd\u3005-\u3007\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
# Soft hyphens, joiners and variation selectors: they change how a word looks, not which word it is.
_INVISIBLE = re.compile("[\u00ad\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
# "don't", "it's", "they're": one word in English. Elsewhere an apostrophe parts words, as in "l'eau".
_CONTRACTION = r"(?:'[A-Za-z]{1,2}\b)?"
# Letters that Unicode does not take apart into a letter and an accent.
_UNLIKE = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ı": "i"}


def term_of(word: str) -> int:
    """The number that stands for a term everywhere: 32 bits of BLAKE2b, the same in every process and version.

    Two terms may have the same number, and then are one. Among a million different terms some 116 pairs do, and the
    chance that a given term shares its number with any of a million others is 0.023 %.
    """
    digest = hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=4).digest()
    return min(int.from_bytes(digest, "little"), MAX_TERM)


@cache
def stop_words(language: str) -> frozenset[str]:
    """Those of a language; none where there is no list of it."""
    file = resources.files("driftline.retrieval") / "stopwords" / f"{language}.txt"
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


class Terms:
    """What an analyzer makes of texts. Thread-safe."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._ngrams = analyzer.ngrams
        self._turkish = analyzer.language == "turkish"
        self._stop = stop_words(analyzer.language) if analyzer.stop_words else frozenset()
        stems = analyzer.stemming and analyzer.language != "none"
        # 0: it remembers no stems, since whole terms are remembered here.
        self._stemmer = Stemmer.Stemmer(analyzer.language, 0) if stems else None
        # A stemmer has room for one word.
        self._one_at_a_time = threading.Lock()
        contraction = _CONTRACTION if analyzer.language == "english" else ""
        self._ascii_words = re.compile(f"[a-z0-9]{{1,{_LONGEST}}}{contraction}")
        self._words = re.compile(rf"[{_UNSPACED}]+|[\w{_MARKS}]{{1,{_LONGEST}}}{contraction}")
        self._known: dict[str, int] = {}

    def of(self, text: str) -> list[int]:
        """The terms of a text, in order, each as often as it is there."""
        known, found = self._known, []
        for word in self._tokens(text):
            term = known.get(word)
            if term is None:
                if len(known) >= _KNOWN_WORDS:
                    known.clear()  # cheaper than keeping an order at every look
                term = known[word] = self._number(word)
            if term != _NO_TERM:
                found.append(term)
        return found

    def _tokens(self, text: str) -> list[str]:
        if self._turkish:
            text = text.replace("İ", "i").replace("I", "ı")
        text = text.replace("_", " ")
        if text.isascii():
            return self._ascii_words.findall(text.lower())[:MAX_TOKENS]
        # Some characters become a "_" by this.
        text = unicodedata.normalize("NFKC", text).replace("_", " ").lower()
        text = _INVISIBLE.sub("", text).replace("\u2019", "'")
        # With spaces around runs, a word cannot go on into one.
        return self._with_ngrams(self._words.findall(_RUN.sub(r" \g<0> ", text)))

    def _with_ngrams(self, words: list[str]) -> list[str]:
        size, tokens = self._ngrams, []
        for word in words:
            if not _RUN.match(word):
                tokens.append(word)
            elif len(tokens) < MAX_TOKENS:
                last = min(len(word) - size, MAX_TOKENS)
                tokens.extend(word[at : at + size] for at in range(max(1, last + 1)))
        return tokens[:MAX_TOKENS]

    def _number(self, word: str) -> int:
        if word in self._stop:
            return _NO_TERM
        term = word
        if self._stemmer is not None:
            with self._one_at_a_time:
                term = self._stemmer.stemWord(word)
        term = term if term.isascii() else _without_accents(term)
        return term_of(term) if term else _NO_TERM


def _without_accents(term: str) -> str:
    kept: list[str] = []
    folds = False
    for character in unicodedata.normalize("NFD", term):
        if "\u0300" <= character <= "\u036f":
            if folds:
                continue
        else:
            # Latin and Greek. An accent makes another letter of a Cyrillic one, and a vowel of most Indian ones.
            folds = character < "\u0250" or "\u0370" <= character < "\u0400"
        kept.append(_UNLIKE.get(character, character))
    return unicodedata.normalize("NFC", "".join(kept))
