"""What is committed of a run: tables with the rows behind them, never weights, never media.

Example:
    >>> publish(Path("runs/toy_small_seeds"), Path("results/toy_small"))        # doctest: +SKIP
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videosafety.chain import ABLATIONS, NOTICE, TRAININGS
from videosafety.core.jsonl import canonical_json, read_json
from videosafety.core.metrics import Metric, SummaryRow
from videosafety.core.store import write_json, write_text
from videosafety.report.markdown import figures_markdown, markdown
from videosafety.report.policy import policy_lines, read_policy
from videosafety.report.rows import is_variant, main_rows, split_rows

EXACT = "oracle"
BY_JUDGE = (ABLATIONS, "ability.json", "steps.json")
MOVEMENT_NOTE = """Euclidean norms, least to largest over seeds; a stage that variants share stands once. Embeddings
are tied, so the answer loss moves a row from the LM head's side too: a row whose alarm no prompt holds moves as well.
Within bounds: share of the positions measured at folding at which all verdict tokens together are below 1e-6 and none
is among the 20 best."""


def results_table(folder: Path) -> str:
    """``table.md`` of a results folder: headline, rows of their own, and the defence's tables, by the oracle alone."""
    rows = [SummaryRow.model_validate(row) for row in read_json(folder / "summary.json") if row["judge"] == EXACT]
    texts = [f"## {title}\n\n{markdown(some)}"
             for title, some in (("Headline", main_rows(rows)), ("Rows of their own", split_rows(rows)))]  # fmt: skip
    texts += [text for text in (figures_markdown(folder), _movement(folder)) if text]
    return "\n\n".join([NOTICE, *texts]) + "\n"


def _movement(folder: Path) -> str:
    """How far the alarm rows moved, and how the verdict rows stand: a line a checkpoint's stage, over seeds."""
    if not (folder / TRAININGS).is_file():
        return ""
    heads = ("", "steps", "visual row moved", "textual row moved", "norm after", "verdict rows within bounds")
    lines = ["### How far the alarm rows moved", "", f"| {' | '.join(heads)} |", "|---" + "|---:" * 5 + "|"]
    by_stage: dict[tuple[str, str], list[Any]] = {}
    for row in read_json(folder / TRAININGS):
        if row["alarm_rows"]:
            by_stage.setdefault((row["model"], row["stage"]), []).append(row)
    if not by_stage:
        return ""
    for (model, stage), some in by_stage.items():
        moved = [[row["alarm_rows"][a]["moved"] for row in some] for a in (0, 1)]
        after = [row["alarm_rows"][a]["after"] for row in some for a in (0, 1)]
        within = [row["verdict_share_within"] for row in some if row["verdict_share_within"] is not None]
        cells = [f"{model} {stage}", str(some[0]["num_steps"]), *map(_range, (*moved, after)), _range(within)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", MOVEMENT_NOTE])


def _range(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _is_kept(row: SummaryRow, *, variant: bool) -> bool:
    if variant or row.judge != EXACT:
        whole = row.language is None and row.category is None and row.seed is None
        return whole and not (variant and row.judge != EXACT)
    return (row.language is None and row.category is None) or row.metric in (Metric.DSR, Metric.FRR)


def publish(folder: Path, results: Path) -> None:
    """Write what is committed of a run: ``run.json``, ``table.md``, and the rows behind it.

    Left out: languages and categories crossed, and either of them by seed; by language or category all but DSR and FRR;
    variants and other judges than the oracle but for their pooled rows; of stage 4's steps all that its table does not
    show. The run's own page shows those.
    """
    rows = [SummaryRow.model_validate(row) for row in read_json(folder / "summary.json")]
    rows = [r for r in rows if (r.language is not None) + (r.category is not None) + (r.seed is not None) <= 1]
    models = {row.model for row in rows}
    kept = [row for row in rows if _is_kept(row, variant=is_variant(row.model, models))]
    write_json(results / "summary.json", [row.model_dump(mode="json") for row in kept])
    write_json(results / "run.json", read_json(folder / "run.json"))
    for name in (*BY_JUDGE, "alarms.json", TRAININGS):
        if (folder / name).is_file():
            found = read_json(folder / name)
            write_json(results / name, [r for r in found if name not in BY_JUDGE or r["judge"] == EXACT])
    for run in read_policy(folder):
        lines = "".join(f"{canonical_json(line).decode()}\n" for line in policy_lines(run))
        write_text(results / "training" / f"grpo-seed-{run.seed}.policy.jsonl", lines)
    write_text(results / "table.md", results_table(results))
