"""The pipeline: every recipe runs, a killed run continues to the same bytes, a run folder keeps its recipe."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from videosafety.chain import BASES
from videosafety.core.errors import InputError
from videosafety.core.recipe import load_recipe
from videosafety.pipeline import run
from videosafety.publish import publish
from videosafety.settings import Recipe

RECIPES = sorted(Path(__file__).parents[1].glob("recipes/*.yaml"))
SMALL = ("benchmark.clips_per_name=1", "benchmark.world=small")
FINAL = ("summary.json", "report.html", "evaluations/base-seed-0/responses.jsonl",
         "evaluations/base-seed-0/verdicts.jsonl", "evaluations/base-seed-0/plans.jsonl",
         "evaluations/base-seed-0/samples.jsonl", "tables/headline.csv")  # fmt: skip


def stages(folder):
    return {entry["name"]: entry for entry in json.loads((folder / "run.json").read_text())["stages"]}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs_two_steps_of_each_phase(recipe, tmp_path):
    loaded = load_recipe(recipe, Recipe, overrides=["benchmark.clips_per_name=1"])
    base = loaded.base.model_copy(update={"source": "train", "steps": type(loaded.base.steps)(pretrain=2, align=2)})
    evaluate = loaded.evaluate.model_copy(update={"decoding": loaded.evaluate.decoding.model_copy(
        update={"max_new_tokens": 2})})  # fmt: skip
    short = loaded.model_copy(update={"seeds": loaded.seeds[:1], "base": base, "evaluate": evaluate})
    assert run(short, out=tmp_path / "run") == 0
    assert set(stages(tmp_path / "run")) == {"benchmark", "base", "evaluate", "report"}
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_second_run_repeats_nothing_and_another_recipe_is_refused(tmp_path):
    recipe = load_recipe("toy", Recipe, overrides=[*SMALL, "evaluate.decoding.max_new_tokens=2"])
    run(recipe, out=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FINAL}
    stamp = (tmp_path / "evaluations/base-seed-0/evaluation.json").stat().st_mtime_ns
    run(recipe, out=tmp_path)
    assert {name: entry["reused"] for name, entry in stages(tmp_path).items()} == {
        "benchmark": True, "base": True, "evaluate": True, "report": False}  # fmt: skip
    assert (tmp_path / "evaluations/base-seed-0/evaluation.json").stat().st_mtime_ns == stamp
    changed = {name for name in FINAL if (tmp_path / name).read_bytes() != before[name]}
    assert changed <= {"report.html"}  # the page says what was reused
    other = load_recipe("toy", Recipe, overrides=[*SMALL, "benchmark.seed=7"])
    with pytest.raises(InputError, match=r"holds another run .*other benchmark, evaluate"):
        run(other, out=tmp_path)


def test_the_committed_base_has_one_seed(tmp_path):
    recipe = load_recipe("toy", Recipe, overrides=[*SMALL, "seeds=[0, 1]"])
    with pytest.raises(InputError, match=r"seed 0"):
        run(recipe, out=tmp_path)


def test_published_rows_leave_out_crossed_cells_only(tmp_path):
    recipe = load_recipe("toy", Recipe, overrides=[*SMALL, "evaluate.decoding.max_new_tokens=2"])
    run(recipe, out=tmp_path / "run")
    publish(tmp_path / "run", tmp_path / "results")
    rows = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert rows
    assert all(sum(row[key] is not None for key in ("language", "category", "seed")) <= 1 for row in rows)
    assert "| Text only: HH DSR |" in (tmp_path / "results" / "table.md").read_text()
    assert (tmp_path / "results" / "run.json").is_file()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final files of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(folder).wait() == 0
    return {name: (folder / name).read_bytes() for name in FINAL if name != "report.html"}


def start(folder):
    command = [sys.executable, "-m", "videosafety.cli", "run", "toy", "--out", str(folder)]
    for override in (*SMALL, "evaluate.decoding.max_new_tokens=8", "evaluate.batch_size=8"):
        command += ["--set", override]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True, cwd=Path(__file__).parents[1])  # fmt: skip


def kept(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("evaluations/*/*/answers.jsonl"))


def test_killed_at_any_moment_and_rerun_ends_in_the_same_bytes(tmp_path, uninterrupted):
    folder = tmp_path / "run"
    # before the benchmark is whole; with a few, then with many answers on the disk
    for reached in (lambda: folder.exists(), lambda: kept(folder) >= 8, lambda: kept(folder) >= 60):
        process = start(folder)
        while not reached():
            assert process.poll() is None, "it finished before the moment to kill it"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = kept(folder)
    assert before >= 60
    assert start(folder).wait() == 0
    assert {name: (folder / name).read_bytes() for name in uninterrupted} == uninterrupted
    assert kept(folder) == len((folder / "evaluations/base-seed-0/responses.jsonl").read_text().splitlines())


def test_the_committed_bases_are_there():
    assert (BASES / "small" / "model.safetensors").is_file()
