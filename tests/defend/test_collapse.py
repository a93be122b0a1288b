"""Collapse: a planted one is caught at the right step, healthy wiggle is not, and a resumed run sees the same."""

import math
import random
from statistics import pstdev
from typing import Any

import pytest
from pydantic import ValidationError

from videosafety.core.labels import Safety
from videosafety.core.records import Response
from videosafety.core.response import render
from videosafety.defend.collapse import UNSCORABLE, CollapseConfig, collapsed, label_entropy, unscorable
from videosafety.defend.rewards import RewardConfig

Row = dict[str, Any]
CONFIG = CollapseConfig(patience=5, min_reward_std=0.05, min_length=10, min_label_entropy=0.1)


def healthy(num: int, seed: int = 0) -> list[Row]:
    """Wiggles, and now and then dips under a bound for a few steps."""
    noise = random.Random(seed)
    rows = [{"reward_std": noise.uniform(0.1, 0.9), "length_mean": noise.uniform(20, 90),
             "label_entropy": noise.uniform(0.4, 1.3)} for _ in range(num)]  # fmt: skip
    for i in range(10, num, 12):
        for row in rows[i : i + 4]:
            row |= {"reward_std": 0.01, "length_mean": 3.0, "label_entropy": 0.0}
    return rows


def fired(rows: list[Row], config: CollapseConfig = CONFIG) -> list[list[str]]:
    """What fires at each step of a run."""
    return [collapsed(rows[: i + 1], config) for i in range(len(rows))]


@pytest.mark.parametrize("seed", range(5))
def test_healthy_wiggle_is_no_collapse(seed: int) -> None:
    assert not any(fired(healthy(120, seed)))


@pytest.mark.parametrize(("key", "value", "name"), [
    ("reward_std", 0.0, "reward_std"), ("length_mean", 2.5, "length"), ("label_entropy", 0.0, "label_entropy"),
])  # fmt: skip
def test_a_planted_collapse_is_caught_after_its_patience(key: str, value: float, name: str) -> None:
    rows = healthy(30) + [row | {key: value} for row in healthy(10)]
    assert fired(rows) == [[]] * 34 + [[name]] * 6, "at the fifth step and as long as it lasts"
    recovered = rows + healthy(1)
    assert collapsed(recovered, CONFIG) == []


def test_several_at_once_and_the_newest_rows_are_enough() -> None:
    gone = {"reward_std": 0.0, "length_mean": 1.0, "label_entropy": 0.0}
    rows = healthy(20) + [gone] * 5
    assert collapsed(rows, CONFIG) == ["reward_std", "length", "label_entropy"]
    assert collapsed(rows[-5:], CONFIG) == collapsed(rows, CONFIG), "a resumed run needs no other state"
    assert collapsed(rows[-4:], CONFIG) == []


def test_the_bound_itself_is_no_collapse() -> None:
    assert collapsed([{"reward_std": 0.05}] * 5, CONFIG) == []
    assert collapsed([{"reward_std": 0.0499}] * 5, CONFIG) == ["reward_std"]
    off = CollapseConfig(patience=5, min_reward_std=0, min_length=0, min_label_entropy=0)
    assert collapsed([{"reward_std": 0.0, "length_mean": 0, "label_entropy": 0.0}] * 9, off) == []


def test_an_unknown_value_neither_counts_nor_interrupts() -> None:
    low: Row = {"reward_std": 0.0}
    unknown: list[Row] = [{"reward_std": None}, {"reward_std": math.nan}, {}]
    assert collapsed([low, low, *unknown, low, low], CONFIG) == []
    assert collapsed([low, low, *unknown, low, low, low], CONFIG) == ["reward_std"]
    assert collapsed(unknown * 9, CONFIG) == []
    assert collapsed([], CONFIG) == []


def test_a_reward_that_fails_for_all_is_named_after_its_patience() -> None:
    gone: Row = {UNSCORABLE: ["outcome", "x:f"]}
    fine: Row = {}
    assert unscorable([gone, gone, {UNSCORABLE: ["outcome"]}], 3) == ["outcome"]
    assert unscorable([gone, gone], 3) == []
    assert unscorable([gone, fine, gone], 2) == []
    assert unscorable([fine, gone], 1) == ["outcome", "x:f"]


def test_entropy_of_labels_by_hand() -> None:
    def said(visual: Safety, textual: Safety) -> Response:
        text = render(think=".", answer="x", visual=visual, textual=textual)
        return Response(sample_id="a", arm="train", model="m", text=text, stop_reason="stop")

    both, words = said(Safety.HARMFUL, Safety.HARMFUL), said(Safety.SAFE, Safety.HARMFUL)
    assert label_entropy([both] * 6) == 0
    assert label_entropy([both, words] * 3) == pytest.approx(math.log(2))
    # shares 3/4 and 1/4: 0.75·ln(4/3) + 0.25·ln 4 = 0.2157616 + 0.3465736
    assert label_entropy([both, both, both, words]) == pytest.approx(0.5623352, abs=1e-6)
    untagged = both.model_copy(update={"text": "No."})
    assert label_entropy([both, untagged]) == pytest.approx(math.log(2)), "no label is a value of its own"
    gone = Response(sample_id="a", arm="train", model="m", text="", stop_reason="fault", fault="server:gone")
    assert label_entropy([both, gone]) == 0
    assert label_entropy([gone]) is None


def test_configs_that_make_no_sense() -> None:
    for wrong in ({"patience": 0}, {"min_length": -1.0}):
        with pytest.raises(ValidationError):
            CollapseConfig(**wrong)  # type: ignore[arg-type]


def test_the_bounds_are_what_is_left_when_nothing_differs():
    bounds = CollapseConfig()
    structured = render(think="a", answer="b", visual=Safety.SAFE, textual=Safety.SAFE)
    assert structured.count("<") == bounds.min_length
    one_wrong_label = [1.0] + [0.0] * 95
    assert pstdev(one_wrong_label) > bounds.min_reward_std == pytest.approx(RewardConfig().alpha_min * 0.1)
    assert pstdev([1.0] + [0.0] * 9999) == pytest.approx(bounds.min_reward_std, rel=1e-3)

    def entropy(num):
        rare, common = 1 / num, 1 - 1 / num
        return -(rare * math.log(rare) + common * math.log(common))

    assert entropy(115) < bounds.min_label_entropy < entropy(114)
    assert 0.95 ** (16 * bounds.patience) < 0.0003
