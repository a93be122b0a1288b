"""The headline as Markdown, for ``results/`` and the README: a line a measure, a column a stage.

Example:
    >>> print(markdown([]))
    No rows yet.
"""

from collections.abc import Sequence

from videosafety.core.metrics import SummaryRow
from videosafety.report.headline import DROPS, MEASURES, drop
from videosafety.report.rows import Setting, by_seed, interval, of, percent, pooled, settings


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
