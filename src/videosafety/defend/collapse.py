"""Reward collapse: a policy that says one thing to everyone, seen in the curves while it can still be stopped.

The paper does not look for it. Three curves of ``policy.jsonl`` are watched: the deviation of rewards, the length of
completions, and the entropy of the predicted (vidType, textType) pairs. One of them fires when it stays under its bound
for some rounds of sampling on end; a round is a step, or ``num_iterations`` of them. A round in which a curve is
unknown neither counts nor interrupts. Nothing is kept between calls: the rows so far are the state, so a resumed run
goes on as if it had never stopped.

The bounds are ours. Each is what is left once the thing that it watches is gone (docs/method.md has the healthy runs
that they were held against):

* reward deviation 0.01: one wrong label (1 point) in a batch of S completions makes 1/√S, over 0.01 up to S = 10,000;
  so under it no label, tag or outcome differs, and what is left is ROUGE, times α_min = 0.1, with a deviation of 0.1;
* length 8 tokens: a structured response has eight tags, and a tag is a token at least in any tokenizer;
* label entropy 0.05 nats: fewer than one completion in 115 states another pair than all the others;
* patience 10 rounds: where one prompt in twenty has other labels, ten rounds of 16 prompts without one have a chance of
  0.95¹⁶⁰ = 0.03 %. Smaller batches want more patience, data with a single pair of labels a bound of 0.

A reward that fails for every response is watched with the same patience, and stops the run: what is left would be
another objective (without the outcome term, over-refusal comes back).

Example:
    >>> collapsed([{"reward_std": 0.0}] * 10, CollapseConfig(patience=10))
    ['reward_std']
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from videosafety.core.recipe import Config, knob
from videosafety.core.records import Response
from videosafety.core.response import parse

LABEL_ENTROPY, UNSCORABLE = "label_entropy", "unscorable"  # keys of policy.jsonl


class CollapseConfig(Config):
    """When a curve has collapsed. A bound of 0 is never reached: that curve is not watched."""

    patience: int = knob(10, unit="rounds", help="rounds of sampling under a bound, on end, before it counts", ge=1)
    min_reward_std: float = knob(0.01, help="bound of the rewards' deviation over the batch", ge=0)
    min_length: float = knob(8.0, unit="tokens", help="bound of the mean length of completions", ge=0)
    min_label_entropy: float = knob(0.05, unit="nats", help="bound of the entropy of the predicted label pairs", ge=0)


def collapsed(rows: Sequence[Mapping[str, object]], config: CollapseConfig | None = None) -> list[str]:
    """The curves that have collapsed at the last of these steps, by name; usually none.

    Args:
        rows: of ``policy.jsonl``, one a round, from the first to this one; as many as hold the last ``patience``
            known values are looked at, so the newest are enough.
        config: bounds and patience.
    """
    config = config or CollapseConfig()
    bounds = {"reward_std": ("reward_std", config.min_reward_std), "length": ("length_mean", config.min_length),
              LABEL_ENTROPY: (LABEL_ENTROPY, config.min_label_entropy)}  # fmt: skip
    return [name for name, (key, bound) in bounds.items() if _stays_under(rows, key, bound, config.patience)]


def unscorable(rows: Sequence[Mapping[str, Any]], patience: int) -> list[str]:
    """The components that failed for every response in each of the last ``patience`` rounds, by name; usually none."""
    last = [set(row.get(UNSCORABLE, ())) for row in rows[-patience:]]
    return sorted(set.intersection(*last)) if len(last) == patience else []


def label_entropy(responses: Iterable[Response]) -> float | None:
    """Entropy in nats of the predicted (vidType, textType) pairs, a missing label being a value of its own.

    At most ln 9 = 2.20; ln 4 = 1.39 for four equal pairs. None without responses.
    """
    pairs = Counter((said.visual, said.textual) for one in responses if one.fault is None for said in [parse(one.text)])
    num = pairs.total()
    return sum(count / num * math.log(num / count) for count in pairs.values()) if num else None


def _stays_under(rows: Sequence[Mapping[str, object]], key: str, bound: float, patience: int) -> bool:
    """Whether the last ``patience`` known values are all under the bound."""
    values = (float(value) for row in reversed(rows) if isinstance(value := row.get(key), int | float))
    last = list(islice((value for value in values if math.isfinite(value)), patience))
    return len(last) == patience and max(last) < bound
