"""Figures of texts: how diverse and natural queries and thinking are, language by language, beside a single template.

The baseline has the same rows: of queries each kind's first template, of thinking ``Compose`` with one plan and one
sentence a move. What a template is: of a query its frame, of thinking its skeleton (``think_report``). Of each language
a bounded sample is looked at; which rows are in it follows from their ids alone.

Example:
    >>> queries = Queries(load_phrases())
    >>> queries.see(asked)                                                                   # doctest: +SKIP
    >>> next(queries.figures()).baseline.template_share                                      # doctest: +SKIP
    0.5
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from heapq import heappush, heapreplace
from typing import Literal, NamedTuple

from videosafety.build.check import is_in
from videosafety.build.diversity import Diversity, Text, diversity
from videosafety.build.phrases import Made, PhraseBook
from videosafety.build.records import Asked, Thought
from videosafety.build.think import Compose
from videosafety.build.think_report import against_template
from videosafety.core.records import LANGUAGES, Record

SAMPLED = {"query": 1000, "thinking": 400}  # rows a language at most; thinking is ten times as long
DETECTED = 200  # texts a language whose language is told


class TextFigures(Record):
    """Figures of a language's queries or thinking; ``baseline``: a single template on the same rows."""

    about: Literal["query", "thinking"]
    language: str
    own: Diversity
    baseline: Diversity | None


class _Query(NamedTuple):
    """What is kept of a query that is in a sample."""

    text: Text
    single: Text | None


class Queries:
    """Samples of queries by language: those whose ids have the lowest hashes, in whatever order they come."""

    def __init__(self, phrases: PhraseBook | None = None, *, most: int = SAMPLED["query"]) -> None:
        self._phrases, self._most = phrases, most
        self._held: dict[str, list[tuple[int, str, _Query]]] = {}

    def see(self, row: Asked) -> None:
        """One query."""
        place = -int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big")
        held = self._held.setdefault(row.sample.language, [])
        if len(held) < self._most:
            heappush(held, (place, row.id, self._kept(row)))
        elif place > held[0][0]:
            heapreplace(held, (place, row.id, self._kept(row)))

    def figures(self) -> Iterator[TextFigures]:
        """A line a language."""
        for language in (one for one in LANGUAGES if one in self._held):
            some = [kept for _, _, kept in sorted(self._held[language], key=lambda one: one[:2])]
            texts = [one.text for one in some]
            single = [one.single for one in some if one.single is not None]
            own = diversity(texts)
            spoken = [is_in(one.text, language=language) for one in texts[:DETECTED]]
            own = own.model_copy(update={"in_language": sum(spoken) / len(spoken)})
            yield TextFigures(about="query", language=language, own=own,
                              baseline=diversity(single) if len(single) == len(texts) else None)  # fmt: skip

    def _kept(self, row: Asked) -> _Query:
        sample = row.sample
        made = self._single(row)
        single = made and Text(text=made.text, language=sample.language, template=frame_of(made.template))
        return _Query(Text(text=sample.query, language=sample.language, template=frame_of(row.template)), single)

    def _single(self, row: Asked) -> Made | None:
        """The same question in its kind's first template."""
        book, language, category = self._phrases, row.sample.language, row.sample.category
        if book is None or language not in book.languages:
            return None
        if row.kind == "SafeQ":
            return book.safe(language)[0]
        if category not in book.wishes:
            return None
        if row.kind == "composed":
            return book.composed(language, category)[0][0]
        return book.explicit(language, category)[0][1 if row.kind == "borderline" else 0]


def frame_of(template: str) -> str:
    """The frame of a template's name, without the words that fill it: ``en.1.e3`` of ``en.1.e3.fraud.0``."""
    return ".".join(template.split(".")[:3])


def thinking(
    rows: Sequence[Thought], *, compose: Compose | None, most: int = SAMPLED["thinking"]
) -> Iterator[TextFigures]:
    """A line a language. So many rows a language at most, of ten times as many that are looked at."""
    some: dict[str, list[Thought]] = {}
    for place in _spread(len(rows), most * len(LANGUAGES)):
        row = rows[place]
        held = some.setdefault(row.asked.sample.language, [])
        if len(held) < most:
            held.append(row)
    for own in (some[one] for one in LANGUAGES if one in some):
        for language, (mine, base) in against_template(own, compose=compose).items():
            yield TextFigures(about="thinking", language=language, own=mine, baseline=base)


def _spread(length: int, most: int) -> Iterator[int]:
    """At most so many places, one drawn in each of equal parts: rows come in a rhythm, and a fixed step may keep it."""
    if length <= most:
        yield from range(length)
        return
    dice = random.Random(0)
    for part in range(most):
        yield dice.randrange(part * length // most, (part + 1) * length // most)
