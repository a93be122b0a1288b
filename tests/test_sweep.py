"""Sweeps: what is planned, that a killed one ends in the same bytes, and that a value added later trains that alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from videosafety.core.errors import InputError
from videosafety.core.recipe import load_recipe
from videosafety.pipeline import Run
from videosafety.settings import Recipe
from videosafety.sweep import link_checkpoints, plan, sweep

TINY = ("defend.alarm_init.max_steps=2", "evaluate.arms=[video]", "evaluate.decoding.max_new_tokens=2",
        "evaluate.batch_size=32", "training.num_rows=24")  # fmt: skip
KEY = "defend.alarm_init.learning_rate"
ONE, TWO = f"{KEY}=1e-6,1e-4", f"{KEY}=1e-4,1e-2"  # 1e-6 is the recipe's own
FINAL = ("sweep.json", "sweep.csv", "sweep.md", "sweep.html")


def recipe(*overrides):
    return load_recipe("smoke", Recipe, overrides=[*TINY, *overrides])


def planned(*over, **how):
    return plan(recipe(), over=over, **how)


def quiet():
    return Console(quiet=True)


def names(plan):
    return [point.name for point in plan.points]


# Plans


def test_one_key_at_a_time_and_the_own_value_is_the_recipe_itself():
    found = planned(f"{KEY}=1e-6,1e-4,0.0001", "defend.cot.batch_size=8,16")
    assert [point.settings for point in found.points] == [
        {KEY: 1e-6, "defend.cot.batch_size": 8},
        {KEY: 1e-4, "defend.cot.batch_size": 8},
        {KEY: 1e-6, "defend.cot.batch_size": 16},
    ]
    assert found.points[0].name == "main"
    assert len(found.recipe.variants) == 2
    assert found.axes == {KEY: (1e-6, 1e-4), "defend.cot.batch_size": (8, 16)}


def test_a_grid_is_the_full_product():
    found = planned(f"{KEY}=1e-6,1e-4", "defend.cot.batch_size=8,16,24", grid=True)
    assert len(found.points) == 6
    assert [point.changed for point in found.points].count((KEY, "defend.cot.batch_size")) == 2


def test_a_point_has_one_name_in_every_sweep_of_the_recipe():
    alone, among = planned(f"{KEY}=1e-2"), planned("defend.cot.batch_size=16,8", f"{KEY}=1e-4,1e-2", grid=True)
    (settings,) = (point.settings for point in alone.points[1:])
    assert names(alone)[1] in names(among)
    assert settings == {KEY: 1e-2}
    assert alone.identity == among.identity
    assert planned(f"{KEY}=1e-2", after="alarm_init").identity != alone.identity


def test_only_the_compared_checkpoint_is_evaluated():
    found = plan(recipe("evaluate.after=every_stage", "variants={early: ['defend.stages=[alarm_init]']}"),
                 over=["defend.at_sft.lambda_visual=0.5"], after="at_sft")  # fmt: skip
    run = Run(found.recipe, Path("nowhere"), quiet(), 1)
    assert [one.name.partition("-seed")[0] for one in run.answerings] == ["at_sft", f"{names(found)[1]}-at_sft"]
    assert found.stage == "at_sft"


def test_values_are_yaml_and_stand_in_the_order_of_an_axis():
    sizes = planned("defend.max_frames=16,4,8")
    assert sizes.axes["defend.max_frames"] == (4, 8, 16, 90)
    modes = planned("defend.cot.alarm_init=mean", "defend.at_sft.modalities=[visual],[textual]", "defend.max_side_px=8")
    assert modes.axes["defend.cot.alarm_init"] == ("zero", "mean")
    assert modes.axes["defend.at_sft.modalities"][1:] == (["visual"], ["textual"])
    assert modes.axes["defend.max_side_px"] == (None, 8)


@pytest.mark.parametrize(("over", "how", "said"), [
    ("defend.cot.lerning_rate=1", {}, "did you mean 'learning_rate'"),
    ("defnd.cot.learning_rate=1", {}, "did you mean 'defend'"),
    (f"{KEY}=fast", {}, "valid number"),
    (f"{KEY}=-1", {}, "greater than 0"),
    (f"{KEY}=1e-4,,1e-3", {}, "not valid YAML"),
    (f"{KEY}=", {}, "is not key=value,value"),
    (KEY, {}, "is not key=value,value"),
    ("benchmark.seed=1,2", {}, "all points share benchmark"),
    ("seeds=1", {}, "all points share seeds"),
    ("defend.stages=[alarm_init]", {}, "all points end after the same stage; let defend.stages end with grpo"),
    ("defend.cot.batch_size=16", {"after": "at_sft"}, "changes nothing of what is compared after at_sft"),
    (f"{KEY}=1", {"after": "at_stf"}, "did you mean 'at_sft'"),
    (f"{KEY}=1e-6,0.000001", {}, "every value is the recipe's own; give another value beside it"),
    (f"{KEY}={','.join(str(n) for n in range(1, 600))}", {}, "599 points"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(over, how, said):
    with pytest.raises(InputError) as caught:
        planned(over, **how)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_may_stand_once():
    with pytest.raises(InputError, match="stands twice"):
        planned(f"{KEY}=1", f"{KEY}=2")
    with pytest.raises(InputError, match="nothing to sweep"):
        planned()


def test_without_video_or_benchmark_there_is_nothing_to_compare():
    with pytest.raises(InputError, match=r"evaluate.arms: .*with video"):
        plan(recipe("evaluate.arms=[text]"), over=[ONE])


# Runs


def start(folder):
    """The sweep of ``ONE`` in a process of its own."""
    words = [sys.executable, "-m", "videosafety.cli", "ablate", "smoke", "--over", ONE, "--after", "alarm_init",
             "--out", str(folder), "--workers", "1"]  # fmt: skip
    words += [word for override in TINY for word in ("--set", override)]
    env, root = os.environ | {"OMP_NUM_THREADS": "1"}, Path(__file__).parents[1]
    return subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root,
                            start_new_session=True)  # fmt: skip


def final(folder):
    return {name: (folder / name).read_bytes() for name in FINAL}


def written(folder):
    """When every checkpoint and evaluation of a folder was finished."""
    files = [*folder.glob("checkpoints/*/*/training.json"), *folder.glob("evaluations/*/evaluation.json")]
    return {file.relative_to(folder): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep of one value that nobody killed."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    done = sweep(planned(ONE, after="alarm_init"), out=folder, console=quiet(), workers=1)
    assert (done.page, done.exit_code) == (folder / "sweep.html", 0)
    assert len(written(folder)) == 4  # the recipe and the value: a checkpoint and an evaluation each
    return folder


def test_killed_and_rerun_ends_in_the_same_bytes(whole, tmp_path):
    folder = tmp_path / "killed"
    process = start(folder)
    while not any(folder.glob("evaluations/learning_rate*")):
        assert process.poll() is None, "it finished before the moment to kill it"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "sweep.json").exists()
    before = written(folder)
    assert 3 <= len(before) < 4
    sweep(planned(ONE, after="alarm_init"), out=folder, console=quiet(), workers=1)
    assert final(folder) == final(whole)
    assert before.items() <= written(folder).items()  # nothing that was done is done again


def test_a_value_added_later_trains_that_alone(whole, tmp_path):
    folder = tmp_path / "grown"
    subprocess.run(["cp", "-a", str(whole), str(folder)], check=True)
    before = written(folder)
    sweep(planned(TWO, after="alarm_init"), out=folder, console=quiet(), workers=1)
    new = set(written(folder)) - set(before)
    assert before.items() <= written(folder).items()
    assert sorted(path.parts[0] for path in new) == ["checkpoints", "evaluations"]
    shown = json.loads((folder / "sweep.json").read_text())
    assert shown["axes"] == {KEY: [1e-6, 1e-4, 1e-2]}
    assert {row["variant"] for row in shown["comparisons"]} == {point["model"] for point in shown["points"][1:]}
    sweep(planned(ONE, after="alarm_init"), out=folder, console=quiet(), workers=1)
    assert final(folder) == final(whole)  # what is shown is what was asked for


def test_the_folder_of_another_recipe_is_refused(whole):
    other = plan(recipe("defend.alarm_init.max_steps=3"), over=[ONE], after="alarm_init")
    with pytest.raises(InputError, match=r"holds another run .*other defend"):
        sweep(other, out=whole, console=quiet(), workers=1)


def test_checkpoints_of_a_run_on_the_same_base_are_linked(whole, tmp_path):
    later = planned(ONE, after="at_sft")
    run = Run(later.recipe, tmp_path / "new", quiet(), 1)
    link_checkpoints(run, whole)
    first, second = run.steps
    assert [step.finished for step in first] == [True, True]
    assert all(step.out.is_symlink() for step in first)
    assert [step.finished for step in second] == [False, False]
    link_checkpoints(run, whole)  # what is here stays


def test_checkpoints_of_another_base_are_not_taken(whole, tmp_path):
    other = plan(recipe("base.source=train"), over=[ONE], after="alarm_init")
    run = Run(other.recipe, tmp_path / "new", quiet(), 1)
    for folder in (whole, tmp_path / "nothing"):
        with pytest.raises(InputError, match="no run with the base of this recipe"):
            link_checkpoints(run, folder)


def test_the_verb_says_where_the_page_is_and_what_is_wrong(whole, command):
    words = [word for override in TINY for word in ("--set", override)]
    code, out, err = command("ablate", "smoke", "--over", ONE, "--after", "alarm_init", "--out", whole, *words)
    assert code == 0
    assert f"sweep: {whole / 'sweep.html'}" in out
    assert f"{KEY} (own 1e-06; tried 1e-06, 0.0001): met at no value tried" in out
    assert "0 of 2 trainings and 0 of 2 evaluations to do" in err
    code, _, err = command("ablate", "smoke", "--over", "defend.cot.lr=1")
    assert code == 2
    assert "unknown field 'defend.cot.lr'" in err
