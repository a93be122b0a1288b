"""The page's tables and charts from summary rows: arms, categories × languages, seeds, and what was not scored.

Every table is a view of tidy rows, and its CSV holds those rows: exact fractions in [0, 1], n, clusters, interval.

Example:
    >>> arms_table([]).rows
    ()
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

from markupsafe import Markup

from videosafety.core.metrics import SummaryRow
from videosafety.core.records import Outcome
from videosafety.html.charts import Bar, Dot, outcome_bars, seed_dots
from videosafety.html.palette import HARMFUL_ORDER, LOOKS, SAFE_ORDER
from videosafety.html.table import Cell, Column, Table
from videosafety.html.text import Scalar
from videosafety.report.collect import Evaluation, Stage
from videosafety.report.headline import MEASURES, OWN_SUBSETS
from videosafety.report.rows import (
    Setting,
    arm_rank,
    by_seed,
    interval,
    is_variant,
    of,
    percent,
    pooled,
    settings,
    too_small,
)
from videosafety.report.select import Choice

ROW_FIELDS = tuple(SummaryRow.model_fields)
ARM_SUBSETS = (*OWN_SUBSETS, "SS", "HS")
METRIC_OF = {
    Outcome.DEFENDED: "dsr",
    Outcome.COMPROMISED: "compromised",
    Outcome.HELPFUL: "helpful",
    Outcome.WRONG: "wrong",
    Outcome.OVER_REFUSED: "frr",
    Outcome.INCOHERENT: "incoherent",
}


def setting_name(setting: Setting, among: Sequence[Setting]) -> str:
    """The shortest name that tells a setting from the others: the stage, with model and judge where they differ."""
    parts = [setting.stage]
    if len({s.model for s in among}) > 1 or not setting.stage:
        parts.append(setting.model)
    if len({s.judge for s in among}) > 1:
        parts.append(f"judge {setting.judge}")
    if len({s.benchmark for s in among}) > 1:
        parts.append(setting.benchmark)
    return " · ".join(p for p in parts if p)


def arms(rows: Sequence[SummaryRow]) -> list[str]:
    """Every arm in the rows: video, text, then the others by name."""
    return sorted({r.arm for r in rows}, key=arm_rank)


def shares(rows: Sequence[SummaryRow], *, subset: str, arm: str) -> dict[Outcome, SummaryRow]:
    """Each outcome's share, in the order in which a bar stacks them; empty when the rows do not hold this subset."""
    order = SAFE_ORDER if subset in ("SafeQ", "SS", "HS") else HARMFUL_ORDER
    found = {o: pooled(rows, METRIC_OF[o], subset=subset, arm=arm) for o in order}
    return {o: row for o, row in found.items() if row is not None and row.value is not None}


def arm_charts(rows: Sequence[SummaryRow]) -> list[tuple[str, str, Markup]]:
    """One chart a setting: (file name, title, SVG)."""
    charts = []
    for i, setting in enumerate(found := settings(rows)):
        mine = of(rows, setting)
        bars = []
        for subset in OWN_SUBSETS:
            for arm in arms(mine):
                if parts := shares(mine, subset=subset, arm=arm):
                    lead = next(iter(parts.values()))
                    values = {o: row.value or 0.0 for o, row in parts.items()}
                    bars.append(Bar(f"{subset} · {arm}", values, lead.low, lead.high))
        if bars:
            title = f"Outcomes by subset and arm: {setting_name(setting, found)}"
            charts.append((f"arms-{i + 1}", title, outcome_bars(bars, title=title)))
    return charts


def arms_table(rows: Sequence[SummaryRow]) -> Table:
    """One row for each setting, subset and arm: all outcome shares with intervals."""
    outcomes = tuple(METRIC_OF)
    columns = (
        Column("", numeric=False),
        Column("subset", numeric=False),
        Column("arm", numeric=False),
        *(Column(LOOKS[o].word) for o in outcomes),
        Column("n"),
        Column("unscored"),
    )
    lines, data = [], []
    for setting in (found := settings(rows)):
        mine = of(rows, setting)
        for subset in ARM_SUBSETS:
            for arm in arms(mine):
                if not (parts := shares(mine, subset=subset, arm=arm)):
                    continue
                lead = next(iter(parts.values()))
                cells = [Cell(percent(r.value), interval(r)) if (r := parts.get(o)) else Cell("") for o in outcomes]
                n = Cell(f"{lead.n:,}", f"{lead.cluster_n:,} clusters")
                head = (Cell(setting_name(setting, found)), Cell(subset), Cell(arm))
                lines.append((*head, *cells, n, Cell(f"{lead.unscored:,}")))
                data += [_values(r) for r in parts.values()]
    note = "Percent of the scored items, with 95 % intervals. Unscored items are counted in their own section below."
    return Table("arms", "All outcomes by subset and arm", columns, tuple(lines), ROW_FIELDS, tuple(data), note)


