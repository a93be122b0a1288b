"""Scored answers, one record each, and as columns that a summary cuts into cells.

An answer is grouped by all that it carries: model, stage, benchmark, judge, arm, subset, language, category, training
seed. The columns hold small whole numbers and are made once; a cell is the positions of its answers. Codes follow the
sorted labels, so nothing downstream depends on the order in which answers arrive.

Axis name: N answers.

Example:
    >>> item = ScoredItem(sample_id="a", cluster="a", subset="HH", arm="video", arm_request="harmful", language="en",
    ...                   category=None, judge="oracle", outcome="defended", model="m", stage=None, benchmark="toy")
    >>> tabulate([item]).arms
    ['video']
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from videosafety.core.errors import InputError
from videosafety.core.labels import SAFEQ, Labels, Safety, Subset
from videosafety.core.records import (
    OUTCOMES_HARMFUL,
    OUTCOMES_SAFE,
    Identifier,
    Language,
    Outcome,
    Record,
    Sample,
    Verdict,
)
from videosafety.core.statistics import Ints, codes

Key = dict[str, object]  # the fields of a summary row that say where it stands

SUBSETS: dict[str | None, frozenset[Subset]] = {
    None: frozenset({Subset.HH, Subset.SH}),
    "HH": frozenset({Subset.HH}),
    "SH": frozenset({Subset.SH}),
    "composed": frozenset({Subset.COMPOSED}),
    "SafeQ": SAFEQ,
    "SS": frozenset({Subset.SS}),
    "HS": frozenset({Subset.HS}),
}


class ScoredItem(Record):
    """One answer with its outcome and all that it is grouped by. ``seed`` is the training seed, None where unknown.

    ``subset`` is the item's own, in every arm; ``arm_request`` is what must be defended under this arm. ``words`` names
    the question where nothing else was shown: equal words get equal answers, whatever clip the item belongs to.

    Raises:
        ValueError: an outcome that this request cannot have, or UNSCORED without a reason.
    """

    sample_id: Identifier
    cluster: Identifier
    words: Identifier | None = None
    subset: Subset
    arm: Identifier
    arm_request: Safety
    language: Language
    category: str | None
    judge: str
    outcome: Outcome
    reason: str = ""
    model: str
    stage: str | None
    benchmark: str
    seed: int | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.outcome is Outcome.UNSCORED:
            if not self.reason:
                raise ValueError("an unscored item needs its reason")
        elif self.outcome not in (OUTCOMES_HARMFUL if self.arm_request is Safety.HARMFUL else OUTCOMES_SAFE):
            raise ValueError(f"a {self.arm_request} request cannot end {self.outcome}")
        return self


def score(
    sample: Sample,
    labels: Labels,
    verdict: Verdict,
    *,
    benchmark: str,
    model: str,
    stage: str | None,
    seed: int | None,
    words_alone: bool,
) -> ScoredItem:
    """A verdict with its groups. ``labels`` are those of (item, arm); ``words_alone``: the arm shows nothing else."""
    return ScoredItem(
        sample_id=sample.id,
        cluster=sample.cluster_id,
        words=words_id(sample.query) if words_alone else None,
        subset=sample.subset,
        arm=verdict.arm,
        arm_request=labels.request,
        language=sample.language,
        category=sample.category,
        judge=verdict.judge,
        outcome=verdict.outcome,
        reason=verdict.reason,
        model=model,
        stage=stage,
        benchmark=benchmark_row(benchmark, sample),
        seed=seed,
    )


def words_id(query: str) -> str:
    """The name of a question: equal words, equal name."""
    return f"words-{hashlib.sha256(query.encode()).hexdigest()[:16]}"


def benchmark_row(benchmark: str, sample: Sample) -> str:
    """The benchmark that a row counts under: a split is a row of its own (``toy:held_out``)."""
    return f"{benchmark}:{sample.split}" if sample.split else benchmark


@dataclass(frozen=True, slots=True)
class Table:
    """Answers as columns of N codes: one model, stage, benchmark and judge. ``category`` and ``words`` −1: None."""

    sample: Ints
    cluster: Ints
    words: Ints
    subset: Ints
    arm: Ints
    harmful: NDArray[np.bool_]
    language: Ints
    category: Ints
    outcome: Ints
    seed: Ints
    arms: list[str]
    languages: Sequence[str]
    categories: list[str]
    seeds: list[int | None]


def tabulate(items: list[ScoredItem]) -> Table:
    """Columns of codes, checked for answers that occur twice."""
    arms = sorted({item.arm for item in items})
    languages = sorted({item.language for item in items})
    categories = sorted({item.category for item in items if item.category is not None})
    seeds = sorted({item.seed for item in items}, key=lambda seed: (seed is not None, seed))
    table = Table(
        sample=codes([item.sample_id for item in items]),
        cluster=codes([item.cluster for item in items]),
        words=_index([item.words for item in items], sorted({item.words for item in items if item.words is not None})),
        subset=_index([item.subset for item in items], list(Subset)),
        arm=_index([item.arm for item in items], arms),
        harmful=np.array([item.arm_request is Safety.HARMFUL for item in items]),
        language=_index([item.language for item in items], languages),
        category=_index([item.category for item in items], categories),
        outcome=_index([item.outcome for item in items], list(Outcome)),
        seed=_index([item.seed for item in items], seeds),
        arms=arms,
        languages=languages,
        categories=categories,
        seeds=seeds,
    )
    _, first, counts = np.unique(
        (table.sample * len(arms) + table.arm) * len(seeds) + table.seed, return_index=True, return_counts=True
    )
    if (counts > 1).any():
        twice = items[int(first[counts > 1][0])]
        raise InputError(
            f"arm {twice.arm!r} is answered twice by {twice.model!r} (judge {twice.judge!r}, seed {twice.seed})",
            where=twice.sample_id,
            fix="pass each answer once",
        )
    return table


def _index(values: Sequence[object], known: Sequence[object]) -> Ints:
    """Position of each value in ``known``; −1 where it is not there."""
    position = {value: code for code, value in enumerate(known)}
    return np.fromiter((position.get(value, -1) for value in values), dtype=np.int64, count=len(values))


def cells(
    table: Table, where_N: Ints, key: Key, *, subsets: Iterable[str | None], crossed: bool
) -> Iterator[tuple[Key, Ints]]:
    """Keys and answers of the cells that hold any: subset × (language + category), or × every pair if ``crossed``."""
    for subset in subsets:
        members = _index(sorted(SUBSETS[subset]), list(Subset))
        in_subset_N = where_N[np.isin(table.subset[where_N], members)]
        for language in (None, *range(len(table.languages))):
            in_language_N = in_subset_N if language is None else in_subset_N[table.language[in_subset_N] == language]
            for category in (None, *range(len(table.categories))):
                if crossed != (language is not None and category is not None):
                    continue
                in_cell_N = in_language_N
                if category is not None:
                    in_cell_N = in_language_N[table.category[in_language_N] == category]
                if len(in_cell_N):
                    place = {
                        "subset": subset,
                        "language": None if language is None else table.languages[language],
                        "category": None if category is None else table.categories[category],
                    }
                    yield key | place, in_cell_N


def groupings(table: Table, answers_N: Ints) -> list[Ints]:
    """How these answers depend on each other: by clip, and by their words where nothing else was shown to any."""
    by_words = [table.words] if len(answers_N) and (table.words[answers_N] >= 0).all() else []
    return [codes_N[answers_N] for codes_N in (table.cluster, *by_words)]


def by_seed(table: Table, cell_N: Ints) -> Iterator[tuple[int | None, Ints]]:
    """The pooled answers under None, then those of each training seed."""
    yield None, cell_N
    for code, seed in enumerate(table.seeds):
        of_seed_N = cell_N[table.seed[cell_N] == code]
        if seed is not None and len(of_seed_N):
            yield seed, of_seed_N
