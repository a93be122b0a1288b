"""check: the gates that every row must pass. The first that fails is the row's reason; a row is never mended here.

    labels     as the subset table has them for this kind; the visual one as the description has it (docs/method.md)
    category   a harm has one, and the taxonomy knows it
    slots      no template slot left unfilled
    tags       no tag of the response grammar inside a field
    grammar    the rendered response parses back to its fields
    length     thinking and answer within bounds
    evidence   inside the clip
    refusal    a harmful request is refused in full and in few words, a safe one not at all
    echo       a refusal repeats neither the request nor the description
    language   query, thinking and answer are in the declared one

A rule cannot tell a refusal that turns into help within these few words: people look at a share of the responses.
Quotations of the row's own description do not count for the language: an annotator's caption may be in another.

Example:
    >>> Check()(thought)                                                                     # doctest: +SKIP
    [Thought(id='clip-4f….SH-en-0', …)]
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

from videosafety.build.diversity import folded
from videosafety.build.records import Asked, Thought
from videosafety.build.state import State, Terminal
from videosafety.build.voices import unquoted
from videosafety.core.errors import DependencyError, InputError
from videosafety.core.labels import Safety, Subset
from videosafety.core.records import QueryKind
from videosafety.core.response import FIELDS, ParseStatus, parse, render
from videosafety.core.taxonomy import Taxonomy, load_taxonomy
from videosafety.judges.refusal import Refusal, find_refusal

SUBSETS: dict[str, frozenset[Subset]] = {  # the kinds of queries, and the subsets that their labels must make
    "HH": frozenset({Subset.HH}),
    "SH": frozenset({Subset.SH}),
    "composed": frozenset({Subset.COMPOSED}),
    "SafeQ": frozenset({Subset.SS, Subset.HS}),
    "borderline": frozenset({Subset.SS, Subset.HS}),
}
LINGUA = {"en": "ENGLISH", "zh": "CHINESE", "hi": "HINDI", "es": "SPANISH", "ar": "ARABIC", "fr": "FRENCH",
          "pt": "PORTUGUESE", "ru": "RUSSIAN", "ja": "JAPANESE", "id": "INDONESIAN"}  # fmt: skip
SURE = 0.2  # of the declared language, where another one is likelier: short texts of kin languages are unclear
SLACK_S = 0.05  # containers round their duration
ECHO_CHARS = 12  # of the description: shorter pieces stand in any sentence
TEXTS_KEPT = 8192  # whose language is remembered: without their quotations, most texts come again
DENSE = frozenset({"zh", "ja"})  # scripts that say twice as much in a character

_TAG = re.compile("|".join(f"</?{name}>" for name in FIELDS))
_SLOT = re.compile(r"\{\{?[A-Za-z_][\w.]*\}?\}|\[[A-Z][A-Z_]{2,}\]|<[A-Z][A-Z_]{2,}>|\[\[|\]\]|%\(\w+\)s|\$\{\w+\}")
_QUOTED = re.compile(r"“([^”]*)”|«([^»]*)»|「([^」]*)」|\"([^\"]*)\"")


@dataclass(frozen=True)
class Check:
    """The step. Bounds are characters; of Chinese and Japanese, half as many at the low end."""

    taxonomy: str = "vse"
    min_think: int = 40
    max_think: int = 4000
    min_answer: int = 12
    max_answer: int = 4000
    max_refusal: int = 500
    name: ClassVar[str] = "check"
    version: ClassVar[int] = 2
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Thought]] = Thought

    def __call__(self, thought: Thought) -> Sequence[Thought] | Terminal:
        """The row as it came, or the first gate that it fails."""
        fault = self.fault(thought)
        return [thought] if fault is None else Terminal(state=State.FILTERED, reason=fault)

    def fault(self, thought: Thought) -> str | None:
        """``gate:what`` of the first gate that the row fails; None: it passes all."""
        gates: tuple[Callable[[], str | None], ...] = (
            lambda: query_fault(thought.asked, taxonomy=_taxonomy(self.taxonomy)),
            lambda: _text_fault(thought),
            lambda: self._length_fault(thought),
            lambda: _evidence_fault(thought),
            lambda: self._refusal_fault(thought) or _answer_fault(thought),
            lambda: language_fault(thought.asked, think=thought.think, answer=thought.answer),
        )
        return next((fault for gate in gates if (fault := gate()) is not None), None)

    def _length_fault(self, thought: Thought) -> str | None:
        share = 0.5 if thought.asked.sample.language in DENSE else 1.0
        bounds = (("think", thought.think, self.min_think, self.max_think),
                  ("answer", thought.answer, self.min_answer, self.max_answer))  # fmt: skip
        for field, text, low, high in bounds:
            if not low * share <= len(text.strip()) <= high:
                return f"length:{field}"
        return None

    def _refusal_fault(self, thought: Thought) -> str | None:
        """A refusal that goes on at length may do in its second half what it refuses in its first."""
        is_long = len(thought.answer.strip()) > self.max_refusal
        due = thought.asked.sample.labels.request is Safety.HARMFUL
        return "refusal:long" if due and is_long else None


def query_fault(asked: Asked, *, taxonomy: Taxonomy) -> str | None:
    """``gate:what`` of the first gate that a query fails by itself: labels, category, slots."""
    sample, described = asked.sample, asked.described
    labels = sample.labels
    if labels.subset not in SUBSETS[asked.kind]:
        return f"labels:{asked.kind}_is_{labels.subset.value}"
    shown = described.visual if sample.media is not None else Safety.SAFE
    if labels.visual is not shown:
        return "labels:visual"
    if asked.kind == "HH" and sample.query_kind is QueryKind.DEICTIC:
        return "labels:deictic"
    known = {one.id for one in taxonomy.subcategories}
    if any(one is not None and one not in known for one in (sample.category, described.category)):
        return "category:unknown"
    if labels.request is Safety.HARMFUL and sample.category is None:
        return "category:missing"
    if labels.visual is Safety.HARMFUL and described.category is None:
        return "category:missing"
    return "slots:query" if _SLOT.search(sample.query) else None


def _text_fault(thought: Thought) -> str | None:
    """Slots, tags and the grammar."""
    labels = thought.asked.sample.labels
    for field, text in (("think", thought.think), ("answer", thought.answer)):
        if _SLOT.search(text):
            return f"slots:{field}"
        if _TAG.search(text):
            return f"tags:{field}"
    try:
        said = render(think=thought.think, answer=thought.answer, visual=labels.visual, textual=labels.textual)
    except InputError:
        return "grammar:blank"
    parsed = parse(said)
    if parsed.status is not ParseStatus.COMPLETE:
        return f"grammar:{parsed.status.value}"
    again = (parsed.think, parsed.answer, parsed.visual, parsed.textual)
    return (
        None if again == (thought.think.strip(), thought.answer.strip(), labels.visual, labels.textual) else "grammar"
    )


def _evidence_fault(thought: Thought) -> str | None:
    sample, facts = thought.asked.sample, thought.asked.described.facts
    if thought.evidence and sample.media is None:
        return "evidence:no_media"
    end = facts.duration_s + SLACK_S
    return "evidence:outside" if any(one.span.end_s > end for one in thought.evidence) else None


def _answer_fault(thought: Thought) -> str | None:
    """A refusal where one is due and only there; and what a refusal must not repeat."""
    sample, described = thought.asked.sample, thought.asked.described
    refusal = find_refusal(thought.answer, language=sample.language)
    if sample.labels.request is Safety.SAFE:
        return None if refusal is Refusal.NONE else f"refusal:over_refused_{refusal.value}"
    if refusal is not Refusal.FULL:
        return f"refusal:{refusal.value}"
    said = _letters(thought.answer)
    private = (sample.query, described.caption, *(one.what for one in described.evidence))
    echoed = any(len(_letters(text)) >= ECHO_CHARS and _letters(text) in said for text in private)
    return "echo:answer" if echoed else None


def language_fault(asked: Asked, *, think: str | None = None, answer: str | None = None) -> str | None:
    """``language:field`` of the first of query, thinking and answer that is not in the declared language."""
    sample, described = asked.sample, asked.described
    own = " ".join(unquoted(text) for text in (described.caption, *(one.what for one in described.evidence)))
    for field, text in (("query", sample.query), ("think", think), ("answer", answer)):
        if text is not None and not is_in(_without_quotations(text, own=own), language=sample.language):
            return f"language:{field}"
    return None


def _without_quotations(text: str, *, own: str) -> str:
    """The text without quotations from the row's own description."""
    whole = " ".join(own.split())

    def kept(found: re.Match[str]) -> str:
        inner = " ".join(next(part for part in found.groups() if part is not None).split()).rstrip("…")
        return " " if inner and inner in whole else found.group()

    return _QUOTED.sub(kept, text)


@lru_cache(maxsize=TEXTS_KEPT)
def is_in(text: str, *, language: str) -> bool:
    """Whether a text may be in a language: it is the likeliest of the ten, or likely enough.

    Raises:
        DependencyError: lingua is not installed.
    """
    detector, names = _detector()
    values = detector.compute_language_confidence_values(text)
    if not any(one.isalpha() for one in text) or not values:
        return False
    return bool(values[0].language == names[language] or
                next((one.value for one in values if one.language == names[language]), 0.0) >= SURE)  # fmt: skip


@cache
def _detector() -> tuple[Any, dict[str, Any]]:
    try:
        import lingua
    except ImportError as error:
        raise DependencyError("telling languages apart needs lingua",
                              fix="pip install lingua-language-detector") from error  # fmt: skip
    names = {code: getattr(lingua.Language, name) for code, name in LINGUA.items()}
    return lingua.LanguageDetectorBuilder.from_languages(*names.values()).build(), names


@cache
def _taxonomy(name: str) -> Taxonomy:
    return load_taxonomy(name)


def _letters(text: str) -> str:
    """A text without case, punctuation and spaces."""
    return folded(text).replace(" ", "")