def heat_tables(rows: Sequence[SummaryRow]) -> list[Table]:
    """DSR with video by category (rows) and language (columns), one table for each setting and subset."""
    tables = []
    for i, setting in enumerate(found := settings(rows)):
        cells = [r for r in of(rows, setting) if r.metric == "dsr" and r.arm == "video" and r.seed is None]
        cells = cells or [r for r in of(rows, setting) if r.metric == "dsr" and r.arm == "video"]
        for subset in sorted({r.subset for r in cells if r.category or r.language}, key=lambda s: s or ""):
            mine = {(r.category, r.language): r for r in cells if r.subset == subset}
            name = f"categories-languages-{i + 1}-{subset or 'HH-SH'}"
            title = f"DSR with video, {subset or 'HH + SH'}: {setting_name(setting, found)}"
            tables.append(_heat(mine, name=name, title=title))
    return tables


def _heat(cells: dict[tuple[str | None, str | None], SummaryRow], *, name: str, title: str) -> Table:
    categories = sorted({c for c, _ in cells if c is not None})
    languages = sorted({lang for _, lang in cells if lang is not None})
    across = [*languages, None]
    down = [*categories, None]
    rows = [(Cell(c or "all"), *(_heat_cell(cells.get((c, lang))) for lang in across)) for c in down]
    kept = tuple(row for row in rows if any(cell.text for cell in row[1:]))
    columns = (Column("category", numeric=False), *(Column(lang or "all") for lang in across))
    return Table(name, title, columns, kept, ROW_FIELDS, tuple(_values(r) for r in cells.values()))


def _heat_cell(row: SummaryRow | None) -> Cell:
    if row is None:
        return Cell("")
    detail = f"{interval(row)}\nn {row.n:,}" if row.low is not None else f"n {row.n:,}"
    small = too_small(row)
    note = "too small to say anything" if small else ""
    return Cell(percent(row.value, digits=0), detail, shade=row.value, muted=small, note=note)


def seeds_table(rows: Sequence[SummaryRow]) -> Table | None:
    """Every headline measure, one column a seed; None when no row belongs to a seed."""
    seeds = sorted({r.seed for r in rows if r.seed is not None})
    if not seeds:
        return None
    lines, data = [], []
    for setting in (found := settings(rows)):
        mine = of(rows, setting)
        for m in MEASURES:
            own = by_seed(mine, m.metric, subset=m.subset, arm=m.arm)
            over_all = pooled(mine, m.metric, subset=m.subset, arm=m.arm)
            if not own:
                continue
            cells = [Cell(percent(r.value), f"n {r.n:,}") if (r := own.get(seed)) else Cell("–") for seed in seeds]
            last = Cell(percent(over_all.value), interval(over_all)) if over_all else Cell("–")
            lines.append((Cell(f"{m.group}: {m.label}", setting_name(setting, found)), *cells, last))
            data += [_values(r) for r in (*own.values(), *([over_all] if over_all else []))]
    columns = (Column("measure", numeric=False), *(Column(f"seed {s}") for s in seeds), Column("all seeds"))
    return Table("seeds", "Each seed", columns, tuple(lines), ROW_FIELDS, tuple(data))


def seed_charts(rows: Sequence[SummaryRow]) -> list[tuple[str, str, Markup]]:
    """One chart a setting with at least two seeds."""
    charts = []
    for i, setting in enumerate(found := settings(rows)):
        mine = of(rows, setting)
        dots = []
        for m in MEASURES:
            own = by_seed(mine, m.metric, subset=m.subset, arm=m.arm)
            if len(own) < 2:
                continue
            label = f"{m.group}: {m.label}"
            dots += [Dot(label, r.value, seed=seed) for seed, r in own.items() if r.value is not None]
            over_all = pooled(mine, m.metric, subset=m.subset, arm=m.arm)
            if over_all is not None and over_all.value is not None:
                dots.append(Dot(label, over_all.value, low=over_all.low, high=over_all.high))
        if dots:
            title = f"Seeds: {setting_name(setting, found)}"
            charts.append((f"seeds-{i + 1}", title, seed_dots(dots, title=title)))
    return charts


