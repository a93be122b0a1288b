"""The headline and the page's tables as Markdown, for ``results/`` and the README: the headline has a column a stage.

Example:
    >>> print(markdown([]))
    No rows yet.
"""

from collections.abc import Sequence
from pathlib import Path

from videosafety.core.ablation import AblationRow
from videosafety.core.alarm_metrics import AlarmRow
from videosafety.core.metrics import SummaryRow
from videosafety.html.table import Cell, Table
from videosafety.html.text import visible
from videosafety.report.ablations import ability_table, ablation_table, step_table
from videosafety.report.alarms import alarm_tables
from videosafety.report.collect import read_rows
from videosafety.report.curves import read_curves, training_table
from videosafety.report.headline import DROPS, MEASURES, drop
from videosafety.report.policy import policy_table, read_policy
from videosafety.report.rows import Setting, by_seed, interval, of, parts, percent, pooled, settings, whole


def markdown(rows: Sequence[SummaryRow]) -> str:
    """Percent with the 95 % interval, n items in how many clusters, and the range over training seeds."""
    columns = [(setting, of(rows, setting)) for setting in settings(rows)]
    if not columns:
        return "No rows yet."
    lines = ["| " + " | ".join(["percent, with 95 % interval", *(_name(setting) for setting, _ in columns)]) + " |"]
    lines.append("|---" + "|---:" * len(columns) + "|")
    for measure in MEASURES:
        where = {"subset": measure.subset, "arm": measure.arm}
        cells = [_cell(some, measure.metric, **where) for _, some in columns]
        lines.append(f"| {measure.group}: {measure.label} | " + " | ".join(cells) + " |")
    for subset in ("HH", "SH", "composed", "SafeQ"):
        cells = [_babble(some, subset) for _, some in columns]
        lines.append(f"| {subset} with video: incoherent + wrong | " + " | ".join(cells) + " |")
    for label, metric in DROPS:
        cells = [_plain(drop(some, metric)) for _, some in columns]
        lines.append(f"| Drop on HH, {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures_markdown(folder: Path) -> str:
    """The page's tables of the defence from a folder's ``alarms.json``, ``steps.json``, ``ability.json``,
    ``ablations.json`` and ``training/``; "" where there are none.

    Raises:
        RecordError: a row does not load.
    """
    compared = read_rows(folder / "ablations.json", AblationRow)
    tables = [
        *alarm_tables(read_rows(folder / "alarms.json", AlarmRow)),
        step_table(read_rows(folder / "steps.json", AblationRow)),
        ability_table(read_rows(folder / "ability.json", AblationRow)),
        ablation_table(whole(compared)),
        ablation_table(parts(compared), title="Each variant, on the rows of their own"),
        training_table(read_curves(folder)),
        policy_table(read_policy(folder)),
    ]
    return "\n\n".join(table_markdown(table) for table in tables if table.rows)


def table_markdown(table: Table) -> str:
    """A table of the page: its title, values with their interval and n behind them, and its note."""
    heads = [  # a group is named where it starts
        f"{column.group}: {column.label}" if number in table.starts else column.label
        for number, column in enumerate(table.columns)
    ]
    lines = ["| " + " | ".join(_plain_text(head) for head in heads) + " |"]
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in table.rows:
        cells = [_cell_text(cell, strong=column.numeric) for cell, column in zip(row, table.columns, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([f"### {_plain_text(table.title)}", "", *lines, *(["", table.note] if table.note else [])])


def _cell_text(cell: Cell, *, strong: bool) -> str:
    text, detail = _plain_text(cell.text), _plain_text(cell.detail.replace("\n", ", "))
    if strong and text not in ("", "–"):
        text = f"**{text}**"
    return f"{text} ({detail})" if detail else text


def _plain_text(text: str) -> str:
    """Text that stays in its cell: nothing in it is markup."""
    return visible(text).replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def _name(setting: Setting) -> str:
    split = setting.benchmark.partition(":")[2]
    return " ".join(part for part in (setting.stage or setting.model, split and f"({split})") if part)


def _cell(rows: Sequence[SummaryRow], metric: str, *, subset: str, arm: str) -> str:
    row = pooled(rows, metric, subset=subset, arm=arm)
    seeds = [r.value for r in by_seed(rows, metric, subset=subset, arm=arm).values() if r.value is not None]
    spread = f"; seeds {percent(min(seeds))} to {percent(max(seeds))}" if len(seeds) > 1 else ""
    return _plain(row) + spread if row is not None else "–"


def _plain(row: SummaryRow | None) -> str:
    if row is None:
        return "–"
    return f"**{percent(row.value)}** ({interval(row)}), n {row.n:,} in {row.cluster_n:,}"


def _babble(rows: Sequence[SummaryRow], subset: str) -> str:
    metrics = ("incoherent", "wrong") if subset == "SafeQ" else ("incoherent",)
    found = [r.value for m in metrics if (r := pooled(rows, m, subset=subset, arm="video")) and r.value is not None]
    return f"**{percent(sum(found))}**" if found else "–"
