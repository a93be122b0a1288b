"""The trainer: a rate for each part, fp32 masters, the same weights however a batch is cut, and how it stops."""

import pytest
import torch
from stagekit import batch_of, gradients, quick, ready
from tinyfamilies import tiny_checkpoint

from videosafety.core.errors import InputError, VideoSafetyError
from videosafety.defend.resume import COMPLETE, claim
from videosafety.defend.rows import Rows
from videosafety.defend.trainer import RATES, SafetyTrainer, arguments, memory_errors, require_fp32


def trainer_of(made, examples, config, work, *, order=None):
    """A trainer on these rows, in their order unless told otherwise."""
    claim(work, {})
    rows = Rows(examples, checkpoint=made.checkpoint, structured=False)
    order = list(range(len(examples))) if order is None else order
    args = arguments(config, work=work, seed=0)
    return SafetyTrainer(made.objective, rows, config, args=args, parts=made.parts, order=order)


def trained(made, examples, config, work, *, sgd=None, **given):
    """(before, after) of every parameter by name; ``sgd``: plain gradient steps of this size."""
    before = {n: p.detach().clone() for n, p in made.objective.named_parameters()}
    trainer = trainer_of(made, examples, config, work, **given)
    if sgd is not None:
        trainer.optimizer = torch.optim.SGD([p for some in made.parts.values() for p in some], lr=sgd)
    trainer.train()
    return before, {n: p.detach().clone() for n, p in made.objective.named_parameters()}


def test_weights_are_the_same_however_a_batch_is_cut_and_the_last_batch_may_be_small(base, examples, tmp_path):
    found = []
    for micro in (8, 1):
        config = quick(batch_size=8, micro_batch_size=micro, max_steps=0, max_grad_norm=0.0, schedule="constant")
        made = ready(base, config)
        # Not AdamW: it divides by the gradient's own size, so that where there is none it follows the rounding.
        before, after = trained(made, examples[:13], config, tmp_path / str(micro), sgd=0.1)  # 8 rows, then 5
        found.append(after)
    assert sum(not torch.equal(before[name], after[name]) for name in after) > 20
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)


def test_the_curve_has_the_means_of_the_global_batch(base, clips, tmp_path):
    logs = []
    for micro in (4, 1):
        config = quick(batch_size=4, micro_batch_size=micro, max_steps=2)
        trainer = trainer_of(ready(base, config), clips[:8], config, tmp_path / str(micro))
        trainer.train()
        logs.append([log for log in trainer.state.log_history if "loss" in log])
    for one, other in zip(*logs, strict=True):
        for key in ("loss", "loss_answer", "loss_visual", "loss_textual"):
            assert one[key] == pytest.approx(other[key], rel=1e-4)
        parts = one["loss_answer"] + 0.1 * one["loss_visual"] + 0.1 * one["loss_textual"]
        assert one["loss"] == pytest.approx(parts, rel=1e-4)


def test_at_the_paper_rate_the_fp32_masters_move_under_bf16_computation(examples, tmp_path):
    config = quick(precision="bf16", learning_rate=1e-6, alarm_learning_rate=1e-6, head_learning_rate=1e-6,
                   schedule="constant", max_steps=10, trains=("llm", "alarms", "heads"))  # fmt: skip
    made = ready(str(tiny_checkpoint("videollama3", tmp_path / "base", tied=True)), config)
    names = {id(p): n for n, p in made.objective.named_parameters()}
    masters = [names[id(p)] for some in made.parts.values() for p in some]
    before, after = trained(made, examples, config, tmp_path / "work", order=list(range(20)) * 2)
    changed = sum(int((before[n] != after[n]).sum()) for n in masters)
    assert changed / sum(before[n].numel() for n in masters) > 0.99
    assert all(after[n].dtype is torch.float32 for n in masters)


