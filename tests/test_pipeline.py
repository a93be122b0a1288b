"""The pipeline: every recipe runs, a killed run continues to the same bytes, a run folder keeps its recipe."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from videosafety.build.build import build
from videosafety.build.recipe import BuildRecipe
from videosafety.chain import BASES
from videosafety.core.errors import InputError, RecipeError
from videosafety.core.example import Example
from videosafety.core.jsonl import read_records
from videosafety.core.recipe import load_recipe
from videosafety.pipeline import run
from videosafety.publish import publish
from videosafety.settings import Recipe
from videosafety.toyworld.build import build_benchmark
from videosafety.toyworld.footage import write_footage
from videosafety.toyworld.training import SAFETY, TrainingConfig, build_training

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in ROOT.glob("recipes/*.yaml") if not path.name.startswith("build"))
SHORT = ("defend.alarm_init.max_steps=2", "defend.at_sft.max_steps=2", "defend.cot.max_steps=2")
LAST = "grpo-seed-0"
MANY_ARMS = 4  # a recipe with more of them is evaluated after its last stage alone, under a third of them
FINAL = ("summary.json", "report.html", f"evaluations/{LAST}/responses.jsonl", f"evaluations/{LAST}/verdicts.jsonl",
         f"evaluations/{LAST}/plans.jsonl", f"evaluations/{LAST}/samples.jsonl", f"evaluations/{LAST}/alarms.jsonl",
         "tables/headline.csv", "alarms.json")  # fmt: skip
EVERY_STAGE = {"benchmark", "base", "training", "defend", "evaluate", "report"}


def stages(folder):
    return {entry["name"]: entry for entry in json.loads((folder / "run.json").read_text())["stages"]}


def shortened(loaded):
    """The recipe with two steps a stage, two tokens an answer and one clip a name."""
    two = {"max_steps": 2, "batch_size": 4, "micro_batch_size": 2, "workers": 0}
    defend = {stage: loaded.defend.config(stage).model_copy(update=two) for stage in ("alarm_init", "at_sft", "cot")}
    few = two | {"num_generations": 2, "max_new_tokens": 4, "num_held_out": 2}
    defend["grpo"] = loaded.defend.grpo.model_copy(update=few)
    asked = {"decoding": loaded.evaluate.decoding.model_copy(update={"max_new_tokens": 2})}
    if len(loaded.evaluate.arms) > MANY_ARMS:
        asked |= {"after": "last_stage", "arms": loaded.evaluate.arms[::3]}
    return loaded.model_copy(update={
        "seeds": loaded.seeds[:1],
        "benchmark": loaded.benchmark.model_copy(update={"clips_per_name": 1}),
        "training": loaded.training.model_copy(update={"num_rows": 32}),
        "prompts": loaded.prompts.model_copy(update={"num_rows": 12}),
        "defend": loaded.defend.model_copy(update=defend),
        "evaluate": loaded.evaluate.model_copy(update=asked),
        "variants": dict(list(loaded.variants.items())[:1]),
    })  # fmt: skip


@pytest.fixture
def tiny_world(tmp_path, monkeypatch):
    """Put a tiny random checkpoint of the recipe's family, and a few rows, in the place of a recipe's own data."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "models"))
    from tinyfamilies import tiny_checkpoint

    def put(loaded):
        family = "qwen3_vl" if "Qwen3" in loaded.base.checkpoint else "videollama3"
        checkpoint = tiny_checkpoint(family, tmp_path / family, tied=True)
        manifest = build_benchmark(tmp_path / "toy", clips_per_name=1)
        lessons = build_training(tmp_path / "lessons", TrainingConfig(num_rows=12))
        rows = read_records(lessons / SAFETY, Example)
        talk = tmp_path / "lessons" / "rows.jsonl"
        talk.write_text("".join(json.dumps(conversation(row)) + "\n" for row in rows))

        def here(sources):
            return tuple(one.model_copy(update={"path": str(talk), "limit": None}) for one in sources)

        data = loaded.data.model_copy(update={"benchmark": str(manifest), "taxonomy": "toy",
            "sources": here(loaded.data.sources), "reasoned": here(loaded.data.reasoned),
            "prompts": tuple(one.model_copy(update={"path": str(lessons / SAFETY)}) for one in loaded.data.prompts),
        })  # fmt: skip
        base = loaded.base.model_copy(update={"checkpoint": str(checkpoint)})
        return loaded.model_copy(update={"data": data, "base": base})

    return put


