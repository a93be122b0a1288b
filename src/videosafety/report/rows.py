"""Looking up summary rows the way a reader thinks: this model at this stage, pooled over seeds, all languages.

Example:
    >>> percent(0.931), percent(None)
    ('93.1', '–')
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from videosafety.core.metrics import SummaryRow, find
from videosafety.core.statistics import MIN_CLUSTERS, Method

STAGES = ("base", "alarm_init", "at_sft", "cot", "grpo")
ARMS_FIRST = ("video", "text")


class OfBenchmark(Protocol):
    """Any row that belongs to a benchmark or to a split of one (``toy:held_out``)."""

    @property
    def benchmark(self) -> str:
        """Name, after a colon the split."""


class OfModel(OfBenchmark, Protocol):
    """Any row about a model or about a variant of one (``toy-small/no_atc``)."""

    @property
    def model(self) -> str:
        """Name, after a stroke the variant."""


B = TypeVar("B", bound=OfBenchmark)
R = TypeVar("R", bound=OfModel)


class Setting(NamedTuple):
    """What a row of the headline table is about."""

    benchmark: str
    model: str
    stage: str
    judge: str


def settings(rows: Iterable[SummaryRow]) -> list[Setting]:
    """Every setting in the rows: by benchmark and model, stages in the order of the method."""
    found = {Setting(r.benchmark, r.model, r.stage or "", r.judge) for r in rows}
    return sorted(found, key=lambda s: (s.benchmark, s.model, stage_rank(s.stage), s.stage, s.judge))


def stage_rank(stage: str) -> int:
    """Where a stage stands in the method; stages of other methods come last."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def arm_rank(arm: str) -> tuple[int, str]:
    """Where an arm stands in a table: video, text, then the others by name."""
    return ARMS_FIRST.index(arm) if arm in ARMS_FIRST else len(ARMS_FIRST), arm


def whole(rows: Iterable[B]) -> list[B]:
    """The rows of whole benchmarks: without splits (``toy:held_out``), unless splits are all that a benchmark has."""
    known = list(rows)
    names = {row.benchmark for row in known if ":" not in row.benchmark}
    return [row for row in known if ":" not in row.benchmark or row.benchmark.partition(":")[0] not in names]


def parts(rows: Iterable[B]) -> list[B]:
    """The rows of splits of a benchmark that has more than splits."""
    known = list(rows)
    names = {row.benchmark for row in whole(known)}
    return [row for row in known if row.benchmark not in names]


def is_variant(model: str, models: Collection[str]) -> bool:
    """Whether a model is a variant of another that is there too; ``owner/name`` alone is no variant."""
    return "/" in model and model.rpartition("/")[0] in models


def main_rows(rows: Iterable[R]) -> list[R]:
    """The rows of whole benchmarks, variants left out."""
    return whole(_of_models(rows, variants=False))


def split_rows(rows: Iterable[R]) -> list[R]:
    """The rows of their own: splits of a benchmark that has more than splits, variants left out."""
    return parts(_of_models(rows, variants=False))


def variant_rows(rows: Iterable[R]) -> list[R]:
    """The rows of variants on whole benchmarks."""
    return whole(_of_models(rows, variants=True))


def own_rows(rows: Iterable[R]) -> list[R]:
    """All rows but those of variants."""
    return _of_models(rows, variants=False)


def _of_models(rows: Iterable[R], *, variants: bool) -> list[R]:
    known = list(rows)
    models = {row.model for row in known}
    return [row for row in known if is_variant(row.model, models) == variants]


def of(rows: Iterable[SummaryRow], setting: Setting) -> list[SummaryRow]:
    """The rows of one setting."""
    return [r for r in rows if (r.benchmark, r.model, r.stage or "", r.judge) == setting]


def pooled(
    rows: Sequence[SummaryRow],
    metric: str,
    *,
    subset: str | None,
    arm: str,
    language: str | None = None,
    category: str | None = None,
) -> SummaryRow | None:
    """The row over all seeds; with one seed only, that seed's."""
    found = find(rows, metric=metric, subset=subset, arm=arm, language=language, category=category)
    over_all = [r for r in found if r.seed is None]
    return over_all[0] if over_all else found[0] if len(found) == 1 else None


def by_seed(rows: Sequence[SummaryRow], metric: str, *, subset: str | None, arm: str) -> dict[int, SummaryRow]:
    """Each seed's row over all languages and categories."""
    found = find(rows, metric=metric, subset=subset, arm=arm, language=None, category=None)
    own = {r.seed: r for r in reversed(found) if r.seed is not None}
    return {seed: own[seed] for seed in sorted(own)}


def percent(value: float | None, *, digits: int = 1) -> str:
    """A fraction as a percentage without its sign, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}".replace("-", "−")


def interval(row: SummaryRow) -> str:
    """``90.2 – 95.4``, or why there is none."""
    if row.low is None or row.high is None:
        return "too few clusters" if row.interval is Method.TOO_FEW_CLUSTERS else "no interval"
    return f"{percent(row.low)} – {percent(row.high)}"


def counts(row: SummaryRow) -> str:
    """``n 512 in 96 clusters``."""
    return f"n {row.n:,} in {row.cluster_n:,} clusters"


def too_small(row: SummaryRow) -> bool:
    """Whether a cell is too small to say anything: no interval, or fewer than ``MIN_CLUSTERS`` clusters."""
    return row.low is None or row.cluster_n < MIN_CLUSTERS
