"""Comparisons on the page: general ability after each stage, what each stage changed, and the ablations.

The first two are computed from the run's own evaluations; ablations compare several runs, so they come as
``ablations.json``, the rows of ``core.ablation.compare``.

Example:
    >>> ability_rows([])
    []
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from videosafety.core.ablation import MARGIN, AblationRow, Verdict, by_stage, compare, non_inferiority
from videosafety.core.scored import ScoredItem, score
from videosafety.evaluate.arms import words_alone
from videosafety.html.table import Cell, Column, Table
from videosafety.report.collect import Evaluation
from videosafety.report.rows import STAGES, percent, stage_rank, whole

ROW_FIELDS = tuple(AblationRow.model_fields)
BASE = STAGES[0]
NAMES = {"dsr": "DSR", "frr": "FRR"}


def scored_items(evaluation: Evaluation) -> list[ScoredItem]:
    """Every verdict whose item and labels of (item, arm) are known."""
    info = evaluation.info
    samples = {sample.id: sample for sample in evaluation.samples}
    return [
        score(samples[v.sample_id], evaluation.labels[v.sample_id, v.arm], v, benchmark=info.benchmark,
              model=info.model, stage=info.stage or None, seed=info.seed, words_alone=words_alone(v.arm))
        for v in evaluation.verdicts
        if (v.sample_id, v.arm) in evaluation.labels
    ]  # fmt: skip


def ability_rows(evaluations: Sequence[Evaluation]) -> list[AblationRow]:
    """HELPFUL on SafeQ after every stage against the base of the same model; nothing where there is no base."""
    rows: list[AblationRow] = []
    for items, stages in _by_model(evaluations):
        if BASE in stages:
            rows += non_inferiority(items, base=BASE, stages=[stage for stage in stages if stage != BASE])
    return rows


def step_rows(evaluations: Sequence[Evaluation]) -> list[AblationRow]:
    """Every stage against the one before it, for whole benchmarks; Holm's correction runs over the rows of one step."""
    rows: list[AblationRow] = []
    for items, stages in _by_model(evaluations):
        for before, after in pairwise(stages):
            rows += compare([item for item in items if by_stage(item) in (before, after)], reference=before)
    return whole(rows)


def _by_model(evaluations: Sequence[Evaluation]) -> Iterator[tuple[list[ScoredItem], list[str]]]:
    """The items of each model, and its stages in their order."""
    by_model: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_model.setdefault(evaluation.info.model, []).append(evaluation)
    for model in sorted(by_model):
        items = [item for evaluation in by_model[model] for item in scored_items(evaluation)]
        yield items, sorted({by_stage(item) for item in items}, key=lambda stage: (stage_rank(stage), stage))


def ability_table(rows: Sequence[AblationRow]) -> Table:
    """One row a stage: HELPFUL, the difference to the base, and whether it is non-inferior."""
    note = (
        f"HELPFUL on SafeQ with video, percent, paired by seed and item. Non-inferior: the 95 % interval of the "
        f"difference lies above −{100 * MARGIN:g} points; inferior: below; else not shown."
    )
    return _table("ability", "General ability after each stage", rows, note=note, with_p=False)


def step_table(rows: Sequence[AblationRow], *, judge: str | None = None) -> Table:
    """One row for each step and measure, by one judge or by all; the stage before is the reference."""
    shown = [row for row in rows if judge in (None, row.judge)]
    return ablation_table(shown, name="steps", title="What each stage changed" + (f", judge {judge}" if judge else ""))


def ablation_table(
    rows: Sequence[AblationRow], *, name: str = "ablations", title: str = "Each variant against the reference"
) -> Table:
    """One row for each variant and measure: both values, the difference, p, and the verdict."""
    note = (
        "Percent, paired by seed, item and arm; differences in points, 95 % intervals over training runs and clips. "
        "p by Holm over a benchmark's rows (of one step, where stages are compared); below it the exact sign flip of "
        "whole seeds, which with 5 seeds cannot fall below 0.0625. Fewer than 5 seeds: no p, and an interval over "
        "clips alone."
    )
    return _table(name, title, rows, note=note, with_p=True)


def _table(name: str, title: str, rows: Sequence[AblationRow], *, note: str, with_p: bool) -> Table:
    labels = ("measure", "value", "reference", "difference", *(("p (Holm)",) if with_p else ()), "verdict")
    text = ("measure", "verdict")
    columns = (Column("", numeric=False), *(Column(label, numeric=label not in text) for label in labels))
    judges = {row.judge for row in rows}
    lines = []
    for row in rows:
        split, judge = row.benchmark.partition(":")[2], f"judge {row.judge}" if len(judges) > 1 else ""
        variant = row.variant.removeprefix(f"{row.reference}/")
        head = Cell(variant, " · ".join(part for part in (f"against {row.reference}", split, judge) if part))
        measure = Cell(f"{row.subset} · {row.arm}: {NAMES.get(row.metric, row.metric)}")
        counts = f"n {row.n:,} in {row.cluster_n:,}\n{row.num_seeds} seed{'s' if row.num_seeds != 1 else ''}"
        values = (Cell(percent(row.value), counts), Cell(percent(row.reference_value)), _difference(row))
        silent = row.verdict in (Verdict.TOO_FEW_CLUSTERS, Verdict.TOO_FEW_SEEDS)
        within = "of these runs" if row.interval == "within_seeds" and not silent else ""
        p = (_pvalue(row),) if with_p else ()
        lines.append((head, measure, *values, *p, Cell(row.verdict.value, within, muted=silent)))
    data = tuple(tuple(row.model_dump(mode="json").values()) for row in rows)
    return Table(name, title, columns, tuple(lines), ROW_FIELDS, data, note)


def _difference(row: AblationRow) -> Cell:
    value = percent(row.difference)
    value = f"+{value}" if row.difference > 0 and value != "0.0" else value.replace("−0.0", "0.0")
    if row.low is None or row.high is None:
        return Cell(value, "too few clusters")
    return Cell(value, f"{percent(row.low)} – {percent(row.high)}")


def _pvalue(row: AblationRow) -> Cell:
    if row.p_holm is None:
        return Cell("–")
    shown = "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
    return Cell(shown, "" if row.p_flip is None else f"flip {row.p_flip:.3f}")
