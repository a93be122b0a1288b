"""The defence on the page: alarms, claims, ability, ablations and training curves, from a run with all stages."""

import csv
import dataclasses
import io
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videosafety.core.ablation import AblationRow, Verdict
from videosafety.core.alarm_metrics import AlarmRow
from videosafety.core.errors import RecordError
from videosafety.core.ranking import auroc
from videosafety.evaluate.folder import scored_item
from videosafety.html.table import Cell, Column, Table
from videosafety.report import build, headline
from videosafety.report.ablations import (
    ability_rows,
    ability_table,
    ablation_table,
    scored_items,
    step_rows,
    step_table,
)
from videosafety.report.alarms import alarm_items, alarm_rows, alarm_tables, ranking_table, reliability_charts
from videosafety.report.build import Figures, _tables
from videosafety.report.collect import Run, collect
from videosafety.report.curves import Curve, Point, curve_charts, read_curves, thinned, training_table
from videosafety.report.headline import headline_table
from videosafety.report.markdown import figures_markdown, table_markdown
from videosafety.report.rows import is_variant, main_rows, split_rows, variant_rows
from videosafety.report.select import choose
from videosafety.report.tables import arms_table

METHOD = ["base", "alarm_init", "at_sft", "cot"]
ALARMED = ("at_sft", "cot")
SEEDS = (11, 12, 13)
HOSTILE = "<script>window.pwned=1</script> \u202e | {{ 7*7 }}"


@pytest.fixture(scope="module")
def run(defended_folder: Path) -> Run:
    return collect(defended_folder)


@pytest.fixture(scope="module")
def rows(run: Run) -> list[AlarmRow]:
    return alarm_rows(run.evaluations)


@pytest.fixture(scope="module")
def html(defended_folder: Path) -> str:
    return build(defended_folder, max_samples=3).read_text()


def one(rows: list[AlarmRow], **where: object) -> AlarmRow:
    (found,) = (row for row in rows if all(getattr(row, name) == value for name, value in where.items()))
    return found


def test_an_alarm_is_read_with_the_labels_of_item_and_arm(run: Run, rows: list[AlarmRow]) -> None:
    per_seed = []
    for evaluation in (e for e in run.evaluations if e.info.stage == "cot"):
        scores = [
            (a.visual, evaluation.labels[a.sample_id, a.arm].visual) for a in evaluation.alarms if a.arm == "video"
        ]
        per_seed.append(auroc([s or 0.0 for s, _ in scores], [truth == "harmful" for _, truth in scores]))
    row = one(rows, stage="cot", arm="video", modality="visual", metric="auroc", seed=None)
    assert row.value == pytest.approx(np.mean([value or 0.0 for value in per_seed]), abs=1e-6)
    assert row.n == 300 * len(SEEDS)
    assert not [r for r in rows if r.arm == "text" and r.modality == "visual"]
    assert {r.stage for r in rows if r.metric == "auroc"} == set(ALARMED)


def test_claims_are_read_from_the_answers(run: Run, rows: list[AlarmRow]) -> None:
    items = [i for e in run.evaluations if e.info.stage == "cot" for i in alarm_items(e) if i.arm == "video"]
    tagged = [i for i in items if i.tagged]
    row = one(rows, stage="cot", arm="video", modality="visual", metric="claim_accuracy", seed=None, subset=None)
    assert row.value == pytest.approx(np.mean([i.visual_claim == i.labels.visual for i in tagged]), abs=1e-6)
    untagged = one(rows, stage="cot", arm="video", modality="visual", metric="untagged", seed=None)
    assert 0.01 < (untagged.value or 0) < 0.1
    assert one(rows, stage="base", arm="video", modality="visual", metric="untagged", seed=None).value == 1


