"""A sweep on paper: one table, one plot, the critical ranges, as ``sweep.html``, ``.md``, ``.csv`` and ``.json``.

Example:
    >>> write_sweep(Path("runs/toy_sweep"), sweep)                              # doctest: +SKIP
    PosixPath('runs/toy_sweep/sweep.html')
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from videosafety.core.ablation import HELPFUL, Target, Verdict
from videosafety.core.store import write_json, write_text
from videosafety.html.page import render
from videosafety.html.panels import Dot, DotPanel, Series, dot_panels, glyph
from videosafety.html.table import Cell, Column, Table
from videosafety.report.markdown import table_markdown
from videosafety.report.rows import interval, percent
from videosafety.report.sweeps import (
    MEASURES,
    NAMES,
    Point,
    Span,
    Sweep,
    critical_ranges,
    is_number,
    literal,
    measure_name,
)

_GROUPS = {
    "dsr": "DSR with video",
    "helpful": "SafeQ with video",
    "frr": "SafeQ with video",
    "incoherent": "Incoherent",
}
DRAWN = (MEASURES[0], MEASURES[2], MEASURES[4])
DECADES = 100  # largest over smallest value from which an axis is logarithmic
OWN = "the recipe's own"
_NOWHERE = "at no value tried"
_SECTIONS = (("plot", "Plot"), ("ranges", "Critical ranges"), ("table", "Table"))


def range_table(sweep: Sweep) -> Table:
    """One row for each span of each numeric key, or one that says that the targets are met nowhere."""
    labels = ("", "recipe's own", "values tried", "targets met", "first missed below", "first missed above")
    columns = tuple(Column(label, numeric=False) for label in labels)
    lines, data = [], []
    for found in critical_ranges(sweep):
        head = (Cell(found.key), Cell("–" if found.own is None else literal(found.own)),
                Cell(", ".join(literal(value) for value in found.tried)))  # fmt: skip
        for span in found.spans or (None,):
            lines.append((*head, *_span_cells(span)))
            low, high, below, above = (getattr(span, end, None) for end in ("low", "high", "below", "above"))
            data.append((found.key, found.own, " ".join(map(literal, found.tried)), low, high, below, above))
    header = ("key", "own", "tried", "met_from", "met_to", "first_missed_below", "first_missed_above")
    note = (
        f"Targets: {sweep.targets.sentence}, as point estimates. Met at the values tried from … to; the first value "
        "tried beyond is given with what it misses. Between two neighbouring values nothing is known, nor beyond the "
        "outermost ones."
    )
    title = f"Critical ranges after {sweep.stage}, one key at a time"
    return Table("sweep-ranges", title, columns, tuple(lines), header, tuple(data), note)


def range_lines(sweep: Sweep) -> list[str]:
    """The critical ranges for a terminal, a line each."""
    lines = []
    for line in range_table(sweep).rows:
        key, own, tried, met, below, above = (cell.text for cell in line)
        lines.append(f"{key} (own {own}; tried {tried}): met {met}; first missed below {below}, above {above}"
                     if met != _NOWHERE else f"{key} (own {own}; tried {tried}): met {met}")  # fmt: skip
    return lines


def _span_cells(span: Span | None) -> tuple[Cell, Cell, Cell]:
    if span is None:
        return Cell(_NOWHERE), Cell("–"), Cell("–")
    met = literal(span.low) if span.low == span.high else f"{literal(span.low)} to {literal(span.high)}"
    ends = [Cell("none tried") if end is None else Cell(literal(end), "\n".join(missed))
            for end, missed in ((span.below, span.missed_below), (span.above, span.missed_above))]  # fmt: skip
    return Cell(met), ends[0], ends[1]


def sweep_table(sweep: Sweep) -> Table:
    """One row for each key and value (in a grid: each point): every measure, its paired difference, p, n."""
    columns = (Column("", numeric=False), Column("targets", numeric=False),
               *(Column(_column(measure), _GROUPS[measure.metric]) for measure in MEASURES), Column("n"))  # fmt: skip
    note = (
        f"Percent of the scored answers with their 95 % interval; Δ: difference to the recipe itself in points, paired "
        f"by seed and item, with its 95 % interval; p by Holm over all rows of the sweep, none below 5 seeds. n: "
        f"answers with video over {len(sweep.seeds)} seed{'s' if len(sweep.seeds) != 1 else ''}. "
        f"Targets: {sweep.targets.sentence}. Keys: {', '.join(sweep.axes)}."
    )
    lines = tuple((Cell(head, detail), _met(sweep, point), *(_cell(sweep, point, m) for m in MEASURES),
                   _count(sweep, point)) for head, detail, point in _lines(sweep))  # fmt: skip
    title = f"{sweep.name} after {sweep.stage}: each value against {OWN}"
    return Table("sweep", title, columns, lines, *_tidy(sweep), note)


def _column(measure: Target) -> str:
    return NAMES[measure.metric] if measure.metric in ("frr", "helpful") else measure.subset


def _lines(sweep: Sweep) -> list[tuple[str, str, Point]]:
    """(what heads the row, what stands below it, the point)."""
    names = short_names(sweep.axes)
    if sweep.is_grid:
        return [(_settings(p, names), "" if p.changed else OWN, p) for p in sweep.points]
    return [(_settings(p, {key: name}), "" if p.changed else OWN, p)
            for key, name in names.items() for p in sweep.along(key)]  # fmt: skip


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The shortest end of each dotted key that tells it from the others."""
    known = [key.split(".") for key in keys]
    found = {}
    for parts in known:
        sizes = (size for size in range(1, len(parts) + 1) if sum(k[-size:] == parts[-size:] for k in known) == 1)
        found[".".join(parts)] = ".".join(parts[-next(sizes, len(parts)) :])
    return found


