"""Safety-GRPO's step against the usual ways, side by side in one process: time, counted FLOPs, equality, logits held.

    python benchmarks/grpo.py [--json FILE] [--only update|step|logits] [--real] [--prompt 1024] [--group 8] ...

Random weights of the real VideoLLaMA3 class. Three parts:

update    log-probs of G completions behind one prompt of P tokens, backward pass included: shared prefix against full
          sequences (eager and SDPA-causal, batched and row by row), logits at completion positions only in all of them.
step      rollout with C forced tokens, reward, reference, update and optimiser on a video prompt, against stock TRL
          with HF generation, given the video: a hook on the base model adds the pixels wherever token ids hold video
          places, as TRL itself passes none. Same weights, β = 0.04. The hook also counts passes and rows.
logits    bytes of logits alive, at two vocabularies.

The analytic ratio of an update, per prompt, forward; backward is twice as much in every term and cancels. W is the
number of weights in the decoder's matrices, A = 4·L·heads·channels (scores and mixing, counted dense, as eager
attention computes and torch counts), V·H the LM head:

    full      G·(P+C)·2W          + A·G·(P+C)²            + G·C·2·V·H
    shared    (P + G·C)·2W        + A·(P² + G·C·(P+C))    + G·C·2·V·H

Torch counts a causal SDPA as dense. Where it skips what lies above the diagonal, A·L² becomes A·L²/2 for full sequences
and for the prompt, and the ratio is smaller; it is printed too, as the ratio of the work that is really done when the
fastest full way is a causal kernel.

Times are medians of interleaved runs and only their ratios mean something. ``--real``: 2B shapes, 5,120 visual tokens,
G = 6, bf16, for one CUDA device.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    PreTrainedModel,
    Qwen2Config,
    TrainerCallback,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3VisionConfig,
)
from transformers.utils import logging as quiet

from videosafety.defend.policy_loss import BatchCounts, policy_loss
from videosafety.models.checkpoint import Checkpoint
from videosafety.models.logprobs import CHUNK, Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Decoding, LocalEngine, never_ids
from videosafety.models.shared_prefix import shared_hidden, shared_prefix_attention
from videosafety.models.video_llama3 import FAMILY
from videosafety.models.wrapped import AlarmModel
from videosafety.toyworld.base_model import ModelSize, tiny
from videosafety.toyworld.world import World

BETA, RATE = 0.04, 1e-6
QUESTION = "What is shown here"
REAL = {"hidden": 1536, "intermediate": 8960, "layers": 28, "heads": 12, "kv_heads": 2, "vocab": 151_936,
        "vision_hidden": 1152, "vision_layers": 27, "vision_heads": 16, "frames": 20, "side": 32, "prompt": 5120,
        "completion": 200, "group": 6, "device": "cuda", "dtype": "bfloat16"}  # fmt: skip

Row = dict[str, object]


def main() -> None:
    """Run the parts, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--only", choices=list(PARTS), help="one part")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved runs; medians count")
    parser.add_argument("--real", action="store_true", help="2B shapes and 5,120 visual tokens on a CUDA device")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--attention", default="eager", choices=["eager", "sdpa"], help="of both sides, part step")
    for name, default in (("hidden", 256), ("intermediate", 1024), ("layers", 4), ("heads", 4), ("kv-heads", 2),
                          ("vocab", 2048), ("prompt", 1024), ("completion", 64), ("group", 8), ("vision-hidden", 128),
                          ("vision-layers", 4), ("vision-heads", 4), ("frames", 16), ("side", 16)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.real:
        vars(options).update(REAL)
    quiet.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    if options.device == "cpu":
        torch.set_num_threads(1)
    rows: list[Row] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            print(f"== {name}")
            rows += [{"bench": "grpo", "case": f"{name}: {case}", "metric": metric, "value": value, "unit": unit}
                     for case, metric, value, unit in part(options)]  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def build(options: argparse.Namespace, *, vocab: int | None = None) -> Checkpoint:
    """A checkpoint of random weights that was never on disk, with the toy world's tokenizer; vision frozen."""
    _, processor = tiny(World.of("small"), seed=0, size=ModelSize(vocab_size=1024))
    words = cast(Any, processor).tokenizer
    text = Qwen2Config(
        vocab_size=vocab or options.vocab, hidden_size=options.hidden, intermediate_size=options.intermediate,
        num_hidden_layers=options.layers, num_attention_heads=options.heads, num_key_value_heads=options.kv_heads,
        max_position_embeddings=32_768, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    vision = VideoLlama3VisionConfig(
        hidden_size=options.vision_hidden, intermediate_size=4 * options.vision_hidden, patch_size=14,
        num_hidden_layers=options.vision_layers, num_attention_heads=options.vision_heads,
    )  # fmt: skip
    image, video = (words.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video"))
    config = VideoLlama3Config(text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
                               tie_word_embeddings=True)  # fmt: skip
    config._attn_implementation = options.attention
    torch.manual_seed(0)
    with torch.device(options.device):
        model = VideoLlama3ForConditionalGeneration(config).to(getattr(torch, options.dtype)).eval()
    FAMILY.prepare(model)
    freeze(model)
    return Checkpoint("random", FAMILY, model, processor, "", None)


def freeze(model: PreTrainedModel) -> None:
    """Vision has no gradient on either side."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FAMILY.vision))


def spent(options: argparse.Namespace, run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    if options.device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def told(name: str, value: float, target: float) -> None:
    """One line for a target."""
    print(f"target {name}: {value:.3f} (at least {target:.3f}): {'met' if value >= target else 'MISSED'}")


# ---- update


def analytic(options: argparse.Namespace, *, skipped: bool = False) -> float:
    """Full over shared, by the formula on top; ``skipped``: causal kernels compute half."""
    head_dim = options.hidden // options.heads
    weights = options.layers * (
        2 * options.hidden**2 + 2 * options.hidden * options.kv_heads * head_dim
        + 3 * options.hidden * options.intermediate
    )  # fmt: skip
    per_pair, length = 4 * options.layers * options.hidden, options.prompt + options.completion
    said = options.group * options.completion
    head = said * 2 * options.vocab * options.hidden
    part = 0.5 if skipped else 1.0
    full = options.group * length * 2 * weights + per_pair * options.group * length**2 * part + head
    shared = (options.prompt + said) * 2 * weights + per_pair * (options.prompt**2 * part + said * length) + head
    return full / shared


class Update:
    """One prompt of words, G completions, one loss: a weighted mean of their log-probs."""

    def __init__(self, options: argparse.Namespace, *, vocab: int | None = None, chunk: int = CHUNK) -> None:
        self.checkpoint, self.chunk = build(options, vocab=vocab), chunk
        self.model = self.checkpoint.model
        shape, top = (1, options.group, options.completion), vocab or options.vocab
        draw = torch.Generator().manual_seed(1)
        self.ids_BGC = torch.randint(500, top, shape, generator=draw).to(options.device)
        self.weight_BGC = torch.randn(shape, generator=draw).to(options.device) / self.ids_BGC.numel()
        words = torch.randint(500, top, (1, options.prompt), generator=draw).to(options.device)
        self.prefix = Prefix.of(self.model, {"input_ids": words, "attention_mask": torch.ones_like(words)})
        self.head = Head(AlarmModel(self.model, None), never=[], temperature=1.0)

    def backward(self, hidden_BGCH: Tensor, some: slice = slice(None)) -> Tensor:
        """Log-probs of some of the completions; gradients stay on the model."""
        ids = self.ids_BGC[:, some].flatten()
        logp_N, _ = token_logprobs(self.head, hidden_BGCH.flatten(0, 2), ids, chunk=self.chunk)
        (logp_N * self.weight_BGC[:, some].flatten()).sum().backward()
        return logp_N.detach()

    def shared(self) -> Tensor:
        """The prompt once."""
        with shared_prefix_attention(self.checkpoint.family.language_model(self.model)):
            return self.backward(shared_hidden(self.model, self.prefix, self.ids_BGC)[1])

    def batched(self) -> Tensor:
        """All full sequences in one batch; no mask, so that SDPA takes its causal kernel."""
        width = self.prefix.ids_BP.shape[1]
        ids = torch.cat([self.prefix.ids_BP.expand(self.ids_BGC.shape[1], -1), self.ids_BGC[0]], dim=1)
        hidden = cast(Any, self.model.base_model)(input_ids=ids, use_cache=False).last_hidden_state
        return self.backward(hidden[None, :, width - 1 : -1])

    def by_row(self) -> Tensor:
        """A forward and a backward pass for each full sequence."""
        width, found = self.prefix.ids_BP.shape[1], []
        for g in range(self.ids_BGC.shape[1]):
            ids = torch.cat([self.prefix.ids_BP, self.ids_BGC[:, g]], dim=1)
            hidden = cast(Any, self.model.base_model)(input_ids=ids, use_cache=False).last_hidden_state
            found.append(self.backward(hidden[None, :, width - 1 : -1], slice(g, g + 1)))
        return torch.cat(found)

    def run(self, name: str) -> Tensor:
        """By name, such as ``batched, sdpa``; gradients start from nothing."""
        way, attention = name.split(", ")
        self.model.set_attn_implementation(attention)
        self.model.zero_grad(set_to_none=True)
        return cast(Tensor, {"shared": self.shared, "batched": self.batched, "by row": self.by_row}[way]())

    def gradient(self) -> Tensor:
        """All of it, flat."""
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def update(options: argparse.Namespace) -> Iterator[tuple[str, str, float, str]]:
    """Shared prefix against full sequences."""
    bench = Update(options)
    ways = [f"{way}, {kind}" for way in ("batched", "by row", "shared") for kind in ("eager", "sdpa")]
    flops, logps, gradients = {}, {}, {}
    for name in ways:  # warms up as well
        with FlopCounterMode(display=False) as counter:
            logps[name] = bench.run(name)
        flops[name], gradients[name] = counter.get_total_flops(), bench.gradient()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name in ways:
            seconds[name].append(spent(options, lambda name=name: bench.run(name))[0])  # type: ignore[misc]
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    ours = min(("shared, eager", "shared, sdpa"), key=lambda name: middle[name])
    fastest = min((name for name in ways if "shared" not in name), key=lambda name: middle[name])
    reference = "batched, eager"
    print(f"prompt {options.prompt}, completion {options.completion}, G {options.group}, {options.dtype}")
    print(f"{'way':16} {'wall / ours':>11} {'GFLOP counted':>14} {'log-prob max diff':>18} {'gradient rel diff':>18}")
    for name in ways:
        logp_gap = float((logps[name] - logps[reference]).abs().max())
        gap = float((gradients[name] - gradients[reference]).norm() / gradients[reference].norm())
        print(f"{name:16} {middle[name] / middle[ours]:11.2f} {flops[name] / 1e9:14.2f} {logp_gap:18.1e} {gap:18.1e}")
        yield name, "wall_by_ours", middle[name] / middle[ours], "1"
        yield name, "counted", flops[name] / 1e9, "GFLOP"
        yield name, "logprob_max_difference", logp_gap, "nat"
        yield name, "gradient_relative_difference", gap, "1"
    counted, wall = flops["batched, eager"] / flops["shared, eager"], middle[fastest] / middle[ours]
    print(f"ours: {ours}; fastest full way: {fastest}; analytic ratio {analytic(options):.3f}, "
          f"{analytic(options, skipped=True):.3f} where causal kernels skip")  # fmt: skip
    told("counted / analytic", counted / analytic(options), 0.97)
    told("wall / (0.9 counted)", wall / (0.9 * counted), 1.0)
    if "sdpa" in fastest:
        told("wall / (0.9 of the work not skipped)", wall / (0.9 * analytic(options, skipped=True)), 1.0)
    told("wall, times faster than the fastest full way", wall, 4.0)
    yield "ratio", "analytic", analytic(options), "1"
    yield "ratio", "analytic_skipped", analytic(options, skipped=True), "1"
    yield "ratio", "counted", counted, "1"
    yield "ratio", f"wall, {fastest} by {ours}", wall, "1"


# ---- step


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
        self.start, _ = time.perf_counter(), spent(self.options, lambda: None)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """It has ended, the optimiser included."""
        spent(self.options, lambda: None)
        self.theirs_s.append(time.perf_counter() - self.start)
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
        model_init_kwargs=given,  # of the reference
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
        for model in (trainer.model, trainer.ref_model):
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
    print(f"log-probs differ by at most {gap:.1e} between TRL's model and the shared prefix, {side.gap:.1e} between our "
          "rollout and update")  # fmt: skip
    told("whole step, times faster than TRL", ratio, 4.0)
    yield "ratio", "wall, TRL by ours", ratio, "1"
    yield "ours", "logprob_max_difference", gap, "nat"
    yield "ours", "sampling_gap_max", side.gap, "nat"


# ---- logits


class LogitsBytes(TorchDispatchMode):
    """Bytes of tensors whose last axis is the vocabulary: the largest one, and all that are alive at once."""

    def __init__(self, vocab: int, hidden: int) -> None:
        super().__init__()
        self.vocab, self.hidden = vocab, hidden
        self.largest = self.alive = self.most = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it and look at what it made."""
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if (
                isinstance(one, Tensor)
                and one.ndim > 1
                and one.shape[-1] == self.vocab
                and self.hidden not in one.shape
            ):
                self._add(one)
        return found

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen[key] = size
        self.alive += size
        self.largest, self.most = max(self.largest, size), max(self.most, self.alive)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.alive -= self._seen.pop(key)


def logits(options: argparse.Namespace) -> Iterator[tuple[str, str, float, str]]:
    """Forward and backward of the update, in chunks."""
    chunk = max(1, options.group * options.completion // 4)
    print(
        f"{'vocabulary':>10} {'chunk':>6} {'largest / (chunk·V·4)':>22} {'alive / (chunk·V·4)':>20} {'all positions':>14}"
    )
    for vocab in (options.vocab, 4 * options.vocab):
        bench = Update(options, vocab=vocab, chunk=chunk)
        with LogitsBytes(vocab, options.hidden) as counter:
            bench.run("shared, eager")
        unit, positions = chunk * vocab * 4, options.group * (options.prompt + options.completion)
        print(
            f"{vocab:10} {chunk:6} {counter.largest / unit:22.2f} {counter.most / unit:20.2f} {positions / chunk:14.1f}"
        )
        yield f"vocabulary {vocab}", "largest_by_bound", counter.largest / unit, "1"
        yield f"vocabulary {vocab}", "alive_by_bound", counter.most / unit, "1"
    told("bound / largest tensor of logits", unit / counter.largest, 1.0)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[tuple[str, str, float, str]]]] = {
    "update": update, "step": step, "logits": logits,
}  # fmt: skip

if __name__ == "__main__":
    main()
