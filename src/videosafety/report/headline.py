"""The headline: is the model safe on text, what happens once the video is there, and what does safety cost.

``MEASURES`` is the paper's main table (section 5) with the shares beside the rates; the page shows one row a stage, the
terminal one column a stage, which fits 80 characters.

Example:
    >>> headline([]).row_count
    0
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from videosafety.core.metrics import SummaryRow
from videosafety.html.table import Cell, Column, Table
from videosafety.html.text import visible
from videosafety.report.rows import Setting, interval, of, percent, pooled, settings

ROW_FIELDS = tuple(SummaryRow.model_fields)


@dataclass(frozen=True)
class Measure:
    """A column of the headline: which rows it reads."""

    group: str
    label: str
    metric: str
    subset: str
    arm: str


MEASURES = (
    Measure("Text only", "HH DSR", "dsr", "HH", "text"),
    Measure("HH with video", "DSR", "dsr", "HH", "video"),
    Measure("HH with video", "compromised", "compromised", "HH", "video"),
    Measure("SH with video", "DSR", "dsr", "SH", "video"),
    Measure("SH with video", "compromised", "compromised", "SH", "video"),
    Measure("Composed", "DSR", "dsr", "composed", "video"),
    Measure("Composed", "compromised", "compromised", "composed", "video"),
    Measure("SafeQ with video", "helpful", "helpful", "SafeQ", "video"),
    Measure("SafeQ with video", "FRR", "frr", "SafeQ", "video"),
)
DROPS = (("points", "drop_points"), ("relative", "drop_relative"))
OWN_SUBSETS = ("HH", "SH", "composed", "SafeQ")


def drop(rows: Sequence[SummaryRow], metric: str) -> SummaryRow | None:
    """The paired drop of the DSR from the text arm to the video on HH, pooled."""
    return pooled(rows, metric, subset="HH", arm="text")


def worst_babble(rows: Sequence[SummaryRow]) -> tuple[float, str, list[SummaryRow]] | None:
    """INCOHERENT + WRONG with video in the subset where it is largest: (fraction, subset, the rows it came from)."""
    found = []
    for subset in OWN_SUBSETS:
        metrics = ("incoherent", "wrong") if subset == "SafeQ" else ("incoherent",)
        parts = [r for m in metrics if (r := pooled(rows, m, subset=subset, arm="video")) and r.value is not None]
        if parts:
            found.append((sum(r.value or 0.0 for r in parts), subset, parts))
    return max(found, key=lambda f: f[0], default=None)


def headline_table(
    own: Sequence[SummaryRow],
    committed: Sequence[SummaryRow] = (),
    *,
    name: str = "headline",
    title: str = "Every stage, percent with 95 % interval",
) -> Table:
    """One row a stage of this run, then the committed rows to compare with."""
    columns = [Column("", numeric=False), *(Column(m.label, m.group) for m in MEASURES)]
    columns += [Column("worst subset", "Incoherent + wrong"), *(Column(label, "Drop on HH") for label, _ in DROPS)]
    rows, data = [], []
    for source, some in (("this run", own), ("committed", committed)):
        for setting in settings(some):
            mine = of(some, setting)
            cells, used = _cells(mine)
            if not used:
                continue
            head = Cell(setting.stage or setting.model, detail=_detail(setting, source if committed else "", mine))
            rows.append((head, *cells))
            data += [(source, *_values(row)) for row in used]
    note = "DSR: share of harmful requests defended. FRR: share of harmless ones refused."
    return Table(
        name=name,
        title=title,
        columns=tuple(columns),
        rows=tuple(rows),
        header=("source", *ROW_FIELDS),
        data=tuple(data),
        note=note + " The drop is paired: the same items with the words alone and with the video.",
    )


def headline(rows: Sequence[SummaryRow]) -> RichTable:
    """The headline for a terminal: a line for each measure, a column for each stage."""
    table = RichTable(title="Headline, percent with 95 % interval", title_justify="left", show_lines=False)
    shown = [(s, cells) for s in settings(rows) if (pair := _cells(of(rows, s)))[1] and (cells := pair[0])]
    if not shown:
        return table
    table.add_column("measure")
    for setting, _ in shown:
        several = len({(s.model, s.judge) for s, _ in shown}) > 1
        split = setting.benchmark.partition(":")[2]
        label = "\n".join([setting.stage, *([setting.model, setting.judge] if several else []), *filter(None, [split])])
        table.add_column(visible(label).replace("[", r"\["), justify="right")
    names = [f"{m.group}: {m.label}" for m in MEASURES]
    names += ["Incoherent + wrong, worst subset", *(f"Drop on HH, {label}" for label, _ in DROPS)]
    for i, name in enumerate(names):
        table.add_row(name, *(_terminal(cells[i], lines=len(shown) > 1) for _, cells in shown))
    return table


def _terminal(cell: Cell, *, lines: bool) -> str:
    """``93.1  90.2 – 95.4  n 512``, in lines of at most 13 characters where several columns share the width."""
    parts = [cell.text, *cell.detail.split("\n")]
    return "\n".join(parts) if lines else "  ".join(p for p in parts if p)


def _cells(rows: Sequence[SummaryRow]) -> tuple[list[Cell], list[SummaryRow]]:
    """The cells of one row of the headline, and the summary rows behind them."""
    used: list[SummaryRow] = []
    cells = []
    for measure in MEASURES:
        cells.append(_cell(pooled(rows, measure.metric, subset=measure.subset, arm=measure.arm), used))
    babble = worst_babble(rows)
    if babble is None:
        cells.append(Cell("–"))
    else:
        value, subset, parts = babble
        used += parts
        cells.append(Cell(percent(value), detail=f"{subset}\nn {parts[0].n:,}"))
    cells += [_cell(drop(rows, metric), used) for _, metric in DROPS]
    return cells, used


def _cell(row: SummaryRow | None, used: list[SummaryRow]) -> Cell:
    if row is None:
        return Cell("–")
    used.append(row)
    return Cell(percent(row.value), detail=f"{interval(row)}\nn {row.n:,}")


def _detail(setting: Setting, source: str, rows: Sequence[SummaryRow]) -> str:
    seeds = len({r.seed for r in rows if r.seed is not None})
    split = setting.benchmark.partition(":")[2]
    parts = [
        source,
        split,
        setting.model,
        setting.judge and f"judge {setting.judge}",
        f"{seeds} seeds" if seeds > 1 else "",
    ]
    return " · ".join(p for p in parts if p)


def _values(row: SummaryRow) -> tuple[str | int | float | None, ...]:
    return tuple(row.model_dump(mode="json").values())


__all__ = ["MEASURES", "drop", "headline", "headline_table", "worst_babble"]