def test_stages_stand_in_the_order_of_the_method(run: Run, rows: list[AlarmRow]) -> None:
    assert [line[0].text for line in headline_table(run.rows).rows] == METHOD
    assert [str(c.header).split("\n")[0] for c in headline(run.rows).columns[1:]] == METHOD
    assert [line[0].text for line in ability_table(ability_rows(run.evaluations)).rows] == METHOD[1:]
    assert list(dict.fromkeys(curve.stage for curve in run.curves)) == METHOD[1:]
    ranking = [(line[0].text, line[1].text) for line in ranking_table(rows).rows]
    assert ranking == [("at_sft", "video"), ("at_sft", "text"), ("cot", "video"), ("cot", "text")]


def test_the_alarm_tables_hold_values_intervals_and_n(rows: list[AlarmRow]) -> None:
    ranking, activations, claims = alarm_tables(rows)
    row = one(rows, stage="at_sft", arm="video", modality="visual", metric="auroc", seed=None)
    cell = ranking.rows[0][2]
    assert (cell.text, cell.detail) == (f"{row.value:.3f}", f"{row.low:.3f} – {row.high:.3f}\nn 900")
    assert ranking.rows[1][2].text == "–"  # words alone
    assert [column.label for column in activations.columns[3:]] == ["HH", "SH", "composed", "SS", "HS"]
    assert "% above ½" in activations.rows[0][3].detail
    assert [line[2].text for line in claims.rows] == ["vidType", "textType", "textType"]
    for table in (ranking, activations, claims):
        lines = list(csv.DictReader(io.StringIO(table.csv)))
        assert lines
        assert set(lines[0]) == set(AlarmRow.model_fields)
    assert {line["metric"] for line in csv.DictReader(io.StringIO(ranking.csv))} == {"auroc", "tpr_at_1_fpr", "ece"}


def test_a_missing_figure_is_a_dash_with_its_reason(rows: list[AlarmRow]) -> None:
    row = one(rows, stage="cot", arm="video", modality="visual", metric="auroc", seed=None)
    changed = row.model_copy(update={"value": None, "low": None, "high": None, "reason": "every answer is safe"})
    (line,) = ranking_table([changed]).rows
    assert (line[2].text, line[2].note) == ("–", "every answer is safe")


def test_reliability_has_a_chart_for_each_alarm_and_a_panel_for_each_stage(rows: list[AlarmRow]) -> None:
    charts = reliability_charts(rows)
    assert [title for _, title, _ in charts] == [
        f"Reliability of the {s} alarm with video" for s in ("visual", "textual")
    ]
    for _, _, svg in charts:
        assert all(stage in svg for stage in ALARMED)
        assert "data-panels='2'" in svg


def test_ability_is_judged_after_each_stage_of_the_same_model(run: Run) -> None:
    found = ability_rows(run.evaluations)
    assert [(row.variant, row.reference, row.interval, row.num_seeds) for row in found] == [
        (stage, "base", "within_seeds", 3) for stage in METHOD[1:]
    ]
    assert ability_rows([e for e in run.evaluations if e.info.stage != "base"]) == []


def test_each_stage_is_compared_with_the_one_before_it_in_the_same_model(run: Run) -> None:
    found = step_rows(run.evaluations)
    steps = list(dict.fromkeys((row.reference, row.variant) for row in found))
    assert steps == list(pairwise(METHOD))
    assert [line[0].text for line in step_table(found).rows][:1] == METHOD[1:2]
    last = next(row for row in found if row.variant == "cot" and row.metric == "helpful")
    ability = {row.variant: row for row in ability_rows(run.evaluations)}
    assert last.value == ability["cot"].value
    assert last.difference == pytest.approx(ability["cot"].value - ability["at_sft"].value)
    assert step_rows([e for e in run.evaluations if e.info.stage == "cot"]) == []


def test_the_page_groups_verdicts_as_the_evaluation_does(run: Run) -> None:
    found = {(i.stage, i.seed, i.sample_id, i.arm): i for e in run.evaluations for i in scored_items(e)}
    assert len(found) == sum(len(e.verdicts) for e in run.evaluations)
    (evaluation,) = (e for e in run.evaluations if e.info.stage == "cot" and e.info.seed == 11)
    samples = {sample.id: sample for sample in evaluation.samples}
    for v in evaluation.verdicts:
        labels = evaluation.labels[v.sample_id, v.arm]
        same = scored_item(
            samples[v.sample_id], labels, v, benchmark="toy", model="toy-videollama3", stage="cot", seed=11
        )
        assert found["cot", 11, v.sample_id, v.arm] == same


