"""figures: all numbers of a build as one record, from which the page, ``figures.json`` and the card are made.

Every kind of rows is gone through once, lazily. What is kept of it are counts, labels of votes, and bounded samples of
texts (``SAMPLED`` a language), so that memory does not grow with the text of a build. Nothing in here is a query, a
caption or a path of a clip; names (categories, licences, models, files that broke) are foreign text all the same.

A build that was held, or fails a gate, has figures, too: those of the rows that there are, and ``stopped``, the reason.

Example:
    >>> figures = figures_of(name="ours", account=lines, rows=made, findings=findings)       # doctest: +SKIP
    >>> figures.total("eval"), figures.empty[:1]                                             # doctest: +SKIP
    (3800, [('ja', 'fraud')])
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from videosafety.build.account import FOR_PEOPLE, Line
from videosafety.build.annotate.votes import agreement
from videosafety.build.ask import KINDS, Kind
from videosafety.build.figure_texts import Queries, TextFigures, thinking
from videosafety.build.gates import MAX_NAMED, Finding
from videosafety.build.mix import TRAIN
from videosafety.build.people.agreement import PairAgreement
from videosafety.build.people.people import People, by_item
from videosafety.build.people.settle import clip_majority
from videosafety.build.phrases import PhraseBook
from videosafety.build.records import Asked, Described, Mixed, Thought
from videosafety.build.state import State
from videosafety.build.think import Compose
from videosafety.core.records import LANGUAGES, Record
from videosafety.judges.kappa import Agreement

SPLITS = ("eval", *TRAIN)
BOUNDS_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # clips as long as that and longer, up to the next
MOST_NAMES = 40  # licences and sources that are named; the rest is counted together
REST = "all others"


class Ended(Record):
    """Rows of a step that ended in one state for one reason."""

    state: State
    reason: str
    rows: int


class StepFigures(Record):
    """A step of the account. ``waiting``: rows that it has not come to."""

    step: str
    rows: int
    ok: int
    waiting: int
    made: int
    ended: tuple[Ended, ...]

    @property
    def for_people(self) -> int:
        """Rows that wait for people and nothing else."""
        return sum(one.rows for one in self.ended if one.reason.startswith(FOR_PEOPLE))


class Coverage(Record):
    """Queries of a language, category (None: a harmless question about a harmless clip) and kind: made, gone out."""

    language: str
    category: str | None
    kind: Kind
    asked: int
    out: int


class AlphaFigures(Record):
    """Krippendorff's alpha of annotators over the clips that two or more described. Interval: 95 %, by cluster."""

    about: Literal["visual", "category"]
    n: int
    agreed: float | None
    alpha: float | None
    low: float | None
    high: float | None


class Paid(Record):
    """Calls of a step to a model; the folder's whole history, since that is what was paid.

    ``lost`` of them were under way when a build was killed: nobody has the answer, and they count at their highest.
    """

    step: str
    model: str
    calls: int
    usd: float
    lost: int


class GateFigures(Record):
    """A gate and the first of its faults."""

    gate: str
    num_faults: int
    faults: tuple[str, ...]


class SplitFigures(Record):
    """Rows that go out, by split, kind and language."""

    split: str
    kind: Kind
    language: str
    rows: int


class Licence(Record):
    """Clips and rows that go out under a licence; None: nobody told."""

    licence: str | None
    clips: int
    rows: int


class Lengths(Record):
    """Described clips as long as ``low_s`` or longer, and shorter than ``high_s`` (None: no end)."""

    low_s: float
    high_s: float | None
    clips: int


class ClusterSize(Record):
    """Clusters of near duplicates with so many described clips."""

    size: int
    clusters: int


class Broken(Record):
    """A file that could not be used, and why."""

    step: str
    reason: str
    file: str


