"""How diverse and how natural a set of texts is: queries, or thinking responses.

Three figures, each in [0, 1], none of which a single template can pass:

    distinct_n      different n-grams among all n-grams (Li et al. 2016, arXiv 1510.03055); 1: nothing is said twice
    self_bleu       mean BLEU-4 of a text against all others (Zhu et al. 2018, arXiv 1802.01886); 1: all are copies
    template_share  the share of the texts that the most frequent template has; 1: one template made them all

and three of how they are made: the share in the declared language, by a detector that is given; the share that ends as
a sentence does; the lengths. Tokens are words, and single characters in Chinese and Japanese.

Self-BLEU against all others takes one pass, not a pass for each pair: of an n-gram only the two highest counts matter,
the highest and, for the text that has it, the next. It is equal to BLEU against the list of the others (uniform
weights, closest reference length, add-one smoothing of the orders above 1 as in Lin and Och 2004).

Example:
    >>> round(distinct_n([["a", "b", "a", "b"]], 2), 2)
    0.67
    >>> self_bleu([["how", "are", "you", "now"], ["how", "are", "you", "now"]])
    1.0
"""

import math
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import Field

from videosafety.core.records import Language, Record

ORDERS = (1, 2, 3, 4)
UNSPACED = ("zh", "ja")
ENDS = frozenset(".?!。？！؟।…:：\"”»」')）")
Tokens = Sequence[str]
Detector = Callable[[str], str | None]


class Diversity(Record):
    """Figures of a set of texts. ``in_language`` is None without a detector, a figure of n-grams without any n-gram."""

    count: int
    different: int
    distinct_1: float | None = Field(ge=0, le=1)
    distinct_2: float | None = Field(ge=0, le=1)
    self_bleu: float | None = Field(ge=0, le=1)
    template_share: float = Field(ge=0, le=1)
    templates: int
    ends_as_sentence: float = Field(ge=0, le=1)
    in_language: float | None = Field(default=None, ge=0, le=1)
    median_length: float


class Text(Record):
    """A text with its language and the name of the template that made it."""

    text: str
    language: Language
    template: str


def diversity(texts: Sequence[Text], *, detect: Detector | None = None, most: int = 2000) -> Diversity:
    """The figures of a set of texts.

    Args:
        texts: at least one.
        detect: the language code of a text, or None where it cannot say.
        most: texts that are read, evenly spaced: the figures fall with the number of texts, so compare equal numbers.

    Raises:
        ValueError: there is no text.
    """
    if not texts:
        raise ValueError("diversity of no texts")
    some = evenly(texts, most)
    tokens = [tokens_of(one.text, one.language) for one in some]
    templates = Counter(one.template for one in some)
    return Diversity(
        count=len(some),
        different=len({folded(one.text) for one in some}),
        distinct_1=distinct_n(tokens, 1),
        distinct_2=distinct_n(tokens, 2),
        self_bleu=self_bleu(tokens),
        template_share=max(templates.values()) / len(some),
        templates=len(templates),
        ends_as_sentence=sum(one.text.rstrip()[-1:] in ENDS for one in some) / len(some),
        in_language=sum(detect(one.text) == one.language for one in some) / len(some) if detect else None,
        median_length=_median([len(one) for one in tokens]),
    )


def distinct_n(texts: Sequence[Tokens], n: int) -> float | None:
    """Different n-grams among all n-grams of all texts; None where no text has one."""
    grams = Counter(gram for text in texts for gram in _grams(text, n))
    return len(grams) / grams.total() if grams else None


def self_bleu(texts: Sequence[Tokens]) -> float | None:
    """Mean BLEU-4 of each text against all others; None with fewer than two texts that hold a token."""
    held = [text for text in texts if text]
    if len(held) < 2:
        return None
    counts = [[Counter(_grams(text, n)) for n in ORDERS] for text in held]
    highest = [_two_highest([one[at] for one in counts]) for at in range(len(ORDERS))]
    lengths = sorted(len(text) for text in held)
    return sum(_bleu(one, highest, len(text), lengths) for text, one in zip(held, counts, strict=True)) / len(held)


def tokens_of(text: str, language: Language) -> list[str]:
    """Words without case and punctuation; single characters in Chinese and Japanese."""
    bare = folded(text)
    return [char for char in bare if not char.isspace()] if language in UNSPACED else bare.split()


class _Kept(dict[int, int]):
    """Letters, marks and digits as they are, a space for any other character; filled as characters come."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


_KEPT = _Kept()


def folded(text: str) -> str:
    """A text without case, punctuation and double spaces, in compatibility form: equal for what reads the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_KEPT).split())


def evenly(texts: Sequence[Text], most: int) -> list[Text]:
    """At most so many of the texts, evenly spaced, so that every part of the set is there."""
    return [texts[at * len(texts) // most] for at in range(most)] if len(texts) > most else list(texts)


def _grams(text: Tokens, n: int) -> list[tuple[str, ...]]:
    return [tuple(text[at : at + n]) for at in range(len(text) - n + 1)]


def _two_highest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """For every n-gram the two highest counts that it has in any two texts."""
    highest: dict[tuple[str, ...], tuple[int, int]] = {}
    for one in counts:
        for gram, count in one.items():
            first, second = highest.get(gram, (0, 0))
            highest[gram] = (count, first) if count > first else (first, max(second, count))
    return highest


def _bleu(
    counts: Sequence[Counter[tuple[str, ...]]],
    highest: Sequence[dict[tuple[str, ...], tuple[int, int]]],
    length: int,
    lengths: Sequence[int],
) -> float:
    """BLEU-4 of one text against the others; ``lengths`` are those of all texts, sorted."""
    log = 0.0
    for at, (own, best) in enumerate(zip(counts, highest, strict=True)):
        matched = sum(min(count, _in_others(count, best[gram])) for gram, count in own.items())
        total, extra = max(1, own.total()), 1 if at else 0
        if matched + extra == 0:
            return 0.0
        log += math.log((matched + extra) / (total + extra)) / len(ORDERS)
    closest = _closest(length, lengths)
    return math.exp(log + min(0.0, 1 - closest / length))


def _in_others(count: int, highest: tuple[int, int]) -> int:
    """The highest count of an n-gram in the texts other than the one that has it so many times."""
    return highest[1] if count == highest[0] else highest[0]


def _closest(length: int, lengths: Sequence[int]) -> int:
    """The length among those of the other texts that is nearest; the shorter of two."""
    at = bisect_left(lengths, length)
    others = [*lengths[max(0, at - 1) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))


def _median(values: Sequence[int]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
