"""Prompts of stage 4 as rows, and the policy's log-probs of their completions in one forward pass.

The objective is what a Trainer or DDP wraps: it computes log-probs under the policy and under the reference for
prompts that are encoded once (``models/prefix.py``), by the shared prefix or by one pass for each completion.

Axes: B prompts, G completions of a prompt, S = B·G sequences, C completion tokens, N tokens that count, A alarms.

Example:
    >>> out = PolicyObjective(wrapped, config, never=never, language=decoder)(batch)        # doctest: +SKIP
    >>> out.logp_SC.shape                                                       # doctest: +SKIP
    torch.Size([12, 97])
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from videosafety.core.errors import MediaError, VideoSafetyError
from videosafety.core.example import Example
from videosafety.core.records import Sample
from videosafety.defend.losses import alarm_loss
from videosafety.defend.objective import Objective
from videosafety.defend.rows import Row, Rows, targets_of
from videosafety.defend.stage import GrpoConfig
from videosafety.models.family import Conversation
from videosafety.models.logprobs import Head, token_logprobs
from videosafety.models.prefix import Prefix, take_in
from videosafety.models.rollout import Completion
from videosafety.models.shared_prefix import naive_hidden, shared_hidden, shared_prefix_attention, why_not
from videosafety.models.wrapped import AlarmModel

POLICY = "policy"  # the key of a batch that holds its rows, and later what was sampled for them


@dataclass(frozen=True)
class PolicyRow(Row):
    """A prompt: a row without an answer. ``sample`` is what graders see; None where the row adds nothing.

    ``conversation`` is what a server is told, where one samples.
    """

    sample: Sample | None = None
    conversation: Conversation = ()


class PolicyRows(Rows):
    """The prompts of stage 4, in their order; with ``tells`` they keep what a server is told."""

    def __init__(self, examples: Sequence[Example], *, tells: bool = False, **given: Any) -> None:
        super().__init__(examples, structured=False, **given)
        self.tells = tells

    def __getitem__(self, index: int) -> PolicyRow:
        example = self.examples[index]
        family, processor = self.checkpoint.family, self.checkpoint.processor
        try:
            conversation = self.conversation(example)
            encoded = family.encode(processor, conversation)
        except MediaError as error:
            return self.blank(example.id, f"{error.fault}: {error.what}")
        told = conversation if self.tells else ()
        return PolicyRow(encoded, targets_of(example), example.id, sample=example.sample(), conversation=told)

    def blank(self, id_: str = "", fault: str | None = None) -> PolicyRow:
        """A prompt that adds nothing to the loss."""
        row = super().blank(id_, fault)
        return PolicyRow(row.encoded, row.targets, row.id, row.fault)

    def collate(self, rows: Sequence[Row]) -> dict[str, Any]:
        """A right-padded batch of prompts, with the rows themselves."""
        return {**super().collate(rows), POLICY: list(rows)}


@dataclass(frozen=True)
class PolicyBatch:
    """Prompts with their completions and what is to be learnt from them.

    ``mask_SC`` is false for padding and for rows that add nothing; ``old_SC`` log-probs when sampled; ``digest`` is a
    hash over what was shown and said when it was sampled.
    """

    prefix: Prefix
    ids_BGC: Tensor
    mask_SC: Tensor
    old_SC: Tensor
    advantage_S: Tensor
    targets_BA: Tensor
    num_counted: int  # sequences of prompts that add something, empty ones included
    digest: str

    @staticmethod
    def of(
        prefix: Prefix, groups: Sequence[Sequence[Completion]], advantages_BG: Tensor, *, targets_BA: Tensor,
        counts: Sequence[bool],
    ) -> "PolicyBatch":  # fmt: skip
        """Completions as tensors; ``counts`` says which prompts add something."""
        device = prefix.ids_BP.device
        length = max(1, max(len(one.ids) for group in groups for one in group))
        shape = (len(groups), len(groups[0]), length)
        ids_BGC, mask_BGC = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
        old_BGC = torch.zeros(shape)
        for b, group in enumerate(groups):
            for g, one in enumerate(group):
                ids_BGC[b, g, : len(one.ids)] = torch.tensor(one.ids, dtype=torch.long)
                old_BGC[b, g, : len(one.ids)] = torch.tensor(one.logprobs)
                mask_BGC[b, g, : len(one.ids)] = counts[b]
        ids_BGC = ids_BGC.to(device)
        return PolicyBatch(
            prefix, ids_BGC, mask_BGC.flatten(0, 1).to(device), old_BGC.flatten(0, 1).to(device),
            advantages_BG.float().flatten().to(device), targets_BA.to(device), sum(counts) * shape[1],
            seen(prefix, ids_BGC),
        )  # fmt: skip

    def require_same(self) -> None:
        """Raises VideoSafetyError: what is to be learnt from is not what was sampled."""
        if seen(self.prefix, self.ids_BGC) != self.digest:
            raise VideoSafetyError("prompts or completions differ between sampling and update", where="stage 4",
                                   fix="report this: training on them would be wrong")  # fmt: skip


def seen(prefix: Prefix, ids_BGC: Tensor) -> str:
    """16 hex digits over a prompt's ids and pixels, its vision features and the completions' ids."""
    total = hashlib.sha256(prefix.digest.encode())
    parts = {"ids": prefix.ids_BP, "mask": prefix.mask_BP, "positions": prefix.positions_XBP, "said": ids_BGC}
    for name, part in parts.items():
        take_in(total, part, name=name)
    for kind in sorted(prefix.vision):
        features = prefix.vision[kind].pooler_output
        for one in features if isinstance(features, list | tuple) else [features]:
            take_in(total, one, name=kind)
    return total.hexdigest()[:16]


class PolicyOutput(NamedTuple):
    """Log-probs and entropies, 0 where nothing counts; the reference's, None without one; sums of the alarm losses."""

    logp_SC: Tensor
    ref_SC: Tensor | None
    entropy_SC: Tensor
    visual: Tensor
    textual: Tensor


