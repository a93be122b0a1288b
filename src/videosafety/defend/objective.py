"""The model and its loss in one forward pass: what a Trainer, DDP, FSDP2 or DeepSpeed wraps.

Everything with parameters runs inside ``forward``, so any wrapper sees it; only answer positions reach the LM head.

Axes: B rows, T tokens, N answer positions, H hidden channels, A alarms.

Example:
    >>> sums = Objective(AlarmModel(checkpoint.model, alarm))(batch)            # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videosafety.defend.lora import ADAPTER
from videosafety.defend.losses import Sums, alarm_loss, answer_loss
from videosafety.defend.rows import ALARM_TARGETS, FAULTS
from videosafety.models.family import IGNORE
from videosafety.models.features import MEDIA_KEYS
from videosafety.models.wrapped import AlarmModel

NOT_INPUTS = ("labels", ALARM_TARGETS, FAULTS, MEDIA_KEYS)


class Objective(nn.Module):
    """``forward(batch)`` gives the sums of the three losses over the batch."""

    accepts_loss_kwargs = True  # tells the Trainer that the loss is scaled by counts of the global batch already

    def __init__(self, wrapped: AlarmModel) -> None:
        super().__init__()
        self.wrapped = wrapped

    def shard_by(self, decoder: nn.Module) -> None:
        """Let FSDP gather the decoder layer by layer and all else at once.

        A batch without pictures never enters the vision tower: units of its own there would wait for ever for the
        processes that do.
        """
        stacks = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
        self._no_split_modules = sorted({type(layer).__name__ for layer in max(stacks, key=len)}) if stacks else []

    def forward(self, batch: Mapping[str, Any]) -> Sums:
        """Sums over the answer tokens and over the labelled samples of this batch."""
        inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
        hidden_BTH = self.wrapped(inputs)
        targets_BT = batch["labels"][:, 1:]
        wanted_BT = targets_BT != IGNORE
        hidden_NH = hidden_BTH[:, :-1][wanted_BT]
        answer = answer_loss(self.wrapped.answer_logits, hidden_NH, targets_BT[wanted_BT])
        visual, textual = alarm_loss(self.wrapped.alarm_logits(hidden_BTH, inputs["input_ids"]), batch[ALARM_TARGETS])
        return Sums(answer, visual, textual)


def count(batch: Mapping[str, Any]) -> Tensor:
    """(3,) the ``Counts`` of a batch on its device: answer tokens, samples with a visual and with a textual label."""
    visual, textual = (~batch[ALARM_TARGETS].isnan()).sum(dim=0).float()
    return torch.stack([(batch["labels"][:, 1:] != IGNORE).sum().float(), visual, textual])


def trainable(
    objective: Objective, language: Sequence[nn.Module], *, parts: Sequence[str]
) -> dict[str, list[nn.Parameter]]:
    """Freeze all but ``parts`` of (llm, alarms, heads); returns the parameters of each part that is trained.

    ``language`` are the decoder and the LM head; where they hold adapters, those alone are trained. All else (the
    vision tower, what projects its output, learnt separators of pictures) is always frozen.
    """
    wrapped = objective.wrapped
    named = [pair for module in language for pair in module.named_parameters()]
    adapters = [p for name, p in named if ADAPTER in name]
    found: dict[str, list[nn.Parameter]] = {"llm": adapters or list({id(p): p for _, p in named}.values())}
    if wrapped.alarm is not None:
        found |= {"alarms": [wrapped.rows_AH], "heads": [wrapped.head_weight_AH, wrapped.head_bias_A]}
    for parameter in objective.parameters():
        parameter.requires_grad_(False)
    kept = {part: parameters for part, parameters in found.items() if part in parts}
    for parameters in kept.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    return kept


def movement(before: Tensor, after: Tensor) -> dict[str, float]:
    """How far a parameter moved: norms before and after, and of the difference."""
    norms = {"before": before, "after": after, "moved": after - before}
    return {name: round(float(torch.linalg.vector_norm(value.detach().float())), 8) for name, value in norms.items()}