class Figures(Record):
    """All of it. ``languages`` and ``categories`` are those that were planned: a pair without rows is an empty cell."""

    name: str
    stopped: str | None = None
    languages: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    steps: tuple[StepFigures, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    texts: tuple[TextFigures, ...] = ()
    alphas: tuple[AlphaFigures, ...] = ()
    annotators: tuple[str, ...] = ()
    settled: dict[str, int] = Field(default_factory=dict)
    people: tuple[PairAgreement, ...] = ()
    paid: tuple[Paid, ...] = ()
    gates: tuple[GateFigures, ...] = ()
    splits: tuple[SplitFigures, ...] = ()
    licences: tuple[Licence, ...] = ()
    lengths: tuple[Lengths, ...] = ()
    pictures: int = 0
    hours: float = 0.0
    clusters: tuple[ClusterSize, ...] = ()
    broken: tuple[Broken, ...] = ()
    withdrawn: int = 0

    @property
    def rows_out(self) -> int:
        """Rows that go out."""
        return sum(one.rows for one in self.splits)

    def total(self, split: str) -> int:
        """Rows of a split."""
        return sum(one.rows for one in self.splits if one.split == split)

    @property
    def usd(self) -> float:
        """All that was paid."""
        return sum(one.usd for one in self.paid)

    @property
    def for_people(self) -> int:
        """Rows that wait for people."""
        return sum(step.for_people for step in self.steps)

    @property
    def empty(self) -> list[tuple[str, str]]:
        """(language, category) that were planned and have no row that goes out."""
        held = {(one.language, one.category) for one in self.coverage if one.out}
        return [(language, category) for category in self.categories for language in self.languages
                if (language, category) not in held]  # fmt: skip

    @property
    def for_card(self) -> dict[str, str]:
        """Agreement by name, as the release's card shows it; empty where no two annotators saw the same clip."""
        said = {}
        for one in self.alphas:
            if one.n:
                value = "undefined, all labels are alike" if one.alpha is None else f"{one.alpha:.3f}"
                span = "" if one.low is None or one.high is None else f" (95 %: {one.low:.3f} to {one.high:.3f})"
                said[f"Krippendorff's alpha, {one.about}"] = f"{value}{span}, {one.n} clips"
        return said


class Made(NamedTuple):
    """The rows of a build as far as it came: of the steps describe, ask (or paraphrase) and heed."""

    described: Sequence[Described] = ()
    asked: Sequence[Asked] = ()
    thoughts: Sequence[Thought] = ()


class Sent:
    """What goes out, counted row by row; ``gone``: rows that do not, because their clip was withdrawn."""

    def __init__(self) -> None:
        self.gone = 0
        self.cells: Counter[tuple[str, str | None, Kind]] = Counter()
        self.splits: Counter[tuple[str, Kind, str]] = Counter()
        self.licensed: Counter[str | None] = Counter()
        self._clips: dict[str, str | None] = {}

    def see(self, row: Mixed, *, gone: bool) -> None:
        """A row of the mixture."""
        if gone:
            self.gone += 1
            return
        sample, clip = row.asked.sample, row.asked.described.clip
        self.cells[sample.language, sample.category, row.asked.kind] += 1
        self.splits[row.split, row.asked.kind, sample.language] += 1
        self.licensed[clip.licence] += 1
        self._clips[clip.id] = clip.licence

    @property
    def licences(self) -> Counter[str | None]:
        """Clips by licence."""
        return Counter(self._clips.values())


def figures_of(
    *,
    name: str,
    account: Iterable[Line],
    rows: Made | None = None,
    sent: Sent | None = None,
    findings: Iterable[Finding] = (),
    people: People | None = None,
    pairs: Iterable[PairAgreement] = (),
    paid: Iterable[tuple[str, str, int, float, int]] = (),
    broken: Iterable[tuple[str, str, str]] = (),
    phrases: PhraseBook | None = None,
    languages: Sequence[str] = (),
    compose: Compose | None = None,
    stopped: str | None = None,
) -> Figures:
    """All figures of a build.

    Args:
        name: of the build.
        account: its lines.
        rows: as far as they were made; each sequence is gone through once. None: none were.
        sent: the mixture, as far as it was made.
        findings: of the gates, where they were run.
        people: what they said, which tells what they settled.
        pairs: agreement of reviewers.
        paid: (step, model, calls, USD, calls that are lost).
        broken: (step, reason, file) of files that could not be used.
        phrases: the templates, whose first one a kind is what queries are compared with, and whose categories are
            planned; None: queries stand without a baseline.
        languages: those that were planned.
        compose: writes the single template that thinking is compared with.
        stopped: why the build ended before its release.
    """
    rows, sent = rows or Made(), sent or Sent()
    clips = _clips(rows.described, people or People())
    queries = Queries(phrases)
    asked = _asked(rows.asked, queries)
    cells = sorted(asked.keys() | sent.cells.keys(), key=_cell_order)
    return Figures(
        name=name, stopped=stopped, languages=tuple(one for one in LANGUAGES if one in languages),
        categories=phrases.categories if phrases is not None else (),
        steps=tuple(_step(line) for line in account),
        coverage=tuple(Coverage(language=language, category=category, kind=kind, asked=asked[language, category, kind],
                                out=sent.cells[language, category, kind]) for language, category, kind in cells),
        texts=(*queries.figures(), *thinking(rows.thoughts, compose=compose)),
        people=tuple(pairs), gates=tuple(_gate(one) for one in findings),
        paid=tuple(Paid(step=step, model=model, calls=calls, usd=round(usd, 6), lost=lost)
                   for step, model, calls, usd, lost in paid),
        broken=tuple(Broken(step=step, reason=reason, file=file) for step, reason, file in broken),
        splits=tuple(SplitFigures(split=split, kind=kind, language=language, rows=number)
                     for (split, kind, language), number in sorted(sent.splits.items(), key=_split_order)),
        licences=tuple(_licences(sent.licences, sent.licensed)), withdrawn=sent.gone, **clips,
    )  # fmt: skip


def _step(line: Line) -> StepFigures:
    ended = [Ended(state=state, reason=reason, rows=rows)
             for (state, reason), rows in sorted(line.ended.items(), key=lambda one: (-one[1], one[0]))]  # fmt: skip
    return StepFigures(step=line.step, rows=line.rows, ok=line.ok, waiting=line.waiting, made=line.made,
                       ended=tuple(ended))  # fmt: skip


def _gate(found: Finding) -> GateFigures:
    return GateFigures(gate=found.gate, num_faults=len(found.faults), faults=found.faults[:MAX_NAMED])


def _clips(described: Iterable[Described], people: People) -> dict[str, Any]:
    """What is told of clips, of which only labels are kept."""
    decided = {item for item, given in by_item(people.clips).items() if (clip_majority(given) or [""])[0] == "label"}
    settled: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    lengths: Counter[float] = Counter()
    names: set[str] = set()
    seconds, pictures = 0.0, 0

    def seen() -> Iterator[Described]:
        nonlocal seconds, pictures
        for one in described:
            settled["person" if one.id in decided else one.by] += 1
            sizes[one.cluster] += 1
            names.update(vote.annotator for vote in one.votes)
            if one.facts.kind == "image":
                pictures += 1
            else:
                seconds += one.facts.duration_s
                lengths[max(bound for bound in BOUNDS_S if bound <= one.facts.duration_s)] += 1
            yield one

    agree = agreement(seen())
    ends = dict(zip(BOUNDS_S, [*BOUNDS_S[1:], None], strict=True))
    return {
        "alphas": (_alpha("visual", agree.visual), _alpha("category", agree.category)),
        "annotators": tuple(sorted(names)), "settled": dict(sorted(settled.items())), "pictures": pictures,
        "hours": round(seconds / 3600, 4),
        "lengths": tuple(Lengths(low_s=low, high_s=ends[low], clips=lengths[low]) for low in sorted(lengths)),
        "clusters": tuple(ClusterSize(size=size, clusters=number)
                          for size, number in sorted(Counter(sizes.values()).items())),
    }  # fmt: skip


def _alpha(about: Literal["visual", "category"], found: Agreement) -> AlphaFigures:
    low, high = found.by_cluster.low, found.by_cluster.high
    return AlphaFigures(about=about, n=found.n, agreed=found.agreed, alpha=found.value, low=low, high=high)


def _asked(rows: Iterable[Asked], queries: Queries) -> Counter[tuple[str, str | None, Kind]]:
    """Queries by cell; ``queries`` is shown each."""
    cells: Counter[tuple[str, str | None, Kind]] = Counter()
    for row in rows:
        cells[row.sample.language, row.sample.category, row.kind] += 1
        queries.see(row)
    return cells


def _licences(clips: Mapping[str | None, int], rows: Mapping[str | None, int]) -> Iterator[Licence]:
    """The most frequent ones, and the rest together."""
    ordered = sorted(clips, key=lambda one: (-clips[one], one or ""))
    for one in ordered[:MOST_NAMES]:
        yield Licence(licence=one, clips=clips[one], rows=rows[one])
    if rest := ordered[MOST_NAMES:]:
        yield Licence(licence=REST, clips=sum(clips[one] for one in rest), rows=sum(rows[one] for one in rest))


def _cell_order(cell: tuple[str, str | None, Kind]) -> tuple[str, bool, str, int]:
    language, category, kind = cell
    return language, category is None, category or "", KINDS.index(kind)


def _split_order(one: tuple[tuple[str, Kind, str], int]) -> tuple[int, int, str]:
    split, kind, language = one[0]
    return SPLITS.index(split), KINDS.index(kind), language
