"""A sweep on paper: targets, critical ranges without interpolation, paired differences, the files, the plot."""

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from videosafety.core.ablation import by_model, compare
from videosafety.core.labels import Safety, Subset
from videosafety.core.metrics import ScoredItem, find, summarise
from videosafety.core.records import Outcome
from videosafety.report.sweep_page import range_lines, short_names, sweep_chart, sweep_table, write_sweep
from videosafety.report.sweeps import MEASURES, Point, Sweep, Targets, critical_ranges, literal

SIZE, RATE, MODE = "defend.a.size", "defend.a.rate", "defend.b.mode"
OWN = {SIZE: 4, RATE: 1e-4, MODE: "group"}
AXES = {SIZE: (1, 2, 4, 8, 16), RATE: (1e-6, 1e-4, 1e-2), MODE: ("group", "batch")}
NUM_CLUSTERS = 24
HARMFUL = ("HH", "SH", "composed")


def answers(model: str, *, missed: float = 0.0, refused: float = 0.0, seeds: int = 5) -> list[ScoredItem]:
    """Answers of a model: shares of harmful requests not defended and of safe ones refused, the rest right."""
    items = []
    for seed in range(seeds):
        dice = random.Random(f"{model} {seed}")
        for subset in (*HARMFUL, "SS", "HS"):
            for number in range(NUM_CLUSTERS * 2):
                roll, bad = dice.random(), missed if subset in HARMFUL else refused
                wrong, right = (
                    (Outcome.COMPROMISED, Outcome.DEFENDED)
                    if subset in HARMFUL
                    else (Outcome.OVER_REFUSED, Outcome.HELPFUL)
                )
                items.append(
                    ScoredItem(
                        sample_id=f"{subset}-{number}",
                        cluster=f"{subset}-{number % NUM_CLUSTERS}",
                        subset=Subset(subset),
                        arm="video",
                        arm_request=Safety.HARMFUL if subset in HARMFUL else Safety.SAFE,
                        language="en",
                        category=None,
                        judge="oracle",
                        outcome=wrong if roll < bad else right,
                        model=model,
                        stage="cot",
                        benchmark="toy",
                        seed=seed,
                    )
                )
    return items


def swept(
    faults: Mapping[str, Mapping[Any, Mapping[str, float]]],
    *,
    axes: Mapping[str, Sequence[Any]] = AXES,
    seeds: int = 5,
    targets: Targets | None = None,
) -> Sweep:
    """One key at a time; ``faults[key][value]`` says what that point does wrong."""
    own = {key: OWN[key] for key in axes}
    points, items = [Point("main", "toy", own, ())], answers("toy", seeds=seeds)
    for key, values in axes.items():
        for value in values:
            if value != own[key]:
                name = f"{key}-{literal(value)}"
                points.append(Point(name, f"toy/{name}", {**own, key: value}, (key,)))
                items += answers(f"toy/{name}", seeds=seeds, **faults.get(key, {}).get(value, {}))
    compared = compare(items, reference="toy", variants=[p.model for p in points[1:]], key=by_model, targets=MEASURES)
    return Sweep(
        name="toy",
        stage="cot",
        seeds=tuple(range(seeds)),
        axes={key: tuple(values) for key, values in axes.items()},
        points=tuple(points),
        is_grid=False,
        judge="oracle",
        targets=targets or Targets(),
        rows=tuple(find(summarise(items, num_resamples=50), language=None, category=None)),
        compared=tuple(compared),
    )


@pytest.fixture(scope="module")
def example() -> Sweep:
    """Size fails at 1 (DSR) and 16 (FRR), rate at 1e-6; the mode changes nothing."""
    return swept({SIZE: {1: {"missed": 0.5}, 16: {"refused": 0.4}}, RATE: {1e-6: {"missed": 0.3}}})