def test_pure_bf16_weights_are_refused_because_they_would_not_move(base, clips, tmp_path):
    config = quick()
    made = ready(base, config)
    gradient = gradients(made, [batch_of(made, clips[:2])], config)
    name = "wrapped.model.model.language_model.layers.0.mlp.up_proj.weight"
    moved = {}
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.nn.Parameter(dict(made.objective.named_parameters())[name].detach().to(dtype))
        start, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
        for _ in range(10):
            weight.grad = gradient[name].to(dtype)
            optimizer.step()
        moved[dtype] = float((weight.detach() != start).float().mean())
    assert moved[torch.float32] > 0.99
    assert moved[torch.bfloat16] < 0.02  # near 0.1 two bf16 numbers are 5e-4 apart; ten steps of 1e-6 round to nothing
    made.wrapped.model.to(torch.bfloat16)
    with pytest.raises(InputError, match=r"weights to train are bfloat16.*float32; precision: bf16"):
        trainer_of(made, clips[:4], config, tmp_path)
    require_fp32({"heads": made.parts["heads"]})


def test_each_part_has_its_own_rate(base, clips, tmp_path):
    rates = {"learning_rate": 1e-4, "alarm_learning_rate": 1e-2, "head_learning_rate": 3e-3}
    config = quick(**rates, max_steps=1, schedule="constant")
    made = ready(base, config)
    trainer = trainer_of(made, clips[:4], config, tmp_path)
    groups = {group["name"]: group for group in trainer.create_optimizer().param_groups}
    assert {part: group["lr"] for part, group in groups.items()} == {p: rates[RATES[p]] for p in RATES}
    assert all(group["weight_decay"] == 0 for group in groups.values())
    before = {part: [p.detach().clone() for p in some] for part, some in made.parts.items()}
    trainer.train()
    for part, some in made.parts.items():  # AdamW's first step is as long as the rate, whatever the gradient
        longest = max(float((p.detach() - b).abs().max()) for p, b in zip(some, before[part], strict=True))
        assert longest == pytest.approx(rates[RATES[part]], rel=2e-2)


@pytest.mark.parametrize("trains", [("llm",), ("alarms",), ("alarms", "heads"), ("llm", "alarms", "heads")])
def test_only_what_the_stage_trains_moves_and_vision_never_does(base, clips, tmp_path, trains):
    config = quick(trains=trains, max_steps=1)
    made = ready(base, config)
    before, after = trained(made, clips[:4], config, tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = {"alarms" if "rows_AH" in n else "heads" if "head_" in n else "llm" for n in moved}
    assert kinds == set(trains)
    assert not [name for name in moved if "vision_model" in name or "projector" in name]


def test_a_loss_that_is_no_number_ends_the_run_before_anything_is_saved(base, clips, tmp_path):
    config = quick(save_steps=1, log_steps=2)
    made = ready(base, config)
    with torch.no_grad():
        made.wrapped.head_bias_A.fill_(torch.inf)
        made.wrapped.head_weight_AH.fill_(torch.nan)
    trainer = trainer_of(made, clips[:4], config, tmp_path / "work", order=[0, 1, 2, 3] * 2)
    made.wrapped.alarm_logits = lambda hidden, ids: hidden[:, :2, 0] * torch.inf
    with pytest.raises(VideoSafetyError, match="the loss is no number at step 1; lower the learning rates"):
        trainer.train()
    assert not list((tmp_path / "work").glob(f"*/{COMPLETE}"))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_out_of_memory_is_a_sentence_that_says_what_to_lower(base, clips, tmp_path, error):
    config = quick()
    made = ready(base, config)

    def full(*_):
        raise error

    made.checkpoint.family.language_model(made.wrapped.model).layers[1].register_forward_pre_hook(full)
    told = "out of memory while training; lower micro_batch_size"
    with pytest.raises(VideoSafetyError, match="lower rollout_batch_size"), memory_errors(tmp_path, samples=True):
        raise error
    with pytest.raises(VideoSafetyError, match=told) as caught, memory_errors(tmp_path):
        trainer_of(made, clips[:4], config, tmp_path).train()
    assert "\n" not in str(caught.value)


def test_other_runtime_errors_pass(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), memory_errors(tmp_path):
        raise RuntimeError("shape '[2]' is invalid")


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    from transformers import TrainingArguments

    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: 3))
    with pytest.raises(InputError, match="batch_size 4 is no multiple of micro_batch_size 2 times 3 processes"):
        arguments(quick(), work=tmp_path, seed=0)