def test_the_ablation_table_says_what_can_be_said(run: Run) -> None:
    table = ablation_table(run.ablations)
    line = next(line for line in table.rows if line[0].text == "base" and line[1].text == "HH · video: DSR")
    assert line[0].detail == "against at_sft"
    assert line[4].text.startswith("−8")
    assert (line[5].text, line[6].text, line[6].muted) == ("–", "too few seeds", True)
    judged = run.ablations[1].model_copy(update={"p_holm": 0.0004, "p_flip": 0.0625, "verdict": Verdict.WORSE})
    (line,) = ablation_table([judged]).rows
    assert (line[5].text, line[5].detail, line[6].text) == ("< 0.001", "flip 0.062", "worse")


def test_the_page_shows_the_defence_and_keeps_its_rows(defended_folder: Path, html: str) -> None:
    for section in ("alarms", "steps", "ability", "ablations", "training"):
        assert f'<section id="{section}"' in html
        assert f'href="#{section}"' in html
    kept = json.loads((defended_folder / "alarms.json").read_text())
    assert [AlarmRow.model_validate(row) for row in kept] == alarm_rows(collect(defended_folder).evaluations)
    ability = [AblationRow.model_validate(row) for row in json.loads((defended_folder / "ability.json").read_text())]
    assert len(ability) == 3
    tables = {path.name for path in (defended_folder / "tables").iterdir()}
    names = ("alarms", "activations", "claims", "steps", "ability", "ablations", "training")
    assert {f"{name}.csv" for name in names} <= tables