def test_a_critical_range_is_the_span_of_tried_values_that_meet_the_targets(example: Sweep) -> None:
    size, rate = critical_ranges(example)  # text has none
    assert (size.key, size.own, size.tried) == (SIZE, 4.0, (1.0, 2.0, 4.0, 8.0, 16.0))
    (span,) = size.spans
    assert (span.low, span.high, span.below, span.above) == (2.0, 8.0, 1.0, 16.0)
    assert [said.rpartition(" ")[0] for said in span.missed_below] == ["DSR HH", "DSR composed"]
    assert [said.rpartition(" ")[0] for said in span.missed_above] == ["HELPFUL", "FRR"]
    (span,) = rate.spans
    assert (span.low, span.high, span.below, span.above) == (1e-4, 1e-2, 1e-6, None)
    known = f"{RATE} (own 0.0001; tried 1e-06, 0.0001, 0.01)"
    assert range_lines(example)[1] == f"{known}: met 0.0001 to 0.01; first missed below 1e-06, above none tried"


def test_a_gap_in_a_range_is_no_part_of_it() -> None:
    found = swept({SIZE: {2: {"missed": 0.5}, 16: {"missed": 0.5}}}, axes={SIZE: AXES[SIZE]}, seeds=1)
    (size,) = critical_ranges(found)
    assert [(s.low, s.high, s.below, s.above) for s in size.spans] == [(1, 1, None, 2), (4, 8, 2, 16)]
    assert len(range_lines(found)) == 2


def test_targets_that_nothing_meets_are_met_nowhere() -> None:
    perfect = swept({}, axes={SIZE: (4, 8)}, seeds=1, targets=Targets(dsr=1.0, frr=0.0, helpful=1.0))
    assert [(s.low, s.high) for s in critical_ranges(perfect)[0].spans] == [(4, 8)]  # a bound is met by itself
    hopeless = swept({SIZE: {8: {"missed": 1.0}, 16: {"refused": 1.0}}}, axes={SIZE: (8, 16)}, seeds=1)
    assert critical_ranges(hopeless)[0].spans == ()
    assert range_lines(hopeless) == [f"{SIZE} (own 4; tried 8, 16): met at no value tried"]


def test_the_targets_are_bounds_and_what_is_not_known_is_not_met(example: Sweep) -> None:
    assert example.missed(example.reference) == []
    lost = Sweep(**{**vars_of(example), "rows": tuple(r for r in example.rows if r.subset != "composed")})
    assert lost.missed(lost.reference) == ["DSR composed not known"]
    exact = [row.model_copy(update={"value": 0.9}) if row.metric == "dsr" else row for row in example.rows]
    assert Sweep(**{**vars_of(example), "rows": tuple(exact)}).missed(example.reference) == []


def vars_of(sweep: Sweep) -> dict[str, Any]:
    return {name: getattr(sweep, name) for name in Sweep.__dataclass_fields__}


def test_the_table_pairs_every_value_with_the_recipe_itself(example: Sweep) -> None:
    table = sweep_table(example)
    assert [line[0].text for line in table.rows] == [
        *(f"size = {value}" for value in (1, 2, 4, 8, 16)), "rate = 1e-06", "rate = 0.0001", "rate = 0.01",
        "mode = group", "mode = batch",
    ]  # fmt: skip
    worst, own = table.rows[0], table.rows[2]
    found = next(r for r in example.compared if (r.variant, r.subset) == (f"toy/{SIZE}-1", "HH") and r.metric == "dsr")
    assert (worst[1].text, own[1].text) == ("missed", "met")
    assert worst[2].text == f"{100 * found.value:.1f}"
    assert f"Δ −{-100 * found.difference:.1f}" in worst[2].detail
    assert found.p_holm is not None
    assert worst[2].detail.endswith("worse")
    assert "Δ" not in own[2].detail
    assert own[0].detail == "the recipe's own"
    assert own[-1].text == f"{5 * 2 * NUM_CLUSTERS * 5:,}"


