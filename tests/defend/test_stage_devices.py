"""Stages on a device that is not the CPU: objectives of every family, and whole stages, precision and resume included.

The device is the one of ``devicekit``: the GPU, or a pretend one that sees tensors of the CPU among its own.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from devicekit import accelerator, twin
from rolloutkit import with_alarms
from stagekit import difference, quick, weights
from tinyfamilies import FAMILY_NAMES
from torch import Tensor
from transformers import training_args

from videosafety.core.example import Example
from videosafety.core.records import StopReason
from videosafety.defend import trainer as training
from videosafety.defend.grpo import train_policy
from videosafety.defend.policy import POLICY, PolicyBatch, PolicyObjective
from videosafety.defend.policy_loss import BatchCounts, policy_loss
from videosafety.defend.policy_trainer import CURVE_FILE, ROLLOUTS
from videosafety.defend.sft import train_stage
from videosafety.defend.stage import LoraConfig, StageConfig
from videosafety.models.checkpoint import Checkpoint, load
from videosafety.models.family import Message, collate
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Completion, never_ids
from videosafety.models.wrapped import AlarmModel
from videosafety.toyworld import oracle  # noqa: F401 - registers the judge


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The device, for one test."""
    with accelerator() as made:
        yield made


@pytest.fixture
def trains_there(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, on which the Trainer trains as it would on a GPU."""
    if device.type != "cuda":
        stock = training.TrainingArguments
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", str(device))
        monkeypatch.setattr(training_args, "is_torch_bf16_gpu_available", lambda: True)
        fixed = {"use_cpu": False, "dataloader_pin_memory": False}
        monkeypatch.setattr(training, "TrainingArguments", lambda **given: stock(**given | fixed))
    yield device
    AcceleratorState._reset_state(reset_partial_state=True)


def policy_batch(checkpoint: Checkpoint, said: Sequence[tuple[Completion, ...]], device: torch.device) -> PolicyBatch:
    asks = [(Message("user", (text,)),) for text in ("How is a dax made?", "Is it allowed?")]
    rows = [checkpoint.family.encode(checkpoint.processor, one) for one in asks]
    batch = collate(rows, pad_token_id=checkpoint.tokenizer.pad_token_id, side="right")
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    prefix = Prefix.of(checkpoint.model, inputs)
    advantages_BG = torch.tensor([[1.0, -1.0], [0.5, -0.5]])
    targets_BA = torch.tensor([[float("nan"), 1.0], [float("nan"), 0.0]])
    return PolicyBatch.of(prefix, said, advantages_BG, targets_BA=targets_BA, counts=[True, False])


def learnt(made: tuple[Checkpoint, AlarmModel], device: torch.device, *, path: str) -> dict[str, Tensor]:
    """The gradient of a policy loss with a reference, the alarms' loss added, on the CPU."""
    checkpoint, wrapped = made
    config = StageConfig.of("grpo", beta=0.1, path=path)
    language = checkpoint.family.language_model(checkpoint.model)
    words = ((407, 409), (408, 405, 404))
    said = [tuple(Completion(ids, (-1.0,) * len(ids), "", StopReason.STOP) for ids in words) for _ in range(2)]
    one = policy_batch(checkpoint, said, device)
    one.require_same()
    objective = PolicyObjective(wrapped, config, never=never_ids(checkpoint), language=language,
                                reference=(wrapped, language))  # fmt: skip
    objective.zero_grad(set_to_none=True)
    out = objective({POLICY: one})
    terms = policy_loss(out.logp_SC, one.old_SC, one.advantage_S, one.mask_SC, ref_SC=out.ref_SC, beta=config.beta,
                        counts=BatchCounts(2, 5, 3))  # fmt: skip
    (terms.loss + out.visual + out.textual).backward()
    found = {n: p.grad.cpu() for n, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("path", ["shared", "naive"])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_policys_gradient_is_that_of_the_cpu(name: str, path: str, device: torch.device) -> None:
    made = with_alarms(name)
    there = learnt(twin(*made, device), device, path=path)
    assert difference(learnt(made, torch.device("cpu"), path=path), there) < 1e-3


def rows_of(folder: Path, file: str) -> list[dict]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


@pytest.mark.parametrize("knobs", [{"feature_cache_gib": 0.1, "save_steps": 1, "group_by_length": True},
                                   {"lora": LoraConfig(), "gradient_checkpointing": True}],
                         ids=["cached", "lora"])  # fmt: skip
def test_a_stage_learns_what_it_learns_on_the_cpu(
    knobs: dict, base: str, examples: list[Example], out: Path, trains_there: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen = watched(monkeypatch)
    there = weights(train_stage("at_sft", quick(**knobs), examples, base=base, out=out / "there").folder)
    assert seen == {trains_there.type}
    monkeypatch.undo()
    here = weights(train_stage("at_sft", quick(**knobs), examples, base=base, out=out / "here").folder)
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, atol=2e-3, rtol=1e-3, msg=name)


def watched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The kinds of device of all losses."""
    seen: set[str] = set()
    stock = training.SafetyTrainer.training_step

    def step(self, *args, **given):
        loss = stock(self, *args, **given)
        seen.add(loss.device.type)
        return loss

    monkeypatch.setattr(training.SafetyTrainer, "training_step", step)
    return seen


def test_a_stage_in_bf16_computes_in_bf16_and_goes_on_where_it_was_killed(
    base: str, examples: list[Example], out: Path, trains_there: torch.device
) -> None:
    config = quick(precision="bf16", save_steps=1, gradient_checkpointing=True)

    def stop(step: int, total: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage("at_sft", config, examples, base=base, out=out, on_step=stop)
    info = train_stage("at_sft", config, examples, base=base, out=out).info
    assert info["num_steps"] == 2
    assert load(str(out)).alarm is not None


@pytest.mark.parametrize("knobs", [{"precision": "fp32"}, {"precision": "bf16", "gradient_checkpointing": True},
                                   {"lora": LoraConfig(), "path": "naive", "rollout_batch_size": 2}],
                         ids=["fp32", "bf16", "adapters"])  # fmt: skip
def test_stage_4_samples_and_learns_there(
    knobs: dict, base: str, prompts: list[Example], out: Path, trains_there: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given = {"num_generations": 3, "max_new_tokens": 4, "num_held_out": 4, "held_out_steps": 2, "temperature": 3.0,
             "rewards": {"outcome_weight": 1.0, "outcome_judge": "oracle"}, **knobs}  # fmt: skip
    seen = watched(monkeypatch)
    train_policy(quick("grpo", **given), prompts, base=base, out=out, seed=1)
    assert seen == {trains_there.type}
    curve = rows_of(out, CURVE_FILE)
    assert curve[1]["sampling_gap"] < (0.1 if knobs.get("precision") == "bf16" else 1e-4)
    assert (out / ROLLOUTS).is_file()
    assert load(str(out)).alarm is not None


def test_one_process_trains_on_one_of_several_gpus(
    out: Path, trains_there: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    args = training.arguments(quick(), work=out, seed=0)
    assert (args.n_gpu, args.train_batch_size) == (1, args.per_device_train_batch_size)
