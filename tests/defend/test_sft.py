"""Stages from checkpoint to checkpoint: what is kept, what is written, what is said when something is lost."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from stagekit import bytes_of, quick, weights
from transformers import VideoLlama3ForConditionalGeneration

from videosafety.core.errors import DependencyError, InputError
from videosafety.defend.resume import COMPLETE, FAULT_ROWS
from videosafety.defend.sft import CURVE, TRAINING, order_of, train_stage
from videosafety.defend.stage import LoraConfig
from videosafety.models.checkpoint import load
from videosafety.models.family import Message
from videosafety.models.generate import generate


def test_three_stages_hand_on_rows_and_heads_and_leave_plain_checkpoints(base, clips, tmp_path):
    """In the released code the heads are dropped after stage 2."""
    before, heads = base, {}
    for stage in ("alarm_init", "at_sft", "cot"):
        out = tmp_path / stage
        info = train_stage(stage, quick(stage, max_steps=1, alarm_learning_rate=1e-2, head_learning_rate=1e-2),
                           clips[:4], base=before, out=out, seed=2).info  # fmt: skip
        after = load(str(out))
        heads[stage] = after.alarm
        assert after.alarm.scale is not None
        assert [row["moved"] > 0 for row in info["alarm_rows"]] == [stage != "cot"] * 2
        assert not list(tmp_path.glob("*.work")) + list(tmp_path.glob("*.part"))
        plain, report = VideoLlama3ForConditionalGeneration.from_pretrained(out, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not [name for name, _ in plain.named_parameters() if "lora" in name or "wrapped" in name]
        before = str(out)
    assert not heads["alarm_init"].weight_AH.any()
    assert heads["at_sft"].weight_AH.any()
    assert torch.equal(heads["at_sft"].weight_AH, heads["cot"].weight_AH)
    assert torch.equal(heads["at_sft"].bias_A, heads["cot"].bias_A)
    first, last = weights(Path(base)), weights(tmp_path / "cot")
    frozen = [name for name in first if "vision_model" in name or "projector" in name]
    assert len(frozen) > 5
    assert all(torch.equal(first[name], last[name]) for name in frozen)
    [said] = generate(load(before), [(Message("user", ("hello",)),)], max_new_tokens=2)
    assert None not in said.alarm


def test_a_stage_leaves_its_record_and_its_curve_and_is_not_trained_twice(base, clips, out):
    steps = []
    config = quick(max_steps=3, log_steps=2)
    first = train_stage("at_sft", config, clips[:4], base=base, out=out, on_step=lambda *at: steps.append(at[:2]))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    curve = [json.loads(line) for line in (out / CURVE).read_text().splitlines()]
    assert [row["step"] for row in curve] == [2]
    assert curve[0]["tokens"] > 50
    info = json.loads((out / TRAINING).read_text())
    assert (info["stage"], info["num_steps"], info["num_examples"], info["faults"]) == ("at_sft", 3, 4, {})
    again = train_stage("at_sft", config, clips[:4], base="no/such/base", out=out, on_step=lambda *at: 1 / 0)
    assert again.info == first.info == info


def test_equal_runs_give_equal_bytes_and_another_seed_other_weights(base, clips, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_stage("at_sft", quick(max_steps=1), clips, base=base, out=tmp_path / name, seed=seed)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert bytes_of(tmp_path / "a") != bytes_of(tmp_path / "c")


def test_adapters_leave_a_plain_checkpoint_whose_decoder_moved(base, clips, out):
    config = quick(max_steps=1, lora=LoraConfig(rank=2))
    train_stage("at_sft", config, clips[:4], base=base, out=out)
    first, last = weights(Path(base)), weights(out)
    assert set(last) - set(first) == {"alarm_heads/weight", "alarm_heads/bias"}
    moved = {
        name for name in first if first[name].shape == last[name].shape and not torch.equal(first[name], last[name])
    }
    assert moved
    assert all("proj.weight" in name and "layers" in name and "vision" not in name for name in moved)


def shorn(example, folder: Path):
    """The row with a copy of its clip that a test may remove; the file."""
    [turn] = example.turns
    file = folder / f"{example.id}.mp4"
    file.write_bytes(Path(turn.media[0].path).read_bytes())
    media = turn.media[0].model_copy(update={"path": str(file)})
    return example.model_copy(update={"turns": (turn.model_copy(update={"media": (media,)}),)}), file


def test_a_clip_that_vanishes_mid_epoch_is_recorded_and_training_goes_on(base, clips, tmp_path, out):
    doomed, file = shorn(clips[0], tmp_path)
    rows = [doomed, *clips[1:4]]
    config = quick(max_steps=4)
    late = order_of(4, config, seed=0)
    assert 0 in late[4:8]

    def on_step(step, total, loss):
        if step == 1:
            file.unlink()

    info = train_stage("at_sft", config, rows, base=base, out=out, on_step=on_step).info
    assert list(info["faults"]) == [doomed.id]
    assert info["faults"][doomed.id].startswith("missing")
    assert info["num_steps"] == 4
    assert all(value.isfinite().all() for value in weights(out).values())


def test_too_many_lost_clips_stop_the_run_and_it_resumes_when_they_are_back(base, clips, tmp_path, out):
    doomed = [shorn(one, tmp_path) for one in clips[:4]]
    rows, files = [row for row, _ in doomed], [file for _, file in doomed]
    config = quick(max_steps=4, save_steps=1, max_fault_share=0.3)
    kept = {file: file.read_bytes() for file in files}
    straight = train_stage("at_sft", config, rows, base=base, out=tmp_path / "straight")

    def on_step(step, total, loss):
        if step == 2:
            for file in files:
                file.unlink()

    with pytest.raises(InputError) as caught:
        train_stage("at_sft", config, rows, base=base, out=out, on_step=on_step)
    told = str(caught.value)
    assert "rows lost their media while training, such as " in told
    assert "restore the files and run the same command again: it resumes" in told
    assert "\n" not in told
    work = out.with_name("stage.work")
    [saved] = work.glob(f"checkpoint-*/{COMPLETE}")
    assert saved.parent.name == "checkpoint-2"
    recorded = [json.loads(line) for line in (work / FAULT_ROWS).read_text().splitlines()]
    assert {row["step"] for row in recorded} == {2}
    for file, content in kept.items():
        file.write_bytes(content)
    steps = []
    again = train_stage("at_sft", config, rows, base=base, out=out, on_step=lambda *at: steps.append(at[0]))
    assert steps == [3, 4]
    assert again.info["faults"] == {}  # what was lost has been seen after all
    assert again.info["num_steps"] == straight.info["num_steps"]
    assert bytes_of(out) == bytes_of(tmp_path / "straight")


def test_tensorboard_gets_the_curves_and_keeps_them_beside_the_weights(base, clips, out):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_stage("at_sft", quick(max_steps=2, report_to=("tensorboard",)), clips[:4], base=base, out=out)
    [file] = out.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    assert {"train/loss", "train/loss_answer", "train/loss_visual"} <= set(events.Tags()["scalars"])
    curve = [json.loads(line)["loss"] for line in (out / CURVE).read_text().splitlines()]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(curve)


def test_a_logger_that_is_not_installed_is_named_before_anything_is_loaded(clips, out, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a))
    with pytest.raises(DependencyError, match="training curves in wandb need the package wandb; pip install wandb"):
        train_stage("at_sft", quick(report_to=("wandb",)), clips, base="no/such/base", out=out)
    assert not out.with_name("stage.work").exists()
