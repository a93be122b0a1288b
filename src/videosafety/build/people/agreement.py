"""Agreement of reviewers, pair by pair: of people among themselves, and of each person with each machine annotator.

Cohen's kappa with its intervals (``judges.kappa``) of three questions: what a clip shows (``visual``), of clips that
both call harmful which harm it is (``category``), and what is to become of a response (``row``). Items that one of the
two excluded or never saw do not count. Errors are clustered by near-duplicate cluster. Over all people together:
Krippendorff's alpha.

Example:
    >>> rows = agreement(people, described)                                                  # doctest: +SKIP
    >>> [(row.about, row.first, row.second, row.n) for row in rows]                          # doctest: +SKIP
    [('visual', 'ann', 'bo', 40), ('visual', 'ann', 'model: openai/x', 20)]
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Literal

from pydantic import Field

from videosafety.build.people.people import People
from videosafety.build.records import Described
from videosafety.core.records import Record
from videosafety.html.table import Cell, Column, Table
from videosafety.judges.kappa import Agreement, cohen, krippendorff

About = Literal["visual", "category", "row"]
ALL, EVERYONE = "all people", "(alpha)"
MODEL = "model: "
Ratings = Mapping[str, Mapping[str, str]]  # by rater, by item


class PairAgreement(Record):
    """Agreement of two raters on one question. ``low`` to ``high``: 95 %, by cluster; None where it cannot be told.

    ``coefficient`` is None on no items, or where all ratings are alike.
    """

    about: About
    first: str
    second: str
    n: int = Field(ge=0)
    agreed: float | None
    coefficient: float | None
    low: float | None
    high: float | None


def agreement(people: People, described: Iterable[Described]) -> list[PairAgreement]:
    """Of every pair that rated at least one item together; people first, then each person with each machine."""
    clusters: dict[str, str] = {}
    visual: dict[str, dict[str, str]] = {}
    category: dict[str, dict[str, str]] = {}
    judged = {v.item for v in people.clips}
    for one in described:
        if one.id not in judged:
            continue
        clusters[one.id] = one.cluster
        for vote in one.votes:
            visual.setdefault(MODEL + vote.annotator, {})[one.id] = vote.visual.value
            if vote.category is not None:
                category.setdefault(MODEL + vote.annotator, {})[one.id] = vote.category
    for v in people.clips:
        if v.visual is not None:
            visual.setdefault(v.annotator, {})[v.item] = v.visual.value
            if v.category is not None:
                category.setdefault(v.annotator, {})[v.item] = v.category
    rows: dict[str, dict[str, str]] = {}
    for w in people.rows:
        if w.action != "quarantine":
            rows.setdefault(w.annotator, {})[f"{w.item} {w.seen}"] = w.action
    by_clip = {f"{w.item} {w.seen}": clusters.get(w.clip, w.clip) for w in people.rows}
    return [*_pairs("visual", visual, clusters), *_pairs("category", category, clusters), *_pairs("row", rows, by_clip)]


def _pairs(about: About, ratings: Ratings, clusters: Mapping[str, str]) -> list[PairAgreement]:
    people = sorted(name for name in ratings if not name.startswith(MODEL))
    machines = sorted(name for name in ratings if name.startswith(MODEL))
    pairs = [*combinations(people, 2), *((person, machine) for person in people for machine in machines)]
    found = []
    for first, second in pairs:
        both = sorted(ratings[first].keys() & ratings[second].keys())
        if both:
            result = cohen([ratings[first][item] for item in both], [ratings[second][item] for item in both],
                           clusters=[clusters.get(item, item) for item in both])  # fmt: skip
            found.append(_row(about, first, second, result))
    if len(people) > 2 and found:
        items = sorted({item for name in people for item in ratings[name]})
        table = [[ratings[name].get(item) for name in people] for item in items]
        found.append(_row(about, ALL, EVERYONE, krippendorff(table, clusters=[clusters.get(i, i) for i in items])))
    return found


def _row(about: About, first: str, second: str, found: Agreement) -> PairAgreement:
    return PairAgreement(about=about, first=first, second=second, n=found.n, agreed=found.agreed,
                         coefficient=found.value, low=found.by_cluster.low, high=found.by_cluster.high)  # fmt: skip


def agreement_table(rows: Iterable[PairAgreement]) -> Table:
    """The rows for a page, and as CSV."""
    rows = list(rows)
    columns = (Column("", numeric=False), Column("first", numeric=False), Column("second", numeric=False),
               Column("items"), Column("agreed"), Column("beyond chance"))  # fmt: skip
    lines = tuple((Cell(one.about), Cell(one.first), Cell(one.second), Cell(f"{one.n:,}"),
                   Cell("—" if one.agreed is None else f"{100 * one.agreed:.1f} %"), _coefficient(one))
                  for one in rows)  # fmt: skip
    header = tuple(PairAgreement.model_fields)
    data = tuple(tuple(getattr(one, field) for field in header) for one in rows)
    note = ("Cohen's kappa of two, Krippendorff's alpha of all; the interval (95 %) resamples near-duplicate clusters "
            "and is left out where there are too few. Categories: of clips that both call harmful.")  # fmt: skip
    return Table("agreement", "Agreement of reviewers", columns, lines, header, data, note)


def _coefficient(one: PairAgreement) -> Cell:
    if one.coefficient is None:
        return Cell("—", "all ratings are alike" if one.n else "no item of both", muted=True)
    interval = "" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
    return Cell(f"{one.coefficient:.2f}", interval)