@pytest.fixture
def built_world(tmp_path):
    """Put what a build made of toy footage, and the committed base, in the places that a recipe names."""

    def put(loaded):
        write_footage(tmp_path / "footage", num_clips=24, seed=9)
        labels = f"labels={tmp_path / 'footage' / 'labels.jsonl'}"
        asked = load_recipe("build_toy", BuildRecipe, overrides=[labels, "ask.eval_share=0.4"])
        build(asked, clips=tmp_path / "footage" / "clips", out=tmp_path / "runs" / "build_toy")

        def here(sources):
            return tuple(one.model_copy(update={"path": str(tmp_path / one.path)}) for one in sources)

        data = loaded.data.model_copy(update={
            "benchmark": str(tmp_path / loaded.data.benchmark), "sources": here(loaded.data.sources),
            "reasoned": here(loaded.data.reasoned), "prompts": here(loaded.data.prompts),
        })  # fmt: skip
        base = loaded.base.model_copy(update={"checkpoint": str(ROOT / loaded.base.checkpoint)})
        none_aside = loaded.defend.grpo.model_copy(
            update={"num_held_out": 0}
        )  # a clip has more prompts than are held out
        defend = loaded.defend.model_copy(update={"grpo": none_aside})
        return loaded.model_copy(update={"data": data, "base": base, "defend": defend})

    return put


def conversation(row):
    """An example in the form of the released code's data."""
    said = "".join(f"<{kind}>\n" for kind in (one.kind for one in row.media)) + row.turns[-1].text
    talk = [{"from": "human", "value": said}, {"from": "gpt", "value": row.target(structured=True)}]
    labels = {"visual": row.visual, "textual": row.textual}
    return {"id": row.id, "conversations": talk, "safety_labels": labels} | {one.kind: one.path for one in row.media}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs_two_steps_of_each_stage(recipe, tmp_path, tiny_world, built_world):
    loaded = shortened(load_recipe(recipe, Recipe))
    if loaded.data is None:
        steps = type(loaded.base.steps)(pretrain=2, align=2)
        loaded = loaded.model_copy(update={"base": loaded.base.model_copy(update={"source": "train", "steps": steps})})
    elif recipe.stem == "toy_built":
        loaded = built_world(loaded)
    else:
        loaded = tiny_world(loaded)
    assert run(loaded, out=tmp_path / "run", workers=1) == 0
    assert set(stages(tmp_path / "run")) == EVERY_STAGE
    assert (tmp_path / "run" / "report.html").is_file()
    made = {folder.name.partition("-")[0] for folder in (tmp_path / "run").glob("checkpoints/*")}
    assert made == set(loaded.defend.stages)


def test_a_second_run_repeats_nothing_and_another_recipe_is_refused(tmp_path):
    recipe = load_recipe("smoke", Recipe, overrides=[*SHORT, "evaluate.decoding.max_new_tokens=2"])
    run(recipe, out=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FINAL}
    stamp = (tmp_path / f"evaluations/{LAST}/evaluation.json").stat().st_mtime_ns
    run(recipe, out=tmp_path)
    assert {name: entry["reused"] for name, entry in stages(tmp_path).items()} == {
        name: name != "report" for name in EVERY_STAGE}  # fmt: skip
    assert (tmp_path / f"evaluations/{LAST}/evaluation.json").stat().st_mtime_ns == stamp
    changed = {name for name in FINAL if (tmp_path / name).read_bytes() != before[name]}
    assert changed <= {"report.html"}  # the page says what was reused
    other = load_recipe("smoke", Recipe, overrides=[*SHORT, "benchmark.seed=7"])
    with pytest.raises(InputError, match=r"holds another run .*other benchmark, evaluate"):
        run(other, out=tmp_path)


