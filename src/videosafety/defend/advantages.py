"""From rewards to advantages: within groups, scaled or not, all rewards at once or each by itself (GDPO).

Paper section 4.3 (Shao et al., 2024): ``A = (r − mean_g)/(std_g + ε)``. Standard deviations are unbiased and ε is 1e-4,
as in TRL 1.16, whose advantages these are where every reward has a constant weight and none is missing.

``gdpo`` (TRL's ``normalize_then_sum``): each component is normalised within its group, multiplied by
its weight, summed, centred within the group again and divided by the standard deviation over the batch; ``scale`` plays
no part. How we differ from TRL: ROUGE's weight alpha depends on the response (DRA) and is applied after normalising, so
the centre of a group moves, and it is centred on the group where TRL centres on the batch; with constant weights the
two are the same.

Missing rewards: a component that no response of a group has does not apply to it. A response without a component that
others of its group have is unscored: it is left out of means and deviations and has advantage 0 (TRL adds what it has).
Components of weight 0 never count.

Signal: with ``verified`` a group teaches only if something other than ROUGE differs in it. Once labels and format are
right for all, alpha cancels in the group's deviation, and the noise of ROUGE would drive a full-sized update.

Axes: P prompts (groups), G rollouts of a prompt, K components.

Example:
    >>> right, wrong = {"format": 1.0, "visual": 1.0}, {"format": 1.0, "visual": 0.0}
    >>> advantages([[right, wrong]]).values_PG
    tensor([[ 0.7070, -0.7070]])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from videosafety.core.errors import InputError
from videosafety.defend.rewards import AdvantageConfig, RewardConfig, Scores, weights

EPSILON = 1e-4  # added to a standard deviation
EQUAL = 1e-8  # rewards that differ by no more than this do not differ


@dataclass(frozen=True, slots=True)
class Advantages:
    """Advantages of a global batch, and what they come from."""

    values_PG: Tensor  # 0 where unscored or without signal
    rewards_PG: Tensor  # the weighted sums, in fp64; nan where unscored
    signal_P: Tensor  # whether the group teaches anything
    unscored_PG: Tensor  # whether the response is left out


def advantages(
    scores_PG: Sequence[Sequence[Scores]], config: AdvantageConfig | None = None, *, rewards: RewardConfig | None = None
) -> Advantages:
    """Advantages of the whole global batch at once: what is scaled over the batch needs all of it.

    Without configs: the paper's.

    Raises:
        InputError: groups of different sizes, or none.
    """
    config, rewards = config or AdvantageConfig(), rewards or RewardConfig()
    if not scores_PG or len({len(group) for group in scores_PG}) != 1 or not scores_PG[0]:
        sizes = sorted({len(group) for group in scores_PG})
        raise InputError(f"groups of the sizes {sizes}", where="advantages", fix="give groups of one size")
    names = list(dict.fromkeys(name for group in scores_PG for scores in group for name in scores))
    scores_PGK, weights_PGK = _tensors(scores_PG, names, rewards)
    counted_K = (weights_PGK != 0).any(dim=1).any(dim=0)
    missing_PGK = scores_PGK.isnan() & counted_K
    applies_P1K = (~scores_PGK.isnan() & counted_K).any(dim=1, keepdim=True)
    unscored_PG = (missing_PGK & applies_P1K).any(dim=2) | ~applies_P1K.any(dim=2)
    scores_PGK = torch.where(unscored_PG[..., None] | ~counted_K, torch.nan, scores_PGK)
    rewards_PG = torch.where(unscored_PG, torch.nan, (weights_PGK * scores_PGK).nansum(dim=2))
    differs_PK = _spread(scores_PGK) > EQUAL
    verified_K = torch.tensor([name != "rouge" for name in names], dtype=torch.bool)
    gdpo = config.aggregation == "gdpo"
    signal_P = differs_PK.any(dim=1) if gdpo else _spread(rewards_PG) > EQUAL
    if config.signal == "verified":
        signal_P = signal_P & (differs_PK & verified_K).any(dim=1)
    if gdpo:
        values_PG = _each_by_itself(scores_PGK, weights_PGK, signal_P)
    else:
        values_PG = _of_sums(rewards_PG, config.scale_rewards)
    values_PG = torch.where(signal_P[:, None], values_PG.nan_to_num(0.0), 0.0)
    return Advantages(values_PG.float(), rewards_PG, signal_P, unscored_PG)


def _tensors(
    scores_PG: Sequence[Sequence[Scores]], names: Sequence[str], rewards: RewardConfig
) -> tuple[Tensor, Tensor]:
    """(P, G, K) scores with nan for None, and their weights."""
    rows: list[list[list[float | None]]] = [[[one.get(name) for name in names] for one in group] for group in scores_PG]
    filled = [[[torch.nan if value is None else value for value in one] for one in group] for group in rows]
    weighed = [[weights(dict.fromkeys(names) | dict(one), rewards) for one in group] for group in scores_PG]
    weights_PGK = [[[one[name] for name in names] for one in group] for group in weighed]
    return torch.tensor(filled, dtype=torch.float64), torch.tensor(weights_PGK, dtype=torch.float64)


def _of_sums(rewards_PG: Tensor, scale: Literal["group", "batch", "none"]) -> Tensor:
    centred_PG = rewards_PG - rewards_PG.nanmean(dim=1, keepdim=True)
    if scale == "none":
        return centred_PG
    deviation = _std(rewards_PG, dim=1) if scale == "group" else _std(rewards_PG.flatten(), dim=0)
    return centred_PG / (deviation + EPSILON)


def _each_by_itself(scores_PGK: Tensor, weights_PGK: Tensor, signal_P: Tensor) -> Tensor:
    """GDPO. Groups without signal take part in the batch's deviation with zeros, as in TRL."""
    normal_PGK = (scores_PGK - scores_PGK.nanmean(dim=1, keepdim=True)) / (_std(scores_PGK, dim=1) + EPSILON)
    sums_PG = (normal_PGK * weights_PGK).nansum(dim=2)
    sums_PG = torch.where(scores_PGK.isnan().all(dim=2), torch.nan, sums_PG)
    centred_PG = sums_PG - sums_PG.nanmean(dim=1, keepdim=True)
    centred_PG = torch.where(signal_P[:, None] | centred_PG.isnan(), centred_PG, 0.0)
    return centred_PG / (_std(centred_PG.flatten(), dim=0) + EPSILON)


def _std(values: Tensor, *, dim: int) -> Tensor:
    """Unbiased, over what is not nan, with the dimension kept; 0 for fewer than two values."""
    count = (~values.isnan()).sum(dim=dim, keepdim=True)
    squares = (values - values.nanmean(dim=dim, keepdim=True)).square().nansum(dim=dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _spread(values: Tensor) -> Tensor:
    """Largest minus smallest of what is not nan along the rollouts; 0 where there is nothing."""
    known = ~values.isnan()
    highest = torch.where(known, values, -torch.inf).amax(dim=1)
    lowest = torch.where(known, values, torch.inf).amin(dim=1)
    return (highest - lowest).clamp(min=0.0)
