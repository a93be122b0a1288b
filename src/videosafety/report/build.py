"""A run folder becomes ``report.html``, ``tables/*.csv`` and ``plots/*.svg``: one static page, without a network.

The figures of the alarms and of general ability are computed here and kept beside the page as tidy rows, in
``alarms.json``, ``ability.json`` and ``steps.json``, where there are any.

Example:
    >>> build(Path("runs/demo"), committed=Path("results/toy/summary.json"))  # doctest: +SKIP
    PosixPath('runs/demo/report.html')
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup
from pydantic import BaseModel

from videosafety.core.ablation import AblationRow
from videosafety.core.alarm_metrics import AlarmRow
from videosafety.core.statistics import MIN_CLUSTERS
from videosafety.core.store import write_json, write_text
from videosafety.html.charts import alone
from videosafety.html.page import render
from videosafety.html.palette import HARMFUL_ORDER, SAFE_ORDER
from videosafety.html.table import Table
from videosafety.report import (
    ablations,
    alarms,
    arm_curves,
    curves,
    discordant,
    frontier,
    groups,
    judging,
    policy,
    tables,
)
from videosafety.report.cards import ClipCache, card
from videosafety.report.collect import Run, collect
from videosafety.report.finding import SAYS_NOTHING, caution, finding
from videosafety.report.headline import headline_table
from videosafety.report.rows import is_variant, main_rows, own_rows, parts, split_rows, variant_rows, whole
from videosafety.report.samples import browser
from videosafety.report.select import Choice, choose

MAX_SAMPLES = 10_000
MAX_CLIPS = 96
SELECTION_SEED = 0

Tables = dict[str, Table | list[Table] | None]
Charts = dict[str, list[tuple[str, str, Markup]]]  # (file name, title, SVG)


@dataclass(frozen=True)
class Figures:
    """What is computed from the evaluations, beside the rows of ``summary.json``."""

    alarms: list[AlarmRow]
    ability: list[AblationRow]
    steps: list[AblationRow]


def build(run_folder: Path, *, committed: Path | None = None, max_samples: int = MAX_SAMPLES) -> Path:
    """Write the page, its tables and its plots into ``run_folder``; returns the page's path.

    ``committed`` is a published ``summary.json`` to show beside the run's own headline. At most ``max_samples`` items
    are embedded, chosen evenly over stage, subset and outcome; the page says how many of how many.

    Raises:
        InputError: the folder holds nothing to report. RecordError: a file in it does not load.
        StorageError: the page cannot be written.
    """
    run = collect(run_folder, committed=committed)
    models = {e.info.model for e in run.evaluations}
    own = [e for e in run.evaluations if not is_variant(e.info.model, models)]
    choice = choose(own, max_samples=max_samples, seed=SELECTION_SEED)
    cache = ClipCache(page=run_folder)
    cache.embed(choose(own, max_samples=min(MAX_CLIPS, max_samples), seed=SELECTION_SEED).shown)
    cards = [card(item, cache=cache) for item in choice.shown]
    figures = Figures(alarms.alarm_rows(run.evaluations), ablations.ability_rows(run.evaluations),
                      ablations.step_rows(run.evaluations))  # fmt: skip
    all_tables, charts = _tables(run, choice, figures), _charts(run, figures)
    samples = browser(cards, cache.clips, name=run.info.name, key=_key(run))
    context = _context(run, choice, all_tables) | {"charts": charts, "browser": samples, "num_clips": len(cache.clips)}
    html = render("report.html.j2", package="videosafety.report", **context)
    _keep(run_folder / "alarms.json", figures.alarms)
    _keep(run_folder / "ability.json", figures.ability)
    _keep(run_folder / "steps.json", figures.steps)
    _write_tables(run_folder / "tables", all_tables)
    _write_plots(run_folder / "plots", charts)
    page = run_folder / "report.html"
    write_text(page, html)
    return page


def _write_tables(folder: Path, all_tables: Tables) -> None:
    """Every table that has lines as CSV."""
    for table in all_tables.values():
        for one in table if isinstance(table, list) else [table]:
            if one is not None and one.rows:
                write_text(folder / f"{one.name}.csv", one.csv)


def _write_plots(folder: Path, charts: Charts) -> None:
    """Every plot as an SVG that stands alone, in the light scheme's colours."""
    for some in charts.values():
        for name, _, svg in some:
            write_text(folder / f"{name}.svg", alone(svg))


def _key(run: Run) -> str:
    """Names the run in a browser's storage: the same for every page that is built of it."""
    about = f"{run.info.name}\n{run.info.created}\n{run.info.commit}"
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _keep(path: Path, rows: Sequence[BaseModel]) -> None:
    """The rows as a file; no file of an earlier attempt stays where there are none."""
    if rows:
        write_json(path, [row.model_dump(mode="json") for row in rows])
    else:
        path.unlink(missing_ok=True)


