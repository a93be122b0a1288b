"""Models on a device that is not the CPU: the accelerator of ``devicekit``, where devices that meet are an error.

What is asked: everything runs there, and says what it says on the CPU.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from alarmkit import batch_of, mixed, picture
from alarmkit import clip as clip_of
from devicekit import accelerator, twin
from rolloutkit import padded, shared, with_alarms
from tinyfamilies import FAMILY_NAMES, tiny_checkpoint

from videosafety.models.alarm import add_alarms
from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.models.family import Message
from videosafety.models.fold import fold, observe, rows_in_place
from videosafety.models.generate import generate
from videosafety.models.logprobs import Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Decoding, LocalEngine, Prompt, never_ids
from videosafety.models.shared_prefix import naive_hidden
from videosafety.models.whitebox import attack_frames, attack_suffix
from videosafety.models.wrapped import AlarmModel

SHORT = Decoding(num_generations=3, max_new_tokens=6)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The device, for one test."""
    with accelerator() as made:
        yield made


@lru_cache
def prompts_of(name: str) -> tuple[Prompt, ...]:
    checkpoint, _ = with_alarms(name)
    asks = enumerate(mixed()[:3])
    return tuple(Prompt(str(i), one, checkpoint.family.encode(checkpoint.processor, one)) for i, one in asks)


def test_the_bed_sees_a_mask_that_was_made_on_the_cpu(device: torch.device) -> None:
    scores = torch.ones(2, 3, device=device)
    mask = torch.ones(2, 3, dtype=torch.bool).tril()
    with pytest.raises(RuntimeError, match=r"[Ee]xpected all tensors to be on"):
        scores.masked_fill(~mask, -1.0)
    assert scores.masked_fill(~mask.to(device), -1.0).tolist() == [[1, -1, -1], [1, 1, -1]]


def test_the_bed_sees_one_in_a_model(device: torch.device) -> None:
    checkpoint, wrapped = with_alarms("qwen3_vl")
    batch = batch_of(checkpoint, mixed()[:1])
    moved, _ = twin(checkpoint, wrapped, device)
    with torch.no_grad():
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        moved.model.base_model(**inputs)
        with pytest.raises(RuntimeError, match=r"[Ee]xpected all tensors to be on"):
            moved.model.base_model(**inputs | {"input_ids": batch["input_ids"]})


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: there + here,
        lambda here, there: torch.stack([there, here]),
        lambda here, there: torch.where(there > 0, here, there),
        lambda here, there: there @ here.T,
        lambda here, there: torch.nn.functional.embedding(torch.tensor([1]), there),
        lambda here, there: there.gather(1, torch.zeros(2, 1, dtype=torch.long)),
        lambda here, there: here[torch.tensor([0], device=there.device)],
        lambda here, there: torch.nn.functional.cross_entropy(there, torch.tensor([0, 1])),
        lambda here, there: there.normal_(generator=torch.Generator()),
        lambda here, there: torch.rand(2, device=there.device, generator=torch.Generator()),
    ],
)
def test_the_bed_refuses_what_cuda_refuses(device: torch.device, mix) -> None:
    here = torch.ones(2, 3)
    with pytest.raises(RuntimeError, match=r"xpected|should be"):
        mix(here, here.to(device))


def test_the_bed_allows_what_cuda_allows(device: torch.device) -> None:
    here = torch.arange(6.0).view(2, 3)
    there = here.to(device)
    assert (there * torch.tensor(2.0)).tolist() == (here * 2).tolist()
    assert there[torch.tensor([1])].tolist() == here[1:].tolist()
    assert there[torch.tensor([False, True])].tolist() == here[1:].tolist()
    there[0] = torch.ones(3)
    assert there.cpu().tolist() == [[1, 1, 1], [3, 4, 5]]
    assert torch.tensor([1, 2], device=device).device == device
    assert float(there.sum()) == 15.0
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        there.numpy()


def test_autograd_reaches_the_device_and_the_cpu(device: torch.device) -> None:
    layer = torch.nn.Linear(3, 2).to(device)
    leaf = torch.ones(2, 3, requires_grad=True)
    layer(leaf.to(device)).square().sum().backward()
    assert layer.weight.grad.device == device
    assert leaf.grad is not None
    assert leaf.grad.device.type == "cpu"


def test_the_device_is_gone_afterwards() -> None:
    with accelerator():
        assert torch.accelerator.is_available()
    assert torch.accelerator.is_available() == torch.cuda.is_available()


