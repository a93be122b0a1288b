"""The clipped policy loss with its KL term, as sums over parts of a global batch: any split gives the same number.

Paper section 4.3; per token ``−min(ρ·A, clip(ρ, 1−ε_low, 1+ε_high)·A) + β·KL``, with ``ρ = exp(logp − old)`` and the
k3 estimate ``KL = exp(ref − logp) − (ref − logp) − 1`` (Schulman, 2020). How tokens become one number:

    grpo      mean over sequences of the mean over a sequence's tokens         (Shao et al., 2024; the paper)
    bnpo      mean over all tokens of the batch
    dr_grpo   sum over tokens / (sequences · longest allowed completion)       (Liu et al., 2025)
    dapo      mean over all tokens of the global batch                         (Yu et al., 2025)

Each is TRL 1.16's, by test. ``kl: unbiased`` multiplies the KL term by ρ, so that its gradient is that of the reverse
KL (DeepSeek-V3.2, 2025): TRL's default, not the paper's. How we differ: every count is the *global* batch's, so that
parts add up to the whole; TRL takes bnpo's tokens from the micro-batch, so its bnpo depends on how a batch is split.
With global counts bnpo is dapo.

Axes: S sequences, C completion tokens.

Example:
    >>> terms = policy_loss(logp_SC, old_SC, advantage_S, mask_SC, counts=counts)           # doctest: +SKIP
    >>> terms.loss.backward()                                                               # doctest: +SKIP
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from videosafety.core.errors import InputError, VideoSafetyError

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
KlTerm = Literal["k3", "unbiased"]


class BatchCounts(NamedTuple):
    """Of the global batch: sequences (empty ones included), completion tokens, and tokens a completion may have."""

    sequences: Tensor | float
    tokens: Tensor | float
    max_new_tokens: Tensor | float


class PolicyTerms(NamedTuple):
    """Scalars. ``loss`` adds up over the parts of a batch; the others are sums over tokens, without gradient."""

    loss: Tensor
    kl_sum: Tensor  # 0 without a reference
    clipped_sum: Tensor  # tokens whose ratio is clipped and would have gone on
    tokens: Tensor


def policy_loss(
    logp_SC: Tensor,
    old_SC: Tensor,
    advantage_S: Tensor,
    mask_SC: Tensor,
    *,
    counts: BatchCounts,
    ref_SC: Tensor | None = None,
    beta: float = 0.04,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    loss_type: LossType = "grpo",
    kl: KlTerm = "k3",
) -> PolicyTerms:
    """The loss of a part of the global batch.

    Args:
        logp_SC: log-probs of the chosen tokens under the policy that is trained.
        old_SC: the same under the policy that sampled, without gradient.
        advantage_S: of each sequence.
        mask_SC: which tokens count; what stands elsewhere is never looked at.
        counts: of the global batch.
        ref_SC: log-probs under the reference; may be None where ``beta`` is 0.
        beta: weight of the KL term.
        epsilon_low, epsilon_high: the ratio is clipped to [1 - epsilon_low, 1 + epsilon_high].
        loss_type: how tokens become one number.
        kl: the estimate as it is, or multiplied by the ratio.

    Raises:
        InputError: ``beta`` without a reference.
        VideoSafetyError: a log-prob, a ratio or an advantage that counts is not finite.
    """
    if beta and ref_SC is None:
        raise InputError("the KL term needs a reference", where="beta", fix="give its log-probs, or set beta to 0")
    mask_SC = mask_SC.bool()
    logp_SC, old_SC = _counted(logp_SC, mask_SC, "log-prob"), _counted(old_SC, mask_SC, "log-prob at rollout").detach()
    advantage_S1 = _finite(advantage_S, "advantage").detach()[:, None]
    ratio_SC = _finite((logp_SC - old_SC).exp(), "ratio of probabilities")
    clipped_SC = ratio_SC.clamp(1 - epsilon_low, 1 + epsilon_high)
    loss_SC = -torch.minimum(ratio_SC * advantage_S1, clipped_SC * advantage_S1)
    kl_SC = torch.zeros_like(loss_SC)
    if ref_SC is not None:
        gap_SC = _counted(ref_SC, mask_SC, "log-prob of the reference").detach() - logp_SC
        kl_SC = _finite(gap_SC.exp() - gap_SC - 1, "KL term")
        kl_SC = kl_SC * ratio_SC if kl == "unbiased" else kl_SC
        loss_SC = loss_SC + beta * kl_SC
    too_low_SC = (ratio_SC < 1 - epsilon_low) & (advantage_S1 < 0)
    too_high_SC = (ratio_SC > 1 + epsilon_high) & (advantage_S1 > 0)
    return PolicyTerms(
        loss=_aggregate(torch.where(mask_SC, loss_SC, 0.0), mask_SC, counts, loss_type),
        kl_sum=torch.where(mask_SC, kl_SC, 0.0).sum().detach(),
        clipped_sum=((too_low_SC | too_high_SC) & mask_SC).sum(),
        tokens=mask_SC.sum(),
    )


def _aggregate(loss_SC: Tensor, mask_SC: Tensor, counts: BatchCounts, loss_type: LossType) -> Tensor:
    """Tokens as one number, by counts of the global batch; a count of 0 gives 0."""
    sequences, tokens, longest = (torch.as_tensor(count, device=loss_SC.device).clamp(min=1) for count in counts)
    if loss_type == "grpo":
        return (loss_SC.sum(dim=1) / mask_SC.sum(dim=1).clamp(min=1)).sum() / sequences
    return loss_SC.sum() / (sequences * longest if loss_type == "dr_grpo" else tokens)


def _counted(values_SC: Tensor, mask_SC: Tensor, what: str) -> Tensor:
    """In fp32, 0 where it does not count, so that padding reaches neither the loss nor the gradient."""
    return _finite(torch.where(mask_SC, values_SC.float(), 0.0), what)


def _finite(values: Tensor, what: str) -> Tensor:
    bad = ~values.isfinite()
    if bad.any():
        sequence = int(bad.nonzero()[0, 0])
        raise VideoSafetyError(f"{int(bad.sum())} of {values.numel()} {what}s are not finite",
                               where=f"policy loss, sequence {sequence}",
                               fix="lower learning_rate, or compute in precision: fp32")  # fmt: skip
    return values
