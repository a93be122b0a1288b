"""The update of benchmarks/grpo.py, shared prefix against full sequences, and the logits that it holds."""

import argparse
import statistics
import weakref
from collections.abc import Iterator
from typing import Any, cast

import torch
from parts.grpo_setup import build, spent, told
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from videosafety.models.logprobs import CHUNK, Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.shared_prefix import shared_hidden, shared_prefix_attention
from videosafety.models.wrapped import AlarmModel


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

    def _is_logits(self, tensor: Tensor) -> bool:
        shape = tensor.shape
        return len(shape) > 1 and shape[-1] == self.vocab and self.hidden not in shape

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
    print(f"bytes of logits by chunk · vocabulary · 4, chunk {chunk}; all positions would be "
          f"{options.group * (options.prompt + options.completion) / chunk:.1f}")  # fmt: skip
    print(f"{'vocabulary':>10} {'largest tensor':>15} {'all alive':>10}")
    for vocab in (options.vocab, 4 * options.vocab):
        bench = Update(options, vocab=vocab, chunk=chunk)
        with LogitsBytes(vocab, options.hidden) as counter:
            bench.run("shared, eager")
        largest, most = (size / (chunk * vocab * 4) for size in (counter.largest, counter.most))
        print(f"{vocab:10} {largest:15.2f} {most:10.2f}")
        yield f"vocabulary {vocab}", "largest_by_bound", largest, "1"
        yield f"vocabulary {vocab}", "alive_by_bound", most, "1"
    told("bound / largest tensor of logits", 1 / largest, 1.0)
    told("bound / all logits alive", 1 / most, 1.0)
