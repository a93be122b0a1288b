"""What is committed of a run: tables with the rows behind them, never weights, never media.

Example:
    >>> publish(Path("runs/toy_small_seeds"), Path("results/toy_small"))        # doctest: +SKIP
"""

from collections.abc import Sequence
from pathlib import Path

from videosafety.chain import ABLATIONS, NOTICE
from videosafety.core.jsonl import read_json
from videosafety.core.metrics import SummaryRow
from videosafety.core.store import write_json, write_text
from videosafety.report.markdown import markdown
from videosafety.report.rows import main_rows, split_rows

EXTRA = (ABLATIONS, "alarms.json", "ability.json", "training.json")


def results_table(rows: Sequence[SummaryRow]) -> str:
    """``table.md``: what the oracle found, the headline and the rows of their own."""
    exact = [row for row in rows if row.judge == "oracle"]
    tables = {"Headline": main_rows(exact), "Rows of their own": split_rows(exact)}
    text = "\n\n".join(f"## {title}\n\n{markdown(some)}" for title, some in tables.items())
    return f"{NOTICE}\n\n{text}\n"


def publish(folder: Path, results: Path) -> None:
    """Write what is committed of a run: ``run.json``, ``table.md``, and the rows behind it.

    Left out: languages and categories crossed, and either of them by seed; the run's own page shows those.
    """
    rows = [SummaryRow.model_validate(row) for row in read_json(folder / "summary.json")]
    kept = [r for r in rows if (r.language is not None) + (r.category is not None) + (r.seed is not None) <= 1]
    write_json(results / "summary.json", [row.model_dump(mode="json") for row in kept])
    write_text(results / "table.md", results_table(kept))
    write_json(results / "run.json", read_json(folder / "run.json"))
    for name in EXTRA:
        if (folder / name).is_file():
            write_json(results / name, read_json(folder / name))
