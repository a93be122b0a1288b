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

from videosafety.defend.losses import Counts, Sums, alarm_loss, answer_loss
from videosafety.defend.rows import ALARM_TARGETS, FAULTS
from videosafety.models.family import IGNORE
from videosafety.models.wrapped import AlarmModel

NOT_INPUTS = ("labels", ALARM_TARGETS, FAULTS)


class Objective(nn.Module):
    """``forward(batch)`` gives the sums of the three losses over the batch."""

    accepts_loss_kwargs = True  # tells the Trainer that the loss is scaled by counts of the global batch already

    def __init__(self, wrapped: AlarmModel) -> None:
        super().__init__()
        self.wrapped = wrapped

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


def count(batch: Mapping[str, Any]) -> Counts:
    """Answer tokens and labelled samples of a batch, on the CPU."""
    labelled_A = (~batch[ALARM_TARGETS].isnan()).sum(dim=0)
    return Counts(float((batch["labels"][:, 1:] != IGNORE).sum()), float(labelled_A[0]), float(labelled_A[1]))


def trainable(
    objective: Objective, vision: Sequence[nn.Module], *, parts: Sequence[str]
) -> dict[str, list[nn.Parameter]]:
    """Freeze all but ``parts`` of (llm, alarms, heads); returns the parameters of each part that is trained.

    The vision tower and all that projects its output are always frozen.
    """
    wrapped = objective.wrapped
    frozen = {id(p) for module in vision for p in module.parameters()}
    found: dict[str, list[nn.Parameter]] = {"llm": [p for p in wrapped.model.parameters() if id(p) not in frozen]}
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
