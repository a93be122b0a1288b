"""Resumed is uninterrupted: a stage that is killed goes on from its last whole checkpoint, to the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stagekit import QUICK, bytes_of, quick

from videosafety.core.errors import CheckpointError, InputError
from videosafety.core.store import write_records
from videosafety.defend.resume import COMPLETE, IDENTITY, claim, last_complete, mark_complete
from videosafety.defend.sft import CURVE, train_stage

HERE = Path(__file__).parent


def test_a_killed_stage_goes_on_to_the_same_bytes(base, examples, tmp_path):
    rows = tmp_path / "rows.jsonl"
    write_records(rows, examples)
    knobs = {**QUICK, "max_steps": 6, "save_steps": 2, "lora": {"rank": 2, "dropout": 0.5}}  # dropout draws numbers
    asked = {"rows": str(rows), "base": base, "out": str(tmp_path / "killed"), "stages": [["at_sft", knobs]],
             "die_at": random.Random(5).randrange(3, 6)}  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, HERE / "launched.py", json.dumps(asked)], env=environment,
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    work = tmp_path / "killed" / "at_sft.work"
    [whole] = [file.parent for file in work.glob(f"checkpoint-*/{COMPLETE}")]
    half = work / "checkpoint-5"
    shutil.copytree(whole, half)
    (half / COMPLETE).unlink()
    (half / "model.safetensors").write_bytes(b"half")
    steps = []
    config = quick(**knobs)
    train_stage("at_sft", config, examples, base=base, out=tmp_path / "killed" / "at_sft", seed=1,
                on_step=lambda *at: steps.append(at[0]))  # fmt: skip
    assert steps[0] == int(whole.name.partition("-")[2]) + 1
    assert steps[-1] == 6
    train_stage("at_sft", config, examples, base=base, out=tmp_path / "straight", seed=1)
    assert bytes_of(tmp_path / "killed" / "at_sft") == bytes_of(tmp_path / "straight")
    curves = [[json.loads(line)["loss"] for line in (folder / CURVE).read_text().splitlines()]
              for folder in (tmp_path / "killed" / "at_sft", tmp_path / "straight")]  # fmt: skip
    assert curves[0] == curves[1]
    assert len(curves[0]) == 6


def unfinished(base, rows, out, **knobs):
    """A stage that ends after step 1 with a checkpoint behind it; its work folder."""

    def on_step(step, total, loss):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage("at_sft", quick(max_steps=3, save_steps=1, **knobs), rows, base=base, out=out, on_step=on_step)
    work = out.with_name(f"{out.name}.work")
    assert last_complete(work, sharded=False).name == "checkpoint-1"
    return work


@pytest.mark.parametrize("change", ["config", "rows", "seed", "nothing"])
def test_work_on_something_else_is_not_gone_on_with(base, clips, out, change):
    unfinished(base, clips[:4], out)
    config = quick(max_steps=3, save_steps=1, **({"lambda_visual": 0.2} if change == "config" else {}))
    other = clips[0].model_copy(update={"answer": f"{clips[0].answer} yes"})
    rows = [other, *clips[1:4]] if change == "rows" else clips[:4]
    steps = []
    train_stage("at_sft", config, rows, base=base, out=out, seed=int(change == "seed"),
                on_step=lambda *at: steps.append(at[0]))  # fmt: skip
    assert steps == ([2, 3] if change == "nothing" else [1, 2, 3])


def test_only_a_marked_checkpoint_counts_and_the_others_go(tmp_path):
    claim(tmp_path, {"a": "1"})
    for step in (9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_complete(tmp_path, sharded=False) is None
    assert not list(tmp_path.glob("checkpoint-*"))
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        mark_complete(tmp_path, step)
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]
    assert last_complete(tmp_path, sharded=False).name == "checkpoint-10"


def test_work_in_shards_is_not_mistaken_for_whole_work(tmp_path):
    claim(tmp_path, {})
    (tmp_path / "checkpoint-1" / "pytorch_model_fsdp_0").mkdir(parents=True)
    mark_complete(tmp_path, 1)
    assert last_complete(tmp_path, sharded=True) is not None
    with pytest.raises(InputError, match="this work was done with sharded weights; launch it as before"):
        last_complete(tmp_path, sharded=False)


def test_a_work_folder_without_an_owner_is_cleared(tmp_path):
    claim(tmp_path / "work", {"a": "1"})
    (tmp_path / "work" / "kept").touch()
    claim(tmp_path / "work", {"a": "1"})
    assert (tmp_path / "work" / "kept").exists()
    (tmp_path / "work" / IDENTITY).unlink()
    claim(tmp_path / "work", {"a": "1"})
    assert not (tmp_path / "work" / "kept").exists()


def test_saved_work_with_other_weights_is_refused(base, clips, out):
    from safetensors.torch import load_file, save_file

    work = unfinished(base, clips[:4], out)
    file = work / "checkpoint-1" / "model.safetensors"
    saved = load_file(file)
    saved.pop("wrapped.rows_AH")
    save_file(saved, file)
    with pytest.raises(CheckpointError, match=r"the saved work has other weights, such as wrapped\.rows_AH"):
        train_stage("at_sft", quick(max_steps=3, save_steps=1), clips[:4], base=base, out=out)