def test_a_run_without_a_defence_has_none_of_it(run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "plain"
    shutil.copytree(run_folder, run)
    (run / "ability.json").write_text("[]")  # of an earlier attempt
    html = build(run, max_samples=1).read_text()
    for section in ("ability", "ablations", "training"):
        assert f'<section id="{section}"' not in html
    assert not (run / "ability.json").exists()
    assert "TPR at 1 % FPR" not in html


def test_names_from_files_are_text_and_never_markup(defended_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "hostile"
    (run / "training").mkdir(parents=True)
    rows = json.loads((defended_folder / "ablations.json").read_text())
    (run / "ablations.json").write_text(json.dumps([row | {"variant": HOSTILE} for row in rows]))
    summary = json.loads((defended_folder / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary[:1]))
    (run / "training" / "<svg onload=x>-seed-1.jsonl").write_text('{"step": 1, "loss": 2.0, "loss_answer": 2.0}\n')
    html = build(run, max_samples=1).read_text()
    assert "<script>window" not in html
    assert "<svg onload" not in html
    assert "&lt;svg onload=x&gt;" in html
    text = figures_markdown(run)
    assert "<script" not in text
    assert "\u202e" not in text


def test_markdown_holds_the_same_tables(defended_folder: Path, html: str) -> None:
    text = figures_markdown(defended_folder)
    for title in ("How well the alarms", "When the alarms fire", "What the answers claim", "General ability after"):
        assert f"### {title}" in text
    value = json.loads((defended_folder / "ability.json").read_text())[0]["value"]
    assert f"**{100 * value:.1f}**" in text
    assert figures_markdown(defended_folder / "tables") == ""


def test_a_markdown_cell_cannot_leave_its_column() -> None:
    columns = (Column("a|b", numeric=False), Column("c", "G"))
    table = Table("t", "T", columns, ((Cell("x|y\nz"), Cell("1", "2\n3")),), ("v",), ())
    lines = table_markdown(table).splitlines()
    assert lines[2:] == ["| a\\|b | G: c |", "|---|---:|", "| x\\|y z | **1** (2, 3) |"]


def test_variants_stand_apart_from_the_run_and_are_never_its_finding(run: Run, rows: list[AlarmRow]) -> None:
    model = "toy-videollama3"
    assert is_variant(f"{model}/no_atc", {model, f"{model}/no_atc"})
    assert not is_variant("owner/name", {"owner/name", "other"})
    variant = [r.model_copy(update={"model": f"{model}/no_atc"}) for r in run.rows if r.stage == "cot"]
    both = [*run.rows, *variant]
    assert main_rows(both) == main_rows(run.rows)
    assert split_rows(both) == []
    assert variant_rows(both) == variant
    other = [r.model_copy(update={"model": f"{model}/no_atc"}) for r in rows if r.stage == "cot"]
    names = [table.name for table in alarm_tables([*rows, *other])]
    assert names == ["alarms", "activations", "claims", "alarms-variants"]
    assert [t.rows for t in alarm_tables([*rows, *other])[:3]] == [t.rows for t in alarm_tables(rows)]
    page = dataclasses.replace(run, rows=tuple(both))
    assert [
        line[0].text for line in _tables(page, choose([], max_samples=0, seed=0), Figures([], [], []))["arms"].rows
    ] == [line[0].text for line in arms_table(run.rows).rows]


def test_a_bad_row_of_a_table_or_a_curve_is_named(defended_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(defended_folder, run)
    rows = json.loads((run / "ablations.json").read_text())
    (run / "ablations.json").write_text(json.dumps([rows[0], rows[1] | {"verdict": "best"}]))
    with pytest.raises(RecordError, match=r"ablations\.json: row 2: verdict is 'best'"):
        collect(run)
    (run / "ablations.json").unlink()
    (run / "training" / "cot-seed-11.jsonl").write_text('{"loss": 1.0}\n')
    with pytest.raises(RecordError, match=r"cot-seed-11\.jsonl.*'step' is missing"):
        collect(run)


def test_curves_are_read_in_order_and_thinned_by_averaging(run: Run, tmp_path: Path) -> None:
    assert [(c.stage, c.seed) for c in run.curves[:3]] == [("alarm_init", seed) for seed in SEEDS]
    assert thinned([1, 2, 3, 4, 5], [1.0, 3.0, 5.0, 7.0, 9.0], limit=3) == ([2, 4, 5], [2.0, 6.0, 9.0])
    steps, values = thinned(*run.curves[0].values("loss_answer"))
    assert len(steps) <= 150
    assert (steps[-1], len(values)) == (2000, len(steps))
    assert read_curves(tmp_path) == ()


def test_a_loss_that_a_stage_does_not_have_has_no_panel(run: Run) -> None:
    charts = {title: svg for _, title, svg in curve_charts(run.curves)}
    assert "visual alarm" in charts["Training: at_sft, 3 runs"]
    assert "data-panels='4'" in charts["Training: at_sft, 3 runs"]
    assert "data-panels='1'" in charts["Training: cot, 3 runs"]
    silent = Curve(
        "cot", 0, (Point(step=1, loss_answer=2.0, loss_visual=0.0), Point(step=2, loss_answer=1.0, loss_visual=0.0))
    )
    ((_, title, svg),) = curve_charts([silent])
    assert title == "Training: cot, 1 run"
    assert "visual" not in svg
    (line,) = training_table([silent]).rows
    assert [cell.text for cell in line] == ["cot", "1", "2", "–", "2.000 → 1.000", "–", "–", "–"]


def test_the_browser_shows_every_chart_and_says_nothing(chromium: Any, defended_folder: Path, html: str) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page, noise = context.new_page(), []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto((defended_folder / "report.html").as_uri())
    charts = page.locator("section#alarms svg, section#training svg")
    assert charts.count() == 5
    sizes = charts.evaluate_all("all => all.map(e => e.getBoundingClientRect().width)")
    assert all(100 < width < 1240 for width in sizes)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    context.close()
    assert noise == []
