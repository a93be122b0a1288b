"""The whole step of benchmarks/grpo.py: ours, and stock TRL with a hook that gives it the video."""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from parts.grpo_setup import build, freeze, now, spent, told
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback

from videosafety.defend.policy_loss import BatchCounts, policy_loss
from videosafety.models.checkpoint import Checkpoint
from videosafety.models.logprobs import Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Decoding, LocalEngine, never_ids
from videosafety.models.shared_prefix import shared_hidden, shared_prefix_attention
from videosafety.models.video_llama3 import FAMILY
from videosafety.models.wrapped import AlarmModel

BETA, RATE = 0.04, 1e-6
QUESTION = "What is shown here"


class Passes:
    """Counts what a model runs: rows of clips through vision, rows of prompts through the decoder."""

    def __init__(self, model: PreTrainedModel, media: dict[str, Tensor] | None) -> None:
        self.clips = self.prompts = 0
        base, video_id = cast(Any, model.base_model), cast(Any, model.config).video_token_id
        base.vision_model.register_forward_pre_hook(self._vision, with_kwargs=True)
        base.register_forward_pre_hook(lambda module, args, kwargs: self._base(args, kwargs, media, video_id),
                                       with_kwargs=True)  # fmt: skip

    def _vision(self, module: Any, args: Any, kwargs: Any) -> None:
        self.clips += len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])

    def _base(self, args: Any, kwargs: Any, media: dict[str, Tensor] | None, video_id: int) -> Any:
        ids = kwargs["input_ids"]
        with_video = int((ids == video_id).any(dim=1).sum())
        self.prompts += with_video
        if not with_video or media is None:
            return None
        repeated = {name: torch.cat([t] * with_video) for name, t in media.items()}
        return args, {**kwargs, "mm_encoder_outputs": None, **repeated}


def reward(ids: list[int]) -> float:
    """Any function of a completion that differs between completions."""
    return sum(id_ % 7 for id_ in ids) / len(ids)


