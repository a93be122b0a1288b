"""Training curves of each stage: ``training/<stage>-seed-<seed>.jsonl``, one line a logged step.

A loss that a stage does not have (null, or 0 throughout: no labelled row) has no panel. Charts and CSV are thinned to
at most ``MAX_POINTS`` a run by averaging neighbours; nothing is smoothed beyond that.

Example:
    >>> thinned([1, 2, 3, 4], [4.0, 2.0, 1.0, 1.0], limit=2)
    ([2, 4], [3.0, 1.0])
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from videosafety.core.jsonl import read_records
from videosafety.html.charts import Line, line_panels
from videosafety.html.table import Cell, Column, Table
from videosafety.html.text import Scalar
from videosafety.report.rows import stage_rank

MAX_POINTS = 150
LOSSES = {  # in the order of the panels
    "loss": "total loss",
    "loss_answer": "answer, cross-entropy",
    "loss_visual": "visual alarm, BCE",
    "loss_textual": "textual alarm, BCE",
}
_NAME = re.compile(r"^(?P<stage>.+)-seed-(?P<seed>\d+)$")


class Point(BaseModel):
    """One logged step; what is not known is null. ``seconds`` since the stage began."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    step: int
    loss: float | None = None
    loss_answer: float | None = None
    loss_visual: float | None = None
    loss_textual: float | None = None
    learning_rate: float | None = None
    tokens: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Curve:
    """The points of one training run of one stage, in the order of their steps."""

    stage: str
    seed: int
    points: tuple[Point, ...]

    def values(self, loss: str) -> tuple[list[int], list[float]]:
        """Steps and values of one loss, without the steps that do not have it; empty where it is 0 throughout."""
        known = [(point.step, value) for point in self.points if (value := getattr(point, loss)) is not None]
        if not any(value for _, value in known):
            return [], []
        return [step for step, _ in known], [value for _, value in known]


def read_curves(folder: Path) -> tuple[Curve, ...]:
    """The curves of a run folder, stages in the order of the method, then by seed.

    Raises:
        RecordError: a line does not load.
    """
    curves = []
    for path in folder.glob("training/*.jsonl"):
        if (name := _NAME.match(path.stem)) and path.stat().st_size:
            points = sorted(read_records(path, Point, unique=None), key=lambda point: point.step)
            curves.append(Curve(name["stage"], int(name["seed"]), tuple(points)))
    return tuple(sorted(curves, key=lambda curve: (stage_rank(curve.stage), curve.stage, curve.seed)))


def thinned(steps: Sequence[int], values: Sequence[float], *, limit: int = MAX_POINTS) -> tuple[list[int], list[float]]:
    """At most ``limit`` points: the mean of neighbouring values, at their last step."""
    size = max(1, -(-len(steps) // limit))
    parts = [slice(start, start + size) for start in range(0, len(steps), size)]
    return [steps[part][-1] for part in parts], [sum(values[part]) / len(values[part]) for part in parts]


def curve_charts(curves: Sequence[Curve]) -> list[tuple[str, str, Markup]]:
    """One chart a stage: (file name, title, SVG)."""
    charts = []
    for number, stage in enumerate(_stages(curves), start=1):
        mine = [curve for curve in curves if curve.stage == stage]
        losses = [loss for loss in LOSSES if any(curve.values(loss)[0] for curve in mine)]
        if losses == ["loss", "loss_answer"]:  # the same thing twice
            losses = ["loss_answer"]
        lines = [
            Line(LOSSES[loss], *thinned(*curve.values(loss)))
            for loss in losses
            for curve in mine
            if curve.values(loss)[0]
        ]
        if lines:
            title = f"Training: {stage}, {len(mine)} run{'s' if len(mine) > 1 else ''}"
            charts.append((f"training-{number}", title, line_panels(lines, title=title, x_title="step")))
    return charts


def training_table(curves: Sequence[Curve]) -> Table:
    """One row a stage: each loss at the start and at the end (means of a tenth of the steps, over runs), and the time.

    The CSV holds the points of the charts.
    """
    columns = (
        Column("stage", numeric=False), Column("runs"), Column("steps"), *(Column(label) for label in LOSSES.values()),
        Column("minutes a run"),
    )  # fmt: skip
    lines = []
    for stage in _stages(curves):
        mine = [curve for curve in curves if curve.stage == stage]
        steps = max(curve.points[-1].step for curve in mine)
        seconds = [curve.points[-1].seconds or 0.0 for curve in mine]
        ends = [_ends([curve.values(loss)[1] for curve in mine]) for loss in LOSSES]
        minutes = Cell(f"{sum(seconds) / len(seconds) / 60:.1f}" if any(seconds) else "–")
        lines.append((Cell(stage), Cell(f"{len(mine)}"), Cell(f"{steps:,}"), *ends, minutes))
    data: list[tuple[Scalar, ...]] = [
        (curve.stage, curve.seed, loss, step, value)
        for curve in curves
        for loss in LOSSES
        for step, value in zip(*thinned(*curve.values(loss)), strict=True)
    ]
    header = ("stage", "seed", "loss", "step", "value")
    title = "Losses at the start and at the end of each stage"
    return Table("training", title, columns, tuple(lines), header, tuple(data))


def _stages(curves: Sequence[Curve]) -> list[str]:
    return list(dict.fromkeys(curve.stage for curve in curves))


def _ends(runs: Sequence[Sequence[float]]) -> Cell:
    """``2.31 → 0.40``; a dash where no run has this loss."""
    known = [values for values in runs if values]
    if not known:
        return Cell("–")
    tenth = [max(1, len(values) // 10) for values in known]
    first = [sum(values[:k]) / k for values, k in zip(known, tenth, strict=True)]
    last = [sum(values[-k:]) / k for values, k in zip(known, tenth, strict=True)]
    return Cell(f"{sum(first) / len(first):.3f} → {sum(last) / len(last):.3f}")