def test_variants_share_every_stage_in_which_they_do_not_differ(tmp_path):
    recipe = load_recipe("smoke", Recipe, overrides=[
        *SHORT, "evaluate.decoding.max_new_tokens=2", "evaluate.after=every_stage",
        "variants={released: [defend.cot.learning_rate=2e-6], early: ['defend.stages=[alarm_init]']}"])  # fmt: skip
    run(recipe, out=tmp_path, workers=1)
    made = sorted(folder.name.partition("-")[0] for folder in tmp_path.glob("checkpoints/*"))
    assert made == ["alarm_init", "at_sft", "cot", "cot", "grpo", "grpo"]
    rows = json.loads((tmp_path / "ablations.json").read_text())
    assert {row["variant"] for row in rows} == {"toy-small/released", "toy-small/early"}
    assert (tmp_path / "evaluations" / "early-alarm_init-seed-0" / "evaluation.json").is_file()


@pytest.mark.parametrize(("override", "said"), [
    ("defend.cot.learning_rat=1", "learning_rate"),
    ("defend.stages=[cot, at_sft]", "in this order"),
    ("variants={a: ['seeds=[1]']}", "changes seeds"),
    ("variants={a: [defend.cot.lerning_rate=1]}", "learning_rate"),
    ("variants={main: []}", "the recipe itself"),
    ("defend.at_sft.batch_size=9", "no multiple"),
    ("defend.cot.warmup_share=1", "warmup_share"),
    ("training.shares={HHH: 1}", "did you mean 'HH'"),
    ("training.world=full", "world"),
    ("base.source=checkpoint", "go together"),
])  # fmt: skip
def test_a_mistake_in_a_recipe_is_one_sentence_that_names_the_key(override, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("smoke", Recipe, overrides=[override])


def test_the_committed_base_has_one_seed(tmp_path):
    recipe = load_recipe("smoke", Recipe, overrides=["seeds=[0, 1]"])
    with pytest.raises(InputError, match=r"seed 0"):
        run(recipe, out=tmp_path)


def test_published_rows_leave_out_crossed_cells_only(tmp_path):
    recipe = load_recipe("smoke", Recipe, overrides=["defend.stages=[]", "evaluate.decoding.max_new_tokens=2"])
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
    command = [sys.executable, "-m", "videosafety.cli", "run", "smoke", "--out", str(folder)]
    for override in (*SHORT, "evaluate.decoding.max_new_tokens=8", "evaluate.batch_size=8"):
        command += ["--set", override]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            start_new_session=True, cwd=Path(__file__).parents[1])  # fmt: skip


def kept(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("evaluations/*/*/answers.jsonl"))


def test_killed_at_any_moment_and_rerun_ends_in_the_same_bytes(tmp_path, uninterrupted):
    folder = tmp_path / "run"
    # before the benchmark is whole; while stages train; with a few, then with many answers on the disk
    moments = (
        lambda: folder.exists(),
        lambda: any(folder.glob("checkpoints/at_sft-*/*")),
        lambda: any(folder.glob("checkpoints/grpo-*/*/rollouts.jsonl")),  # sampled, nothing learnt yet
        lambda: kept(folder) >= 8,
        lambda: kept(folder) >= 60,
    )
    for reached in moments:
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
    assert kept(folder) == len((folder / "evaluations" / LAST / "responses.jsonl").read_text().splitlines())


def test_the_committed_bases_are_there():
    assert (BASES / "small" / "model.safetensors").is_file()
