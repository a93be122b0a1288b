"""Completions scored: rewards by component, advantages over the global batch, and the numbers of a step.

Axes: P prompts (groups), G completions of a prompt.

Example:
    >>> graded = grade(samples, groups, config)                  # doctest: +SKIP
    >>> graded.found.values_PG.shape                                            # doctest: +SKIP
    torch.Size([8, 6])
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate.utils import gather_object

from videosafety.core.group import Group
from videosafety.core.records import Response, Sample, StopReason
from videosafety.defend.advantages import Advantages, advantages
from videosafety.defend.collapse import LABEL_ENTROPY, label_entropy
from videosafety.defend.rewards import RewardConfig, components, weights
from videosafety.defend.stage import GrpoConfig
from videosafety.models.rollout import Completion

ARM, MODEL = "rollout", "policy"
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Graded:
    """Responses and scores of this process's prompts; ``every`` are those of all, which ``found`` is about."""

    samples: Sequence[Sample]
    responses: Sequence[Sequence[Response]]
    scores: Sequence[Sequence[Scores]]
    found: Advantages
    first: int  # row of this process's first group in ``found``
    every: Sequence[tuple[Sequence[Response], Sequence[Scores]]]
    faults: Mapping[str, int]  # of this step and all processes: why something could not be scored

    def unscorable(self, rewards: RewardConfig) -> list[str]:
        """Components that count and failed for every response of the step; one that merely does not apply is none."""
        said = [scores for _, some in self.every for scores in some]
        counted = {name for scores in said for name, weight in weights(scores, rewards).items() if weight}

        def failed(name: str) -> int:
            starts = (f"{name}: ", "response: ")
            return sum(count for fault, count in self.faults.items() if fault.startswith(starts))

        return sorted(name for name in counted if failed(name) >= len(said))

    def groups(self, step: int) -> list[Group]:
        """The records of this process's groups."""
        return [self._group(step, p) for p in range(len(self.samples))]

    def _group(self, step: int, p: int) -> Group:
        rewards = [None if math.isnan(r) else r for r in self.found.rewards_PG[self.first + p].tolist()]
        return Group(
            step=step, sample=self.samples[p], responses=tuple(self.responses[p]),
            scores=tuple(dict(one) for one in self.scores[p]), rewards=tuple(rewards),
            advantages=tuple(self.found.values_PG[self.first + p].tolist()),
        )  # fmt: skip


def grade(
    samples: Sequence[Sample], groups: Sequence[Sequence[Completion]], config: GrpoConfig, *, rank: int = 0,
    several: bool = False,
) -> Graded:  # fmt: skip
    """Score this process's completions; advantages see the groups of all processes.

    Args:
        samples: P prompts with their labels and references.
        groups: their completions.
        config: rewards and how they become advantages.
        rank, several: of this process, where there are several.
    """
    responses = [[_response(sample, one) for one in group] for sample, group in zip(samples, groups, strict=True)]
    now = Counter[str]()
    scores = [[components(sample, one, config.rewards, faults=now) for one in said]
              for sample, said in zip(samples, responses, strict=True)]  # fmt: skip
    mine = (rank, list(zip(responses, scores, strict=True)), now)
    ordered = sorted(gather_object([mine]) if several else [mine], key=lambda part: part[0])
    every = [pair for _, some, _ in ordered for pair in some]
    first = sum(len(some) for other, some, _ in ordered if other < rank)
    failed = sum((counts for _, _, counts in ordered), Counter[str]())
    empty = [[dict[str, float | None]()] * config.num_generations]  # no process has a prompt that counts
    found = advantages([scored for _, scored in every] or empty, config.advantages, rewards=config.rewards)
    return Graded(samples, responses, scores, found, first, every, failed)


def _response(sample: Sample, one: Completion) -> Response:
    return Response(sample_id=sample.id, arm=ARM, model=MODEL, text=one.text, stop_reason=one.stop_reason,
                    num_tokens=len(one.ids))  # fmt: skip


def step_row(graded: Graded) -> dict[str, float | None]:
    """What a step of all processes says about its completions: a part of a row of ``policy.jsonl``."""
    found = graded.found
    said = [response for responses, _ in graded.every for response in responses]
    scored = [scores for _, some in graded.every for scores in some]
    lengths = [float(response.num_tokens or 0) for response in said]
    rewards = found.rewards_PG[~found.unscored_PG].tolist()
    row: dict[str, float | None] = {"reward_mean": _mean(rewards), "reward_std": _std(rewards)}
    for name in dict.fromkeys(name for scores in scored for name in scores):
        values = [scores[name] for scores in scored if scores.get(name) is not None]
        known = [float(value) for value in values if value is not None]
        row |= {f"{name}_mean": _mean(known), f"{name}_std": _std(known)}
        row |= {f"{name}_p{q}": float(np.percentile(known, q)) if known else None for q in (10, 50, 90)}
    row |= {
        "advantage_std": _std(found.values_PG.flatten().tolist()),
        "no_signal_share": 1.0 - float(found.signal_P.float().mean()),
        "unscored_share": float(found.unscored_PG.float().mean()),
        "length_mean": _mean(lengths), "length_p90": float(np.percentile(lengths, 90)) if lengths else None,
        "truncated_share": _mean([float(one.stop_reason is StopReason.LENGTH) for one in said]),
        LABEL_ENTROPY: label_entropy(said),
    }  # fmt: skip
    return row


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values)) if values else None
