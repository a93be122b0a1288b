"""Which items the page embeds: a bounded, seeded choice, even over stage, subset and outcome, that says what it is.

Example:
    >>> choice = choose([], max_samples=60, seed=0)
    >>> choice.shown, choice.total
    ([], 0)
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from videosafety.core.records import Outcome, Response, Sample, Verdict
from videosafety.report.collect import Evaluation, MediaState


@dataclass(frozen=True)
class Item:
    """One sample of one evaluation, with its answers and verdicts of every arm."""

    evaluation: Evaluation
    sample: Sample
    responses: tuple[Response, ...]
    verdicts: tuple[Verdict, ...]
    damage: MediaState | None = None

    @property
    def stratum(self) -> tuple[str, str, str]:
        """(stage, subset, outcome), the outcome under the video arm where there is one."""
        ranked = sorted(self.verdicts, key=lambda v: (v.arm != "video", v.arm, v.judge))
        outcome = ranked[0].outcome.value if ranked else Outcome.UNSCORED.value
        return self.evaluation.info.stage, self.sample.subset.value, outcome


@dataclass(frozen=True)
class Choice:
    """The items to show in order, out of ``total``; per stratum how many are shown and how many there are."""

    shown: list[Item]
    total: int
    strata: dict[tuple[str, str, str], tuple[int, int]]
    seed: int


def items(evaluation: Evaluation) -> list[Item]:
    """Every sample of an evaluation with what belongs to it. Answers to unknown samples are left out."""
    responses: dict[str, list[Response]] = defaultdict(list)
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for response in evaluation.responses:
        responses[response.sample_id].append(response)
    for verdict in evaluation.verdicts:
        verdicts[verdict.sample_id].append(verdict)
    damage = {state.sample_id: state for state in evaluation.damaged}
    return [
        Item(evaluation, s, tuple(responses[s.id]), tuple(verdicts[s.id]), damage.get(s.id)) for s in evaluation.samples
    ]


def choose(evaluations: Sequence[Evaluation], *, max_samples: int, seed: int) -> Choice:
    """At most ``max_samples`` items: round after round one of each stratum, so rare outcomes are seen."""
    strata: dict[tuple[str, str, str], list[Item]] = defaultdict(list)
    for evaluation in evaluations:
        for item in items(evaluation):
            strata[item.stratum].append(item)
    total = {key: len(found) for key, found in sorted(strata.items())}
    for key, found in strata.items():
        random.Random(f"{seed} {key}").shuffle(found)
    rounds = [(place, key) for key, found in strata.items() for place in range(len(found))]
    taken = sorted(rounds)[: max(0, max_samples)]
    shown = [strata[key][place] for place, key in sorted(taken, key=lambda t: (t[1], t[0]))]
    count = Counter(item.stratum for item in shown)
    return Choice(shown, sum(total.values()), {key: (count[key], n) for key, n in total.items()}, seed)