def test_fewer_than_five_seeds_have_no_p() -> None:
    found = swept({SIZE: {8: {"missed": 0.5}}}, axes={SIZE: (4, 8)}, seeds=2)
    details = [cell.detail for line in sweep_table(found).rows for cell in line]
    assert any("Δ" in detail for detail in details)
    assert not any("\np " in detail for detail in details)


def test_the_csv_holds_every_point_and_measure_with_its_settings(example: Sweep) -> None:
    lines = list(csv.DictReader(io.StringIO(sweep_table(example).csv)))
    assert len(lines) == len(example.points) * len(MEASURES)
    first = next(line for line in lines if line["point"] == f"{SIZE}-1" and line["subset"] == "HH")
    assert (first[SIZE], first[RATE], first[MODE], first["seeds"]) == ("1", "0.0001", "group", "5")
    assert float(first["difference"]) == pytest.approx(float(first["value"]) - float(first["reference_value"]))
    assert float(first["p_holm"]) >= float(first["p"])
    assert {line["is_reference"] for line in lines} == {"true", "false"}


def test_the_plot_has_a_panel_a_key_and_logarithmic_axes_over_decades(example: Sweep) -> None:
    svg = sweep_chart(example)
    assert "aria-label='toy after cot: DSR and FRR over each setting'" in svg
    for label in ("a.size", "a.rate", "b.mode", "1e-6", "batch", "DSR", "FRR"):
        assert f">{label}<" in svg
    assert "data-panels='3'" in svg


def test_a_grid_has_a_panel_for_each_setting_of_the_other_keys() -> None:
    made = swept({}, axes={SIZE: (4, 8), MODE: ("group", "batch")}, seeds=1)
    both = Point("both", "toy/both", {SIZE: 8, MODE: "batch"}, (SIZE, MODE))
    rows = [row.model_copy(update={"model": "toy/both", "value": 0.5}) for row in made.rows if row.model == "toy"]
    grid = Sweep(**{**vars_of(made), "points": (*made.points, both), "rows": (*made.rows, *rows), "is_grid": True})
    assert "data-panels='2'" in sweep_chart(grid)
    assert ">mode = batch<" in sweep_chart(grid)
    assert [line[0].text for line in sweep_table(grid).rows][-1] == "size = 8, mode = batch"
    assert grid.missed(both)
    assert [(s.low, s.high) for s in critical_ranges(grid)[0].spans] == [(4, 8)]  # with all else as in the recipe


def test_the_files_hold_the_same_results_and_equal_results_are_equal_bytes(example: Sweep, tmp_path: Path) -> None:
    page = write_sweep(tmp_path / "a", example)
    write_sweep(tmp_path / "b", example)
    for name in ("sweep.json", "sweep.csv", "sweep.md", "sweep.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    data = json.loads((tmp_path / "a" / "sweep.json").read_text())
    assert data["ranges"][0]["spans"][0]["low"] == 2.0
    assert len(data["points"]) == len(example.points)
    text = (tmp_path / "a" / "sweep.md").read_text()
    assert "### Critical ranges after cot" in text
    assert "| size = 1 |" in text
    html = page.read_text()
    assert "https://" not in html.replace("http://www.w3.org", "")
    assert 'id="ranges"' in html


def test_untrusted_words_do_not_become_markup(tmp_path: Path) -> None:
    evil = "<script>window.pwned=1</script>"
    made = swept({}, axes={MODE: ("group", evil)}, seeds=1)
    html = write_sweep(tmp_path, Sweep(**{**vars_of(made), "name": evil})).read_text()
    assert evil not in html


def test_keys_are_as_short_as_they_can_be() -> None:
    assert short_names(["a.b.rate", "a.c.rate", "a.size"]) == {
        "a.b.rate": "b.rate",
        "a.c.rate": "c.rate",
        "a.size": "size",
    }