def bounds_table(rows: Sequence[SummaryRow]) -> Table:
    """DSR, COMPROMISED and FRR had every unscored answer been the worst and the best case; empty if none is."""
    columns = (Column("", numeric=False), *(Column(c) for c in ("measured", "worst case", "best case", "unscored")))
    lines, data = [], []
    for setting in (found := settings(rows)):
        mine = of(rows, setting)
        for metric, subset, arm in product(("dsr", "compromised", "frr"), OWN_SUBSETS, arms(mine)):
            row, worst, best = (pooled(mine, metric + case, subset=subset, arm=arm) for case in ("", "_worst", "_best"))
            if row is None or worst is None or best is None:
                continue
            name = f"{metric.upper()} {subset} · {arm}"
            cells = (Cell(percent(r.value)) for r in (row, worst, best))
            lines.append((Cell(name, setting_name(setting, found)), *cells, Cell(f"{row.unscored:,}")))
            data += [_values(r) for r in (row, worst, best)]
    title = "What the unscored answers could change"
    return Table("bounds", title, columns, tuple(lines), ROW_FIELDS, tuple(data))


def account_table(evaluations: Iterable[Evaluation]) -> Table:
    """Items by what kept them from a verdict: (evaluation, where, reason, items); nothing is dropped silently."""
    counts: Counter[tuple[str, str, str]] = Counter()
    known = list(evaluations)
    models = {e.info.model for e in known}
    for e in known:
        variant = e.info.model.rpartition("/")[2] if is_variant(e.info.model, models) else ""
        about = " · ".join(str(p) for p in (variant, e.info.stage, e.info.benchmark, _seed_name(e.info.seed)) if p)
        counts.update((about, f"media {m.state}", m.fault or "no reason given") for m in e.damaged)
        unscored = (v for v in e.verdicts if v.outcome is Outcome.UNSCORED)
        counts.update((about, f"unscored · {v.arm} · {v.judge}", v.reason) for v in unscored)
    header = ("evaluation", "state", "reason", "items")
    data = tuple((*key, n) for key, n in sorted(counts.items()))
    columns = tuple(Column(h, numeric=h == "items") for h in header)
    lines = tuple(tuple(Cell(str(v)) for v in row) for row in data)
    return Table("account", "Damaged media and unscored answers", columns, lines, header, data)


def strata_table(choice: Choice) -> Table:
    """How many items of each stage, subset and outcome are embedded in the page, out of how many."""
    header = ("stage", "subset", "outcome", "shown", "of")
    data = tuple((*key, *pair) for key, pair in choice.strata.items())
    columns = tuple(Column(h, numeric=h in ("shown", "of")) for h in header)
    lines = tuple(tuple(Cell(str(v)) for v in row) for row in data)
    return Table("selection", "What is embedded here", columns, lines, header, data)


def stages_table(stages: Sequence[Stage]) -> Table:
    """What each stage of the run cost."""
    header = ("stage", "wall_s", "peak_memory_bytes", "reused")
    data = tuple((s.name, s.wall_s, s.peak_memory_bytes, str(bool(s.reused)).lower()) for s in stages)
    lines = tuple(
        (
            Cell(s.name),
            Cell(_duration(s.wall_s)),
            Cell(_gibibytes(s.peak_memory_bytes)),
            Cell("yes" if s.reused else "no"),
        )
        for s in stages
    )
    columns = (Column("stage", numeric=False), Column("wall clock"), Column("peak memory"), Column("reused"))
    return Table("stages", "Cost of each stage", columns, lines, header, data)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _gibibytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**30:.2f} GiB"


def _seed_name(seed: int | None) -> str:
    return "" if seed is None else f"seed {seed}"


def _values(row: SummaryRow) -> tuple[Scalar, ...]:
    return tuple(row.model_dump(mode="json").values())
