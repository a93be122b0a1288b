"""The losses of stages 1 to 3, as sums with their counts, so that any batch split gives the same number.

Paper section 4.2: ``L = L_AR + λ_v·L_ATC^v + λ_t·L_ATC^t``. ``L_AR`` is the mean over the answer tokens of the *global*
batch; ``L_ATC`` is the mean binary cross-entropy over the labelled samples of the global batch. How we differ from the
released code, which divides each sample's cross-entropy by the number of answer tokens, so that λ is some hundred times
weaker: ``atc_scaling: released`` brings that back, for reproduction only.

Axes: B rows, T tokens, N answer positions, H hidden channels, A alarms (visual, textual).

Example:
    >>> sums = Sums(answer=torch.tensor(6.0), visual=torch.tensor(1.0), textual=torch.tensor(1.0))
    >>> float(total(sums, Counts(3.0, 2.0, 2.0), lambda_visual=0.1, lambda_textual=0.1, scaling="paper"))
    2.1
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 2048  # answer positions whose logits are held at once

Scaling = Literal["paper", "released"]


class Sums(NamedTuple):
    """Scalars: cross-entropy summed over answer tokens, and alarm loss summed over labelled samples."""

    answer: Tensor
    visual: Tensor
    textual: Tensor


class Counts(NamedTuple):
    """Of the global batch: answer tokens, samples with a visual label, samples with a textual label."""

    answer: Tensor | float
    visual: Tensor | float
    textual: Tensor | float


def answer_loss(
    logits_of: Callable[[Tensor], Tensor], hidden_NH: Tensor, targets_N: Tensor, *, chunk: int = CHUNK
) -> Tensor:
    """Summed cross-entropy; no more than ``chunk`` rows of logits exist at once, in the backward pass neither."""

    def one(rows_CH: Tensor, targets_C: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits_of(rows_CH).float(), targets_C, reduction="sum")

    if len(hidden_NH) <= chunk:
        return one(hidden_NH, targets_N)
    total = hidden_NH.new_zeros((), dtype=torch.float32)
    for rows_CH, targets_C in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True):
        total = total + checkpoint(one, rows_CH, targets_C, use_reentrant=False)
    return total


def alarm_loss(logits_BA: Tensor, targets_BA: Tensor) -> tuple[Tensor, Tensor]:
    """Summed binary cross-entropy of the visual and of the textual alarm; nan targets and nan logits are masked."""
    logits_BA, targets_BA = logits_BA.float(), targets_BA.float()  # FSDP2 hands bf16 inputs to what computes in bf16
    known_BA = ~(targets_BA.isnan() | logits_BA.isnan())
    each_BA = nn.functional.binary_cross_entropy_with_logits(
        torch.where(known_BA, logits_BA, 0.0), torch.where(known_BA, targets_BA, 0.0), reduction="none"
    )
    masked_BA = torch.where(known_BA, each_BA, 0.0)
    return masked_BA[:, 0].sum(), masked_BA[:, 1].sum()  # no views: FSDP hangs its hooks on what forward returns


def total(sums: Sums, counts: Counts, *, lambda_visual: float, lambda_textual: float, scaling: Scaling) -> Tensor:
    """The loss of (a part of) the global batch; parts add up to the whole. A count of 0 contributes 0."""

    def mean(value: Tensor, count: Tensor | float) -> Tensor:
        return value / torch.as_tensor(count, device=value.device).clamp(min=1)

    per = (counts.visual, counts.textual) if scaling == "paper" else (counts.answer, counts.answer)
    alarms = lambda_visual * mean(sums.visual, per[0]) + lambda_textual * mean(sums.textual, per[1])
    return mean(sums.answer, counts.answer) + alarms