class Ours:
    """A step of this repository's pieces: vision once, prompt prefilled once, prefix shared twice."""

    def __init__(self, policy: Checkpoint, reference: Checkpoint, inputs: dict[str, Tensor], options: Any) -> None:
        self.policy, self.reference, self.inputs = policy, reference, inputs
        self.group, self.length = options.group, options.completion
        self.passes = [Passes(c.model, None) for c in (policy, reference)]
        wrapped = AlarmModel(policy.model, None)
        self.engine = LocalEngine(wrapped, policy)
        self.engine.ends = frozenset()  # every completion has its full length
        never = never_ids(policy)
        self.head = Head(wrapped, never=never, temperature=1.0)
        self.reference_head = Head(AlarmModel(reference.model, None), never=never, temperature=1.0)
        trained = [p for p in policy.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
        self.steps = 0

    def logp(self, checkpoint: Checkpoint, head: Head, prefix: Prefix, ids_BGC: Tensor) -> Tensor:
        """(G, C) log-probs."""
        with shared_prefix_attention(checkpoint.family.language_model(checkpoint.model)):
            _, hidden = shared_hidden(checkpoint.model, prefix, ids_BGC)
        return token_logprobs(head, hidden.flatten(0, 2), ids_BGC.flatten())[0].view(self.group, self.length)

    def __call__(self) -> float:
        """One step; returns the largest gap between log-probs of rollout and update."""
        self.steps += 1
        prefix = Prefix.of(self.policy.model, self.inputs)
        decoding = Decoding(num_generations=self.group, max_new_tokens=self.length, stop=None)
        [said] = self.engine.complete([prefix], decoding, seed=self.steps)
        device = prefix.ids_BP.device
        ids = torch.tensor([[one.ids for one in said]], device=device)
        old_SC = torch.tensor([one.logprobs for one in said], device=device)
        rewards = torch.tensor([reward(list(one.ids)) for one in said], device=device)
        advantage_S = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        with torch.no_grad():
            ref_SC = self.logp(self.reference, self.reference_head, prefix, ids)
        logp_SC = self.logp(self.policy, self.head, prefix, ids)
        counts = BatchCounts(self.group, self.group * self.length, self.length)
        policy_loss(logp_SC, old_SC, advantage_S, torch.ones_like(logp_SC), counts=counts, ref_SC=ref_SC,
                    beta=BETA).loss.backward()  # fmt: skip
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float((logp_SC.detach() - old_SC).abs().max())


class SideBySide(TrainerCallback):  # type: ignore[misc]
    """Times each of TRL's steps, and one of ours after it."""

    def __init__(self, ours: Ours, options: argparse.Namespace) -> None:
        self.ours, self.options, self.start = ours, options, 0.0
        self.theirs_s: list[float] = []
        self.ours_s: list[float] = []
        self.gap = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """TRL's step starts: rollout, reward, reference and update are inside."""
        self.start = now(self.options)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """It has ended, the optimiser included."""
        self.theirs_s.append(now(self.options) - self.start)
        seconds, gap = spent(self.options, self.ours)
        self.ours_s.append(seconds)
        self.gap = max(self.gap, gap)


def trl_trainer(folder: Path, checkpoint: Checkpoint, text: str, side: SideBySide, options: Any) -> Any:
    """Stock GRPOTrainer on the prompt's words with its video places written out."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    given = {"attn_implementation": options.attention, "dtype": options.dtype}
    model = cast(Any, FAMILY.model_class).from_pretrained(folder, **given)
    freeze(model)
    config = GRPOConfig(
        output_dir=str(folder / "trl"), max_steps=options.repeats + 1, learning_rate=RATE, beta=BETA,
        lr_scheduler_type="constant", per_device_train_batch_size=options.group, num_generations=options.group,
        max_completion_length=options.completion, temperature=1.0, loss_type="grpo", bf16=False, report_to=[],
        gradient_checkpointing=False, use_cpu=options.device == "cpu", save_strategy="no", disable_tqdm=True,
        logging_strategy="no", weight_decay=0.0, max_grad_norm=0.0,
        generation_kwargs={"min_new_tokens": options.completion, "suppress_tokens": never_ids(checkpoint),
                           "top_k": 0, "top_p": 1.0},
    )  # fmt: skip
    return GRPOTrainer(
        model=model, processing_class=checkpoint.tokenizer, args=config, callbacks=[side],
        train_dataset=Dataset.from_dict({"prompt": [text] * 64}),
        reward_funcs=lambda completion_ids, **kwargs: [reward(ids) for ids in completion_ids],
    )  # fmt: skip


def video_prompt(checkpoint: Checkpoint, options: argparse.Namespace) -> tuple[str, dict[str, Tensor]]:
    """The prompt's words with a place for every visual token, and a family's tensors of it. Pixels are noise."""
    side, patch = options.side, 14
    text = "<|video_pad|>" * (options.frames * side * side // 4) + QUESTION
    words = torch.tensor([checkpoint.tokenizer(text)["input_ids"]])
    noise = torch.randn(options.frames * side * side, 3 * patch * patch, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": words, "attention_mask": torch.ones_like(words),
              "pixel_values_videos": noise.to(getattr(torch, options.dtype)),
              "video_grid_thw": torch.tensor([[options.frames, side, side]]),
              "video_merge_sizes": torch.tensor([2])}  # fmt: skip
    return text, {name: tensor.to(options.device) for name, tensor in inputs.items()}


@torch.no_grad()
def same(theirs: PreTrainedModel, ours: Ours, inputs: dict[str, Tensor]) -> float:
    """The largest difference of log-probs between TRL's model with the hook and the shared prefix."""
    model, prefix = ours.policy.model, Prefix.of(ours.policy.model, inputs)
    ids_GC = torch.randint(500, 1000, (ours.group, ours.length), device=prefix.ids_BP.device)
    full = torch.cat([prefix.ids_BP.expand(ours.group, -1), ids_GC], dim=1)
    logits = theirs(input_ids=full, attention_mask=torch.ones_like(full)).logits[:, -ours.length - 1 : -1].float()
    with shared_prefix_attention(FAMILY.language_model(model)):
        hidden_GCH = shared_hidden(model, prefix, ids_GC[None])[1][0]
    own = cast(Any, model).lm_head(hidden_GCH).float().log_softmax(-1)
    return float((logits.log_softmax(-1) - own).gather(-1, ids_GC[..., None]).abs().max())


def step(options: argparse.Namespace) -> Iterator[tuple[str, str, float, str]]:
    """Ours against stock TRL."""
    policy, reference = build(options), build(options)
    text, inputs = video_prompt(policy, options)
    with tempfile.TemporaryDirectory() as name:
        policy.model.save_pretrained(name)
        side = SideBySide(Ours(policy, reference, inputs, options), options)
        trainer = trl_trainer(Path(name), policy, text, side, options)
        media = {key: t for key, t in inputs.items() if key not in ("input_ids", "attention_mask")}
        trainer.remove_callback(PrinterCallback)
        for model in (trainer.model, trainer.ref_model):
            model.set_attn_implementation(options.attention)
            FAMILY.prepare(model)
        passes = [Passes(model, media) for model in (trainer.model, trainer.ref_model)]
        gap = same(trainer.model, side.ours, inputs)
        for counter in (*passes, *side.ours.passes):
            counter.clips = counter.prompts = 0
        trainer.train()
    steps = len(side.theirs_s)
    print(f"prompt {inputs['input_ids'].shape[1]}, of it video {text.count('<|video_pad|>')}, forced completion "
          f"{options.completion}, G {options.group}, {options.attention}, {options.dtype}")  # fmt: skip
    print(f"{'per step':10} {'clips through vision':>21} {'prompts prefilled or forwarded':>31}")
    for who, counts in (("TRL", passes), ("ours", side.ours.passes)):
        clips, prompts = sum(c.clips for c in counts) / steps, sum(c.prompts for c in counts) / steps
        print(f"{who:10} {clips:21.1f} {prompts:31.1f}")
        yield who, "vision_passes", clips, "clips"
        yield who, "prompt_passes", prompts, "prompts"
    ratio = statistics.median(a / b for a, b in zip(side.theirs_s[1:], side.ours_s[1:], strict=True))
    print(f"log-probs differ by at most {gap:.1e} between TRL's model and the shared prefix, {side.gap:.1e} between "
          "our rollout and our update")  # fmt: skip
    told("whole step, times faster than TRL", ratio, 4.0)
    yield "ratio", "wall, TRL by ours", ratio, "1"
    yield "ours", "logprob_max_difference", gap, "nat"
    yield "ours", "sampling_gap_max", side.gap, "nat"
