"""Collecting, choosing, and the numbers in words and tables."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from videosafety.core.errors import InputError, RecordError
from videosafety.core.metrics import SummaryRow
from videosafety.core.statistics import Method
from videosafety.report import build, headline
from videosafety.report import rows as report_rows
from videosafety.report.collect import collect
from videosafety.report.finding import caution, finding
from videosafety.report.headline import drop, headline_table, worst_babble
from videosafety.report.rows import by_seed, pooled, settings
from videosafety.report.select import choose
from videosafety.report.tables import account_table, bounds_table, heat_tables, seeds_table


def row(metric: str, value: float | None, **changes: object) -> SummaryRow:
    fields = {
        "model": "m", "stage": "base", "benchmark": "toy", "subset": "HH", "arm": "video", "language": None,
        "category": None, "judge": "oracle", "metric": metric, "value": value, "low": 0.1, "high": 0.9,
        "interval": Method.WILSON, "n": 100, "cluster_n": 50, "unscored": 0, "seed": None,
    }  # fmt: skip
    return SummaryRow.model_validate(fields | changes)


def main_rows(stage: str = "base") -> list[SummaryRow]:
    return [
        row("dsr", 0.95, arm="text", stage=stage),
        row("dsr", 0.1, stage=stage),
        row("compromised", 0.85, stage=stage),
        row("incoherent", 0.05, stage=stage),
        row("incoherent", 0.02, subset="SafeQ", stage=stage),
        row("wrong", 0.06, subset="SafeQ", stage=stage),
        row("drop_points", 0.85, arm="text", low=0.8, high=0.9, stage=stage),
        row("drop_relative", 0.895, arm="text", stage=stage),
    ]


def test_the_pooled_row_comes_before_a_seed_and_one_seed_stands_for_all() -> None:
    rows = [row("dsr", 0.1, seed=1), row("dsr", 0.3, seed=2), row("dsr", 0.2)]
    assert pooled(rows, "dsr", subset="HH", arm="video") == rows[2]
    assert pooled(rows[:1], "dsr", subset="HH", arm="video") == rows[0]
    assert pooled(rows[:2], "dsr", subset="HH", arm="video") is None


def test_stages_follow_the_method_and_not_the_alphabet() -> None:
    found = settings([row("dsr", 0.1, stage=s) for s in ("grpo", "base", "cot", "alarm_init", None)])
    assert [s.stage for s in found] == ["base", "alarm_init", "cot", "grpo", ""]


def test_the_finding_states_both_arms_the_drop_and_its_interval() -> None:
    (sentence,) = finding(main_rows())
    for number in ("95.0 %", "10.0 %", "85.0 %", "drop of 85.0 points", "89.5 % relative", "80.0 to 90.0", "n = 100"):
        assert number in sentence


def test_the_finding_does_not_claim_a_drop_whose_interval_holds_zero() -> None:
    rows = [r for r in main_rows() if r.metric != "drop_points"]
    (sentence,) = finding([*rows, row("drop_points", 0.02, arm="text", low=-0.03, high=0.06)])
    assert "not distinguishable" in sentence
    assert "That is a drop" not in sentence


def test_the_finding_claims_no_drop_without_an_interval() -> None:
    rows = [r for r in main_rows() if r.metric != "drop_points"]
    (sentence,) = finding([*rows, row("drop_points", 0.6, arm="text", low=None, high=None)])
    assert "too little data" in sentence
    assert "That is a drop" not in sentence


def test_the_finding_tells_the_last_stage_too_and_an_empty_run_says_so() -> None:
    first, last = finding([*main_rows("grpo"), *main_rows("cot"), *main_rows("base")])
    assert "after" not in first
    assert "after grpo" in last
    assert finding([]) == ["This run holds no pooled result yet."]


def test_only_the_toy_world_says_that_it_is_one() -> None:
    assert caution([row("dsr", 0.1)]) == "Toy world: these numbers say nothing about real models."
    assert caution([row("dsr", 0.1, benchmark="vse")]) is None


def test_the_headline_names_the_worst_subset_for_babble() -> None:
    worst = worst_babble(main_rows())
    assert worst is not None
    assert (round(worst[0], 6), worst[1]) == (0.08, "SafeQ")


def test_the_headline_table_holds_values_intervals_and_n_and_the_committed_rows() -> None:
    table = headline_table(main_rows(), main_rows("grpo"))
    own, published = table.rows
    assert (own[0].text, published[0].text) == ("base", "grpo")
    assert own[1].text == "95.0"
    assert own[1].detail == "10.0 – 90.0\nn 100"
    assert own[-2].text == "85.0"
    assert own[-1].text == "89.5"
    assert len(own) == len(table.columns) == 13
    lines = list(csv.DictReader(io.StringIO(table.csv)))
    assert {line["source"] for line in lines} == {"this run", "committed"}
    assert [line["value"] for line in lines if line["metric"] == "drop_points"] == ["0.85", "0.85"]


@pytest.mark.parametrize("stages", [("base",), ("base", "grpo")])
def test_the_terminal_table_fits_80_columns(stages: tuple[str, ...]) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(headline([r for stage in stages for r in main_rows(stage)]))
    text = console.export_text()
    assert "…" not in text
    assert "95.0" in text
    assert "n 100" in text
    assert "89.5" in text


def test_a_stage_name_cannot_write_markup_to_the_terminal() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(headline([row("dsr", 0.1, stage="[bold]x[/nope]\x1b[31m")]))
    assert "[bold]x[/nope]⟦U+001B⟧[31m" in console.export_text()


def test_the_run_is_collected_whole(run_folder: Path) -> None:
    run = collect(run_folder)
    assert [e.info.seed for e in run.evaluations] == [11, 12, 13]
    assert len(run.evaluations[0].samples) == 300
    assert drop(run.rows, "drop_points") is not None
    assert run.info.stages[0].reused is True


def test_the_choice_is_bounded_even_over_strata_seeded_and_counted(run_folder: Path) -> None:
    evaluations = collect(run_folder).evaluations
    choice = choose(evaluations, max_samples=40, seed=0)
    assert len(choice.shown) == 40
    assert choice.total == 900
    assert sum(shown for shown, _ in choice.strata.values()) == 40
    assert sum(total for _, total in choice.strata.values()) == 900
    assert all(shown >= min(total, 2) for shown, total in choice.strata.values())
    names = [(i.evaluation.info.seed, i.sample.id) for i in choice.shown]
    again = [(i.evaluation.info.seed, i.sample.id) for i in choose(evaluations, max_samples=40, seed=0).shown]
    other = [(i.evaluation.info.seed, i.sample.id) for i in choose(evaluations, max_samples=40, seed=1).shown]
    assert names == again
    assert names != other


def test_damage_and_unscored_answers_are_counted_with_their_reason(run_folder: Path) -> None:
    run = collect(run_folder)
    table = account_table(run.evaluations)
    assert ("base · toy · seed 11", "media damaged", "corrupt", 1) in table.data
    unscored = sum(int(n) for _, state, reason, n in table.data if reason == "judge:timeout")
    assert unscored == sum(v.outcome == "unscored" for e in run.evaluations for v in e.verdicts) > 0


def test_bounds_stand_on_both_sides_of_the_measured_rate(run_folder: Path) -> None:
    table = bounds_table(collect(run_folder).rows)
    by_name = {line[0].text: [float(cell.text) for cell in line[1:4]] for line in table.rows}
    value, worst, best = by_name["DSR HH · video"]
    assert worst <= value <= best
    assert worst < best


def test_small_cells_of_the_heat_table_are_muted_and_say_so(run_folder: Path) -> None:
    cells = [cell for table in heat_tables(collect(run_folder).rows) for line in table.rows for cell in line[1:]]
    small = [cell for cell in cells if cell.muted]
    assert small
    assert len(small) < len(cells)
    assert all(cell.note == "too small to say anything" for cell in small)


def test_every_seed_has_its_column(run_folder: Path) -> None:
    table = seeds_table(collect(run_folder).rows)
    assert table is not None
    assert [c.label for c in table.columns] == ["measure", "seed 11", "seed 12", "seed 13", "all seeds"]
    assert seeds_table([row("dsr", 0.1)]) is None


def test_a_repeated_row_is_shown_once() -> None:
    rows = [row("dsr", 0.1, seed=2), row("dsr", 0.2, seed=1), row("dsr", 0.9, seed=2)]
    assert {seed: r.value for seed, r in by_seed(rows, "dsr", subset="HH", arm="video").items()} == {1: 0.2, 2: 0.1}


def test_a_folder_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        build(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nothing to report"):
        build(tmp_path)


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    bad = row("dsr", 0.1).model_dump(mode="json") | {"metric": "dsrr"}
    (tmp_path / "summary.json").write_text(json.dumps([row("dsr", 0.1).model_dump(mode="json"), bad]))
    with pytest.raises(RecordError, match="row 2: metric is 'dsrr'; did you mean 'dsr'"):
        build(tmp_path)


def test_rows_alone_make_a_page_and_so_do_evaluations_alone(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps([r.model_dump(mode="json") for r in main_rows()]))
    assert "holds no samples" in build(tmp_path).read_text()
    alone = tmp_path / "runs" / "alone"
    shutil.copytree(run_folder / "evaluations" / "base-11", alone / "evaluations" / "one")
    page = build(alone, max_samples=3).read_text()
    assert "No rows yet." in page
    assert "Shown: 3 of 300 items" in page


def test_the_page_is_the_same_every_time(run_folder: Path) -> None:
    first = build(run_folder, max_samples=5).read_bytes()
    assert build(run_folder, max_samples=5).read_bytes() == first
    tables = {p.name for p in (run_folder / "tables").iterdir()}
    assert {"headline.csv", "arms.csv", "seeds.csv", "account.csv", "bounds.csv"} <= tables


def test_a_split_stands_apart_unless_splits_are_all_there_is() -> None:
    toy, held, test, dev = (row("dsr", 0.1, benchmark=b) for b in ("toy", "toy:held_out", "mine:test", "mine:dev"))
    assert report_rows.main_rows([toy, held, test, dev]) == [toy, test, dev]
    assert report_rows.split_rows([toy, held, test, dev]) == [held]
    assert report_rows.main_rows(iter([test])) == [test]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(headline(report_rows.main_rows([test, dev])))
    assert {"test", "dev"} <= set(console.export_text().split())