class PolicyObjective(Objective):
    """``forward({"policy": PolicyBatch})`` gives the log-probs that the policy loss needs.

    The reference is another model, the policy with its adapters off, or None.
    """

    def __init__(
        self, wrapped: AlarmModel, config: GrpoConfig, *, never: Sequence[int], language: nn.Module,
        reference: tuple[AlarmModel, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(wrapped)
        self.knobs, self.never = config, list(never)
        self._language, self._reference = [language], [reference]  # in lists: no parameters of this module
        adapters = [m for m in language.modules() if isinstance(m, BaseTunerLayer)]
        self._adapters = [adapters]
        self.shares = config.path == "shared" and why_not(language) is None
        self._first = [(n, p.detach().clone()) for n, p in wrapped.named_parameters(recurse=False)]

    def forward(self, batch: Mapping[str, Any]) -> PolicyOutput:  # type: ignore[override]
        """Log-probs of the completions of a batch."""
        one = cast(PolicyBatch, batch[POLICY])
        ref_SC = self._referred(one) if self.knobs.beta else None
        logp_SC, entropy_SC, prompt_BPH = self._logprobs(self.wrapped, self._language[0], one)
        heads_BA = self.wrapped.alarm_logits(prompt_BPH, one.prefix.ids_BP)
        visual, textual = alarm_loss(heads_BA, one.targets_BA)
        attached_SC = logp_SC + 0.0 * prompt_BPH.sum()  # a batch in which nothing counts has a gradient, of zeros
        return PolicyOutput(attached_SC, ref_SC, entropy_SC, visual, textual)

    def _logprobs(self, wrapped: AlarmModel, language: nn.Module, one: PolicyBatch) -> tuple[Tensor, Tensor, Tensor]:
        with shared_prefix_attention(language) if self.shares else nullcontext():
            hidden = shared_hidden if self.shares else naive_hidden
            prompt_BPH, hidden_BGCH = hidden(wrapped.model, one.prefix, one.ids_BGC)
        head = Head(wrapped, never=self.never, temperature=self.knobs.temperature)
        chosen_NH = hidden_BGCH.flatten(0, 1)[one.mask_SC]
        logp_N, entropy_N = token_logprobs(head, chosen_NH, one.ids_BGC.flatten(0, 1)[one.mask_SC])
        zeros = torch.zeros(one.mask_SC.shape, device=logp_N.device)
        return zeros.masked_scatter(one.mask_SC, logp_N), zeros.masked_scatter(one.mask_SC, entropy_N), prompt_BPH

    @torch.no_grad()
    def _referred(self, one: PolicyBatch) -> Tensor:
        reference = self._reference[0]
        if reference is not None:
            return self._logprobs(*reference, one)[0]
        with self._adapters_off():
            return self._logprobs(self.wrapped, self._language[0], one)[0]

    @contextmanager
    def _adapters_off(self) -> Iterator[None]:
        """The policy as it was before training: without its adapters, with the alarm rows that it began with."""
        now = [(getattr(self.wrapped, name), value) for name, value in self._first]
        kept = [parameter.data for parameter, _ in now]
        for layer in self._adapters[0]:
            layer.enable_adapters(False)
        for parameter, value in now:
            parameter.data = value.to(parameter.device)
        try:
            yield
        finally:
            for layer in self._adapters[0]:
                layer.enable_adapters(True)
            for (parameter, _), data in zip(now, kept, strict=True):
                parameter.data = data
