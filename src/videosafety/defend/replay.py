"""Replay: what other rewards would have said to the rollouts of a run, without its model.

Ours, not the paper's: every group of ``rollouts.jsonl`` is scored again, its components, totals and signal, and the new
ranking within each group is compared with the stored one (Spearman's rho and Kendall's tau-b, averaged over groups in
which both rank anything). The file is read line by line, so its length does not matter. The rollouts are those of the
old rewards' policy: replay tells how rewards rank the same answers, not what training with them would have given.

Example:
    >>> rows = replay(Path("runs/toy/grpo/rollouts.jsonl"), RewardConfig(dra=False))        # doctest: +SKIP
    >>> rows[-1]["kendall"]                                                                 # doctest: +SKIP
    0.93
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import rankdata

from videosafety.core.errors import RecordError
from videosafety.core.explain import explain
from videosafety.core.group import Group
from videosafety.core.jsonl import opened
from videosafety.defend.advantages import advantages
from videosafety.defend.rewards import AdvantageConfig, RewardConfig, components, rewards

Row = dict[str, float | int | None]
Floats = NDArray[np.float64]


def replay(rollouts: Path, config: RewardConfig, *, advantage: AdvantageConfig | None = None,
           faults: Counter[str] | None = None) -> list[Row]:  # fmt: skip
    """Stored rollouts under other rewards: one row for each step, in order, and a last one (step None) over all.

    Each row has ``step, groups, responses``; ``{component}_mean`` of every component, ``reward_mean`` and
    ``stored_reward_mean``; ``signal_share`` and ``stored_signal_share`` of groups (a stored group had signal if one of
    its advantages is not 0); ``unscored_share`` of responses; ``spearman`` and ``kendall`` in [-1, 1]. What is unknown
    is None.

    Args:
        rollouts: a ``rollouts.jsonl``.
        config: the other rewards.
        advantage: decides which groups have signal.
        faults: counts why rewards could not be scored.

    Raises:
        RecordError: the file is missing, empty, or holds a line that is no group; the message names it.
        InputError, RecipeError: a judge or a reward of ``config`` does not exist.
    """
    names = tuple(rewards(config))
    steps: dict[int, _Sums] = {}
    whole = _Sums()
    for group in read_groups(rollouts, faults=faults):
        one = _measure(group, config, advantage or AdvantageConfig(), faults)
        for sums in (steps.setdefault(group.step, _Sums()), whole):
            sums.add(one)
    if not steps:
        raise RecordError("holds no rollouts", where=str(rollouts), fix="give the rollouts.jsonl of a stage 4")
    return [*(sums.row(step, names) for step, sums in sorted(steps.items())), whole.row(None, names)]


def read_groups(rollouts: Path, *, faults: Counter[str] | None = None) -> Iterator[Group]:
    """The groups of a file, one at a time; a last line that a kill cut off is passed over, and counted in ``faults``.

    Raises:
        RecordError: as ``replay``.
    """
    with opened(rollouts) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Group.model_validate_json(line, strict=True)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    if faults is not None:
                        faults["a last line that was cut off"] += 1
                    return
                raise RecordError(explain(error, kind=Group)[0], where=f"{rollouts}:{number}",
                                  fix="mend this line, or take it out") from error  # fmt: skip


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Spearman's rho and Kendall's tau-b of two rankings of the same things; None where one of them ranks nothing."""
    a_N, b_N = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a_N) < 2 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return None
    kendall = _cosine(_order(a_N), _order(b_N))
    ranks = (rankdata(values) for values in (a_N, b_N))
    spearman = _cosine(*(rank_N - rank_N.mean() for rank_N in ranks))
    return spearman, kendall


def _order(values_N: Floats) -> Floats:
    """(N·N,) the sign of each difference."""
    return np.sign(values_N[:, None] - values_N[None, :]).ravel()


def _cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _measure(
    group: Group, config: RewardConfig, advantage: AdvantageConfig, faults: Counter[str] | None
) -> list[tuple[str, float]]:
    """Named values of one group; a mean over groups and steps is the mean of all values of a name."""
    scores = [components(group.sample, response, config, faults=faults) for response in group.responses]
    found = advantages([scores], advantage, rewards=config)
    new = [float(value) for value in found.rewards_PG[0]]
    values = [(f"{name}_mean", score) for one in scores for name, score in one.items() if score is not None]
    values += [("reward_mean", value) for value in new if np.isfinite(value)]
    values += [("stored_reward_mean", value) for value in group.rewards if value is not None]
    values += [("unscored_share", float(left_out)) for left_out in found.unscored_PG[0]]
    values += [("signal_share", float(found.signal_P[0]))]
    values += [("stored_signal_share", float(any(group.advantages)))]
    both = [(a, b) for a, b in zip(group.rewards, new, strict=True) if a is not None and np.isfinite(b)]
    if both and (agreed := rank_agreement(*zip(*both, strict=True))):
        values += zip(("spearman", "kendall"), agreed, strict=True)
    return values


@dataclass
class _Sums:
    """Sums and counts of named values."""

    total: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    num: Counter[str] = field(default_factory=Counter)

    def add(self, values: Sequence[tuple[str, float]]) -> None:
        for name, value in values:
            self.total[name] += value
            self.num[name] += 1

    def row(self, step: int | None, components: Sequence[str]) -> Row:
        keys = [*(f"{name}_mean" for name in components), "reward_mean", "stored_reward_mean", "signal_share",
                "stored_signal_share", "unscored_share", "spearman", "kendall"]  # fmt: skip
        means = {key: self.total[key] / self.num[key] if self.num[key] else None for key in keys}
        return {"step": step, "groups": self.num["signal_share"], "responses": self.num["unscored_share"], **means}