def _settings(point: Point, names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {literal(point.settings[key])}" for key, name in names.items())


def _met(sweep: Sweep, point: Point) -> Cell:
    missed = sweep.missed(point)
    return Cell("missed", "\n".join(missed)) if missed else Cell("met")


def _cell(sweep: Sweep, point: Point, measure: Target) -> Cell:
    row, found = sweep.value(point, measure), sweep.difference(point, measure)
    if row is None or row.value is None:
        return Cell("–")
    parts = [interval(row)]
    if found is not None:
        value = percent(found.difference)
        parts.append("Δ " + ("0.0" if value in ("0.0", "−0.0") else f"+{value}" if found.difference > 0 else value))
        parts += [] if found.low is None else [f"({percent(found.low)} – {percent(found.high)})"]
    if found is not None and found.p_holm is not None:
        p = "p < 0.001" if found.p_holm < 0.001 else f"p {found.p_holm:.3f}"
        parts.append(f"{p}, {found.verdict}" if found.verdict in (Verdict.BETTER, Verdict.WORSE) else p)
    return Cell(percent(row.value), "\n".join(parts))


def _count(sweep: Sweep, point: Point) -> Cell:
    """Scored answers with video, and those that could not be scored."""
    rows = [row for m in (*MEASURES[:3], HELPFUL) if (row := sweep.value(point, m)) is not None]
    unscored = sum(row.unscored for row in rows)
    clusters = f"{sum(row.cluster_n for row in rows):,} clusters"
    return Cell(f"{sum(row.n for row in rows):,}", clusters + (f"\n{unscored:,} unscored" if unscored else ""))


_SHOWN = ("value", "low", "high", "interval", "n", "cluster_n", "unscored")
_PAIRED = ("reference_value", "difference", "low", "high", "interval", "p", "p_flip", "p_holm", "verdict")


def _tidy(sweep: Sweep) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """Header and rows of the CSV: one row a point and measure."""
    named = (f"difference_{name}" if name in ("low", "high", "interval") else name for name in _PAIRED)
    header = ("point", "is_reference", *sweep.axes, "judge", "metric", "subset", *_SHOWN, *named, "seeds", "target")
    data = []
    for point in sweep.points:
        settings = [literal(point.settings[key]) for key in sweep.axes]
        for measure in MEASURES:
            if (row := sweep.value(point, measure)) is None:
                continue
            found = sweep.difference(point, measure)
            shown = row.model_dump(mode="json")
            paired = {} if found is None else found.model_dump(mode="json")
            data.append((point.name, str(not point.changed).lower(), *settings, sweep.judge, measure.metric,
                         measure.subset, *(shown[name] for name in _SHOWN), *(paired.get(name) for name in _PAIRED),
                         len(sweep.seeds), sweep.targets.of(measure)))  # fmt: skip
    return header, tuple(data)


def sweep_chart(sweep: Sweep) -> Markup:
    """One panel a key; in a grid of several keys one for each setting of all keys but the first."""
    first, *others = sweep.axes
    if sweep.is_grid and others:
        names = {key: name for key, name in short_names(sweep.axes).items() if key != first}
        groups: dict[str, list[Point]] = {}
        for point in sorted(sweep.points, key=lambda p: [_place(sweep, p, key) for key in sweep.axes]):
            groups.setdefault(_settings(point, names), []).append(point)
        panels = [_panel(sweep, first, some, label=label) for label, some in groups.items()]
    else:
        panels = [_panel(sweep, key, sweep.along(key), label=key.removeprefix("defend.")) for key in sweep.axes]
    return dot_panels(panels, title=f"{sweep.name} after {sweep.stage}: DSR and FRR over each setting")


def _place(sweep: Sweep, point: Point, key: str) -> int:
    """Where a point stands on the axis of a key."""
    return [literal(value) for value in sweep.axes[key]].index(literal(point.settings[key]))


def _panel(sweep: Sweep, key: str, points: Sequence[Point], *, label: str) -> DotPanel:
    axis = [value for value in sweep.axes[key] if any(literal(p.settings[key]) == literal(value) for p in points)]
    is_log = all(is_number(v) and v > 0 for v in axis) and max(axis) / min(axis) >= DECADES
    place = {literal(value): float(value) if is_log else literal(value) for value in axis}
    series = []
    for measure in DRAWN:
        rows = [(place[literal(p.settings[key])], sweep.value(p, measure)) for p in points]
        dots = tuple(Dot(x, row.value, row.low, row.high) for x, row in rows if row and row.value is not None)
        storey = NAMES[measure.metric]
        series.append(Series(storey, measure_name(measure), dots, sweep.targets.of(measure)))
    own = next((place[literal(p.settings[key])] for p in points if not p.changed), None)
    return DotPanel(label, tuple(place[literal(value)] for value in axis), tuple(series), own=own, is_log=is_log)


def chart_note(sweep: Sweep) -> str:
    """The plot's legend in words."""
    marks = ", ".join(f"{glyph(number)} {measure_name(measure)}" for number, measure in enumerate(DRAWN))
    first = next(iter(sweep.axes))
    across = f" Across: {first}." if sweep.is_grid and len(sweep.axes) > 1 else ""
    return f"{marks}; lines are 95 % intervals. Dotted: {OWN} value. Dashed: the targets.{across}"


def write_sweep(folder: Path, sweep: Sweep) -> Path:
    """``sweep.json``, ``sweep.csv``, ``sweep.md`` and ``sweep.html`` (last) in ``folder``; returns the page's path.

    Equal results give equal bytes.

    Raises:
        StorageError: the folder cannot be written.
    """
    table, ranges = sweep_table(sweep), range_table(sweep)
    write_json(folder / "sweep.json", {
        "name": sweep.name, "stage": sweep.stage, "seeds": sweep.seeds, "judge": sweep.judge, "grid": sweep.is_grid,
        "targets": sweep.targets.model_dump(), "axes": {key: list(values) for key, values in sweep.axes.items()},
        "points": [{"name": p.name, "model": p.model, "settings": dict(p.settings), "changed": p.changed,
                    "missed": sweep.missed(p)} for p in sweep.points],
        "ranges": [found.model_dump(mode="json") for found in critical_ranges(sweep)],
        "rows": [row.model_dump(mode="json") for row in sweep.rows],
        "comparisons": [row.model_dump(mode="json") for row in sweep.compared],
    })  # fmt: skip
    write_text(folder / "sweep.csv", table.csv)
    texts = [sweep.notice or "", *(table_markdown(one) for one in (ranges, table) if one.rows)]
    write_text(folder / "sweep.md", "\n\n".join(text for text in texts if text) + "\n")
    page = render("sweep.html.j2", package="videosafety.report", title=f"{sweep.name}: sweep", sweep=sweep,
                  sections=[(id, label) for id, label in _SECTIONS if id != "ranges" or ranges.rows],
                  table=table, ranges=ranges, chart=sweep_chart(sweep), chart_note=chart_note(sweep))  # fmt: skip
    write_text(folder / "sweep.html", page)
    return folder / "sweep.html"
