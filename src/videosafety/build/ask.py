"""ask: queries about a clip, in several languages, each with its labels; every harmful one with its borderline twin.

Paper section 3 (queries from templates: HH, SH, SafeQ); composed and borderline are ours. Labels are those of the
table of subsets in docs/method.md:

    kind         clip      visual    textual   request   words
    HH           harmful   harmful   harmful   harmful   name the deed; mean the same without the clip
    SH           safe      safe      harmful   harmful   the same words, of any category
    composed     harmful   harmful   safe      harmful   harmless, point to the clip
    SafeQ        any       of clip   safe      safe      a harmless question about the clip
    borderline   any       of clip   safe      safe      name the deed, ask nothing forbidden; point to no clip

The step is pure: which words a clip gets follows from the seed and the clip's id alone, so clips may come in any order
and from any process. The language of the clip's community comes first, then others, drawn for each clip.

Example:
    >>> step = Ask(load_phrases(), Plan(languages_per_clip=2, quota=Quota(HH=1, SH=1, composed=1, SafeQ=2)), seed=7)
    >>> [asked.id for asked in step(described)]                                           # doctest: +SKIP
    ['clip-4f.HH-en-0', 'clip-4f.HH-en-0.twin', 'clip-4f.composed-en-0', ...]
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self, TypeVar, get_args

from pydantic import Field, model_validator

from videosafety.build.phrases import Made, PhraseBook, Side
from videosafety.build.records import Asked, Described
from videosafety.build.state import State, Terminal
from videosafety.core.errors import RecipeError
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Image, Language, Provenance, QueryKind, Record, Sample, Video

Kind = Literal["HH", "SH", "composed", "SafeQ", "borderline"]
KINDS: tuple[Kind, ...] = ("HH", "SH", "composed", "SafeQ", "borderline")
T = TypeVar("T")


class Quota(Record):
    """Queries for each clip and language. A harmful one also brings its borderline twin, unless ``twins`` is off.

    HH and composed are asked about harmful clips, SH about harmless ones, SafeQ about all.
    """

    HH: int = Field(default=1, ge=0)
    SH: int = Field(default=1, ge=0)
    composed: int = Field(default=1, ge=0)
    SafeQ: int = Field(default=1, ge=0)
    twins: bool = True


class Plan(Record):
    """In which languages, and how many queries: ``own`` holds quotas of single languages, ``quota`` those of the rest.

    ``eval_share`` of the clusters are asked with held-out templates only and the others with the rest, and the sample's
    split is ``eval`` or ``train``; None: all clips with all templates, and no split. (Paper: 11.4k of 77.6k are 0.15.)
    """

    languages: tuple[Language, ...] = Field(default=get_args(Language), min_length=1)
    languages_per_clip: int = Field(default=2, ge=1)
    quota: Quota = Quota()
    own: dict[Language, Quota] = Field(default_factory=dict)
    eval_share: float | None = Field(default=0.15, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.languages)) < len(self.languages):
            raise ValueError("a language stands twice")
        if self.languages_per_clip > len(self.languages):
            raise ValueError(f"{self.languages_per_clip} languages per clip, of {len(self.languages)}")
        if stray := sorted(set(self.own) - set(self.languages)):
            raise ValueError(f"own quotas for {stray[0]!r}, which is not among the languages")
        return self

    def of(self, language: Language) -> Quota:
        """The quota of a language."""
        return self.own.get(language, self.quota)


@dataclass(frozen=True)
class Ask:
    """The step. ``phrases`` are part of its key: new words are new queries.

    Raises:
        RecipeError: a language without phrases, or a quota that they cannot fill without asking the same thing twice.
        InputError: (of a row) the clip's category is not one that the phrases know.
    """

    phrases: PhraseBook
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    name: ClassVar[str] = "ask"
    version: ClassVar[int] = 1
    opens_media: ClassVar[bool] = False
    makes: ClassVar[type[Asked]] = Asked

    def __post_init__(self) -> None:
        for language in self.plan.languages:
            if language not in self.phrases.languages:
                fix = f"write {language}.yaml, or leave the language out"
                raise RecipeError(f"no query templates in the language {language!r}", fix=fix)
            self._check_quota(language)

    def __call__(self, clip: Described) -> Sequence[Asked] | Terminal:
        """All queries about a clip, a harmful one directly before its twin."""
        harmful = clip.visual is Safety.HARMFUL
        if clip.category is not None:
            self.phrases.check_category(clip.category)
        made: list[Asked] = []
        for language in self.languages_of(clip):
            quota = self.plan.of(language)
            if harmful:
                made += self._with_twins(clip, "HH", language, quota.HH, quota.twins)
                made += self._with_twins(clip, "composed", language, quota.composed, quota.twins)
            else:
                made += self._with_twins(clip, "SH", language, quota.SH, quota.twins)
            made += self._safe(clip, language, quota.SafeQ)
        return made or Terminal(state=State.FILTERED, reason="no_quota")

    def languages_of(self, clip: Described) -> tuple[Language, ...]:
        """The languages in which a clip is asked about: its community's first, where that is known and planned."""
        drawn = self._draw(self.plan.languages, clip.id, "languages")
        first = [clip.clip.language] if clip.clip.language in self.plan.languages else []
        return tuple(dict.fromkeys([*first, *drawn]))[: self.plan.languages_per_clip]

    def side_of(self, clip: Described) -> Side | None:
        """The side of the clip's cluster: it follows from the seed and the cluster's id, so that a cluster has one."""
        if self.plan.eval_share is None:
            return None
        drawn = hashlib.sha256(f"{self.seed}\x1fside\x1f{clip.cluster}".encode()).digest()
        return "eval" if int.from_bytes(drawn[:8], "big") < self.plan.eval_share * 2**64 else "train"

    def _with_twins(self, clip: Described, kind: Kind, language: Language, count: int, twins: bool) -> list[Asked]:
        if not count:
            return []
        asked: list[Asked] = []
        for at, (category, (query, twin)) in enumerate(self._harmful(clip, kind, language, count)):
            row = f"{clip.id}.{kind}-{language}-{at}"
            other = f"{row}.twin"
            asked.append(self._asked(clip, row, kind, language, query, category, other if twins else None))
            if twins:
                asked.append(self._asked(clip, other, "borderline", language, twin, category, row))
        return asked

    def _harmful(
        self, clip: Described, kind: Kind, language: Language, count: int
    ) -> list[tuple[str, tuple[Made, Made]]]:
        """The harmful queries of this clip with their twins and categories.

        A harmless clip goes through all categories before one comes back.
        """
        side = self.side_of(clip)
        if clip.category is not None:
            pairs = (
                self.phrases.composed(language, clip.category, media=clip.facts.kind, side=side)
                if kind == "composed"
                else self.phrases.explicit(language, clip.category, side=side)
            )
            return [(clip.category, pair) for pair in self._draw(pairs, clip.id, kind, language)][:count]
        categories = self._draw(self.phrases.categories, clip.id, "categories", language)[:count]
        columns = [
            self._draw(self.phrases.explicit(language, one, side=side), clip.id, kind, language, one)
            for one in categories
        ]
        rounds = range(max(len(column) for column in columns))
        return [
            (category, column[turn])
            for turn in rounds
            for category, column in zip(categories, columns, strict=True)
            if turn < len(column)
        ][:count]

    def _safe(self, clip: Described, language: Language, count: int) -> list[Asked]:
        every = self.phrases.safe(language, media=clip.facts.kind, side=self.side_of(clip))
        questions = self._draw(every, clip.id, "SafeQ", language)[:count]
        return [
            self._asked(clip, f"{clip.id}.SafeQ-{language}-{at}", "SafeQ", language, question, clip.category, None)
            for at, question in enumerate(questions)
        ]

    def _asked(
        self, clip: Described, row: str, kind: Kind, language: Language, made: Made, category: str | None,
        twin: str | None,
    ) -> Asked:  # fmt: skip
        """The record of one query."""
        file = clip.clip
        media = Video if clip.facts.kind == "video" else Image
        sample = Sample(
            id=row,
            media=media(path=file.path, sha256=file.sha256),
            query=made.text,
            language=language,
            labels=labels_of(kind, clip.visual),
            category=category,
            query_kind=query_kind_of(kind),
            cluster=clip.cluster,
            split=self.side_of(clip),
            template=made.template,
            harm_spans=tuple(one.span for one in clip.evidence) if clip.visual is Safety.HARMFUL else (),
            provenance=Provenance(source=file.source, licence=file.licence, seed=self.seed),
        )
        return Asked(
            id=row, parent=clip.id, sample=sample, kind=kind, template=made.template, twin=twin, described=clip
        )

    def _draw(self, choices: Iterable[T], *of: str) -> list[T]:
        """The choices in an order that follows from the seed and what they are drawn for."""
        tag = "\x1f".join([str(self.seed), *of])

        def place(at: int) -> bytes:
            return hashlib.sha256(f"{tag}\x1f{at}".encode()).digest()

        listed = list(choices)
        return [listed[at] for at in sorted(range(len(listed)), key=place)]

    def _check_quota(self, language: Language) -> None:
        share = self.plan.eval_share
        sides: list[Side | None] = [None]
        if share is not None:
            sides = [side for side, has in (("eval", share > 0), ("train", share < 1)) if has]  # type: ignore[misc]
        for side in sides:
            for kind, count in self._most(language, side).items():
                if (wanted := getattr(self.plan.of(language), kind)) > count:
                    of = f" for {side}" if side else ""
                    what = f"{wanted} {kind} queries a clip in {language!r}, and there are {count} different ones{of}"
                    raise RecipeError(what, fix="ask for fewer, or write more templates")

    def _most(self, language: Language, side: Side | None) -> dict[str, int]:
        """How many different queries of a kind a clip can get, whatever its category."""
        book = self.phrases
        explicit = [len(book.explicit(language, category, side=side)) for category in book.categories]
        composed = [len(book.composed(language, category, side=side)) for category in book.categories]
        safe = len(book.safe(language, side=side))
        return {"HH": min(explicit), "SH": sum(explicit), "composed": min(composed), "SafeQ": safe}


def labels_of(kind: Kind, visual: Safety) -> Labels:
    """The labels of a query of this kind with a clip that shows this. Raises ValueError: the two do not go together."""
    if (kind in ("HH", "composed") and visual is Safety.SAFE) or (kind == "SH" and visual is Safety.HARMFUL):
        raise ValueError(f"there is no {kind} with a clip that is {visual}")
    textual = Safety.HARMFUL if kind in ("HH", "SH") else Safety.SAFE
    request = Safety.HARMFUL if kind in ("HH", "SH", "composed") else Safety.SAFE
    return Labels(visual=visual, textual=textual, request=request)


def query_kind_of(kind: Kind) -> QueryKind:
    """How queries of this kind refer to what they are about."""
    if kind == "borderline":
        return QueryKind.BORDERLINE
    return QueryKind.EXPLICIT if kind in ("HH", "SH") else QueryKind.DEICTIC
