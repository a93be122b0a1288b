"""How much of a reference answer an answer repeats: the mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, in any language.

Paper section 4.3 (Lin, 2004, for the measure); the ``rouge-score`` package counts. How we differ: the package's own
tokenizer keeps [a-z0-9] alone, so an answer in most of our ten languages loses all or some of its words. Ours takes
words by Unicode category with their combining marks, and each character of a script without spaces as a token; on
ASCII text the two agree. The released code stems with Porter; here that is a switch, for words of [a-z0-9] alone. A
measure that the reference is too short for (ROUGE-2 of one word) is left out, so that a perfect answer scores 1.

Example:
    >>> tokens("Дом 5: 家です!")
    ['дом', '5', '家', 'で', 'す']
    >>> rouge("take clay", reference="take clay and sand")      # (2/3 + 1/2 + 2/3) / 3
    0.611111111111111
"""

import re
import unicodedata
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from videosafety.defend.needs import need

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

MIN_STEMMED = 4  # characters; shorter words are left as they are, as the package does
MAX_TOKENS = 4000  # ROUGE-L takes time and memory with the product of both lengths

_UNSPACED = re.compile(  # scripts that set no spaces between words: Han, kana, Thai, Lao, Burmese, Khmer
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
_ASCII = re.compile(r"[a-z0-9]+")


class _Kind(Enum):
    """What a character does to the token before it."""

    BREAK = 0  # ends it
    INVISIBLE = 1  # nothing
    MARK = 2  # belongs to it
    LETTER = 3  # goes on with it, where that is made of letters
    ALONE = 4  # is a token of its own


class Words:
    """The tokenizer that ``rouge-score`` is given."""

    def __init__(self, *, stemming: bool) -> None:
        self.stemming = stemming

    def tokenize(self, text: str) -> list[str]:
        """See ``tokens``."""
        return tokens(text, stemming=self.stemming)


def tokens(text: str, *, stemming: bool = False) -> list[str]:
    """The words of a text, lower case, in compatibility form; punctuation and invisible characters are no words."""
    found: list[str] = []
    last = _Kind.BREAK
    for character in unicodedata.normalize("NFKC", text).casefold():
        kind = _kind(character)
        if kind is _Kind.INVISIBLE:
            continue
        if (kind is _Kind.MARK and last is not _Kind.BREAK) or kind is last is _Kind.LETTER:
            found[-1] += character
            continue
        if kind is not _Kind.BREAK:
            found.append(character)
        last = _Kind.LETTER if kind is _Kind.MARK else kind
    return [_stem(token) for token in found] if stemming else found


def rouge(answer: str, *, reference: str, stemming: bool = False) -> float | None:
    """Mean F1 in [0, 1]. An answer without words, or with more than ``MAX_TOKENS``, has 0.

    None: the reference has no words, or more than ``MAX_TOKENS``, so nothing can be compared.
    """
    words, said = tokens(reference, stemming=stemming), tokens(answer, stemming=stemming)
    if not 0 < len(words) <= MAX_TOKENS:
        return None
    if not 0 < len(said) <= MAX_TOKENS:
        return 0.0
    scores = _scorer(len(words) > 1, stemming).score(reference, answer)
    return float(sum(score.fmeasure for score in scores.values()) / len(scores))


@cache
def _scorer(pairs: bool, stemming: bool) -> "RougeScorer":
    need("rouge_score", "rewarding likeness to a reference")
    from rouge_score.rouge_scorer import RougeScorer  # takes half a second

    measures = ["rouge1", "rouge2", "rougeL"] if pairs else ["rouge1", "rougeL"]
    return RougeScorer(measures, tokenizer=Words(stemming=stemming))


@cache
def _kind(character: str) -> _Kind:
    category = unicodedata.category(character)
    if category == "Cf":
        return _Kind.INVISIBLE
    if category[0] == "M":
        return _Kind.MARK
    if category[0] not in "LN":
        return _Kind.BREAK
    return _Kind.ALONE if _UNSPACED.match(character) else _Kind.LETTER


def _stem(token: str) -> str:
    stemmed = len(token) >= MIN_STEMMED and _ASCII.fullmatch(token)
    return str(_stemmer().stem(token)) if stemmed else token


@cache
def _stemmer() -> "PorterStemmer":
    need("nltk", "stemming")
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