def _tables(run: Run, choice: Choice, figures: Figures) -> Tables:
    rows = own_rows(run.rows)
    return {
        "headline": headline_table(main_rows(run.rows), main_rows(run.committed)),
        "splits": headline_table(
            split_rows(run.rows),
            split_rows(run.committed),
            name="splits",
            title="Rows of their own: parts of the benchmark that the headline leaves out",
        ),
        "variants": headline_table(
            variant_rows(run.rows), name="variants", title="Variants: the same run with some keys changed"
        ),
        "arms": tables.arms_table(rows),
        "sweeps": arm_curves.arm_tables(rows),
        "frontier": frontier.frontier_table(main_rows(run.rows)),
        "discordant": discordant.pairs_table(run.evaluations),
        "discordant_items": discordant.items_table(run.evaluations),
        "judging": _judging(run),
        "groups": groups.group_tables(main_rows(run.rows)),
        "heat": tables.heat_tables(rows),
        "seeds": tables.seeds_table(rows),
        "alarms": alarms.alarm_tables(figures.alarms),
        "training": curves.training_table(run.curves),
        "policy": policy.policy_table(run.policy),
        "ability": ablations.ability_table(figures.ability),
        "steps": ablations.step_table(figures.steps, judge=_first_judge(run)),
        "ablations": ablations.ablation_table(whole(run.ablations)),
        "ablation_splits": ablations.ablation_table(
            parts(run.ablations), name="ablations-splits", title="Each variant, on the rows of their own"
        ),
        "account": tables.account_table(run.evaluations),
        "bounds": tables.bounds_table(run.rows),
        "strata": tables.strata_table(choice),
        "stages": tables.stages_table(run.info.stages),
    }


def _first_judge(run: Run) -> str | None:
    """The one that was named first; ``steps.json`` has them all."""
    cards = (card for one in run.evaluations for card in one.info.judges)
    return next((str(card.get("name")) if isinstance(card, dict) else str(card) for card in cards), None)


def _judging(run: Run) -> list[Table]:
    found = (judging.calibration_table(judging.calibrations(run.folder)), judging.corrected_table(own_rows(run.rows)),
             judging.agreement_table(run.evaluations))  # fmt: skip
    return [table for table in found if table.rows]


def _charts(run: Run, figures: Figures) -> Charts:
    rows = own_rows(run.rows)
    return {
        "arms": tables.arm_charts(rows),
        "sweeps": arm_curves.arm_curve_charts(rows),
        "frontier": frontier.frontier_charts(main_rows(run.rows)),
        "judging": judging.calibration_charts(judging.calibrations(run.folder)),
        "seeds": tables.seed_charts(rows),
        "reliability": alarms.reliability_charts(figures.alarms),
        "training": curves.curve_charts(run.curves),
        "policy": policy.policy_charts(run.policy),
    }


def _context(run: Run, choice: Choice, all_tables: dict[str, Any]) -> dict[str, Any]:
    wanted = (
        ("headline", "Headline", True),
        ("frontier", "Frontier", all_tables["frontier"].rows),
        ("arms", "Arms", True),
        ("sweeps", "Arm sweeps", all_tables["sweeps"]),
        ("discordant", "Discordant", all_tables["discordant"].rows),
        ("alarms", "Alarms", all_tables["alarms"]),
        ("steps", "Stages", all_tables["steps"].rows),
        ("ability", "Ability", all_tables["ability"].rows),
        ("ablations", "Ablations", all_tables["ablations"].rows),
        ("training", "Training", all_tables["training"].rows),
        ("policy", "Safety-GRPO", all_tables["policy"].rows),
        ("categories", "Languages and categories", True),
        ("seeds", "Seeds", all_tables["seeds"]),
        ("judging", "Judges", all_tables["judging"]),
        ("account", "Unscored", True),
        ("samples", "Samples", True),
        ("provenance", "Provenance", True),
    )
    notices = sorted({e.info.notice for e in run.evaluations if e.info.notice})
    warning = caution(run.rows, [e.info.benchmark for e in run.evaluations])
    return {
        "run": run,
        "title": f"{run.info.name}: safety with and without the video",
        "sections": [(name, title) for name, title, rows in wanted if rows],
        "finding": finding(main_rows(run.rows) or run.rows),
        "cautions": notices if warning is None or any(SAYS_NOTHING in n for n in notices) else [warning, *notices],
        "tables": all_tables,
        "legend": tuple(dict.fromkeys((*HARMFUL_ORDER, *SAFE_ORDER))),
        "min_clusters": MIN_CLUSTERS,
        "choice": choice,
        "recipe_yaml": yaml.safe_dump(run.info.recipe, sort_keys=False, allow_unicode=True) if run.info.recipe else "",
        "protocols": _protocols(run),
    }


def _protocols(run: Run) -> list[dict[str, str]]:
    """Judges and decoding of every evaluation, each distinct protocol once."""
    found = {}
    for e in run.evaluations:
        judges = "; ".join(_judge(judge) for judge in e.info.judges)
        decoding = ", ".join(f"{key} {value}" for key, value in e.info.decoding.items())
        about = {"benchmark": e.info.benchmark, "judges": judges, "decoding": decoding}
        found[tuple(about.values())] = about
    return list(found.values())


def _judge(judge: object) -> str:
    """A judge's name or its whole card, fingerprints shortened: ``oracle, version 1, fingerprint 0123456789ab``."""
    if not isinstance(judge, dict):
        return str(judge)
    card = {key: " and ".join(map(str, value)) if isinstance(value, list) else value for key, value in judge.items()}
    name = card.pop("name", "unnamed")
    if "fingerprint" in card:
        card["fingerprint"] = str(card["fingerprint"])[:12]
    return ", ".join([str(name), *(f"{key} {value}" for key, value in card.items())])