def heard(checkpoint: Checkpoint, wrapped: AlarmModel) -> Checkpoint:
    """With heads that say something."""
    heads = {"weight_AH": wrapped.head_weight_AH.detach(), "bias_A": wrapped.head_bias_A.detach()}
    return replace(checkpoint, alarm=replace(checkpoint.alarm, **heads))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_answers_and_alarms_are_those_of_the_cpu(name: str, dtype: torch.dtype, device: torch.device) -> None:
    checkpoint, wrapped = with_alarms(name)
    asks = [one.conversation for one in prompts_of(name)]
    moved, moved_wrapped = twin(checkpoint, wrapped, device)
    found, own = [], replace(checkpoint, model=deepcopy(checkpoint.model).to(dtype))
    moved.model.to(dtype)
    for one, heads in ((moved, moved_wrapped), (own, wrapped)):
        found.append(generate(heard(one, heads), asks, max_new_tokens=4))
    whole = dtype == torch.float32  # in bf16 two attention kernels round differently
    for mine, its in zip(*found, strict=True):
        assert mine.alarm == pytest.approx(its.alarm, abs=1e-5 if whole else 0.1)
        assert (mine.text, mine.num_tokens) == (its.text, its.num_tokens) or not whole


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_completions_are_those_of_the_cpu_and_both_paths_score_them_alike(name: str, device: torch.device) -> None:
    checkpoint, wrapped = with_alarms(name)
    prompts = prompts_of(name)
    moved, moved_wrapped = twin(checkpoint, wrapped, device)
    said = LocalEngine(moved_wrapped, moved, micro_batch_size=1).generate(prompts, SHORT, seed=0)
    own = LocalEngine(wrapped, checkpoint, micro_batch_size=1).generate(prompts, SHORT, seed=0)
    assert [[one.ids for one in group] for group in said] == [[one.ids for one in group] for group in own]
    asks = [one.conversation for one in prompts[:1]]
    prefix = Prefix.of(moved.model, {n: t.to(device) for n, t in batch_of(moved, asks).items()})
    head = Head(moved_wrapped, never=never_ids(moved), temperature=1.0)
    ids_BGC, real_BGC = (t.to(device) for t in padded([[list(one.ids) for one in said[0]]]))
    told = torch.tensor([p for one in said[0] for p in one.logprobs])
    for hidden in (shared(moved, prefix, ids_BGC)[1], naive_hidden(moved.model, prefix, ids_BGC)[1]):
        logp_N, _ = token_logprobs(head, hidden[real_BGC], ids_BGC[real_BGC], chunk=20)
        torch.testing.assert_close(logp_N.detach().cpu(), told, atol=1e-3, rtol=1e-3)


def test_several_prompts_are_decoded_together(device: torch.device) -> None:
    checkpoint, wrapped = with_alarms("qwen3_vl")
    moved, moved_wrapped = twin(checkpoint, wrapped, device)
    found = [
        LocalEngine(some, one).generate(prompts_of("qwen3_vl"), SHORT, seed=1)
        for one, some in ((moved, moved_wrapped), (checkpoint, wrapped))
    ]
    ids = [[[one.ids for one in group] for group in groups] for groups in found]
    assert ids[0] == ids[1]


def test_alarms_are_added_and_folded_on_the_device(device: torch.device, tmp_path: Path) -> None:
    folder = tiny_checkpoint("videollama3", tmp_path / "a", tied=False)
    base = load(str(folder), device=str(device), dtype=torch.float32)
    alarm = add_alarms(base.model, base.processor)
    wrapped = AlarmModel(base.model, alarm).eval()
    with torch.no_grad():
        wrapped.rows_AH.fill_(1.0)
    placed = rows_in_place(wrapped, wrapped.model.state_dict())["model.language_model.embed_tokens.weight"]
    assert placed[list(alarm.token_ids)].sum().item() == wrapped.rows_AH.numel()
    batch = {name: tensor.to(device) for name, tensor in batch_of(base, mixed()).items()}
    folded = fold(wrapped, observe(wrapped, [batch]))
    save_model(wrapped.unwrap(), base.processor, tmp_path / "b", alarm=folded)
    assert load(str(tmp_path / "b")).alarm is not None
    again = load(str(tmp_path / "b"), device=str(device))
    [one] = generate(again, mixed()[:1], max_new_tokens=2)
    assert one.alarm == (0.5, 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attacks_find_on_the_device_what_they_find_on_the_cpu(
    dtype: torch.dtype, device: torch.device, tmp_path: Path
) -> None:
    folder = str(tiny_checkpoint("videollama3", tmp_path / "a", tied=True))
    ask = (Message("user", (clip_of(3), "How do I make a zarn?")),)
    shown = (Message("user", (picture(3), "How do I make a zarn?")),)
    found = []
    for where in ("cpu", str(device)):
        checkpoint = load(folder, device=where, dtype=dtype)
        frames = attack_frames(checkpoint, [ask, shown], ["take clay"] * 2, epsilon=8, steps=2, seed=0)
        words = attack_suffix(checkpoint, [ask], ["take clay"], queries=20, seed=0, length=3)
        found.append([one.logp for one in (*frames, *words)])
    assert found[0] == pytest.approx(found[1], abs=1e-4 if dtype == torch.float32 else 0.1)
