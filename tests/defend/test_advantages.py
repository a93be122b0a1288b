"""Advantages: by hand from the equation, equal to stock TRL's, and sober where there is nothing to learn."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from trlkit import trainer_of

from videosafety.core.errors import InputError
from videosafety.defend.advantages import Advantages, advantages
from videosafety.defend.rewards import AdvantageConfig, RewardConfig

NAMES = ("format", "visual", "textual", "rouge")
CONSTANT = RewardConfig(dra=False, gamma_textual=2.0)  # weights 1, 1, 2 and 0.3
Rows = list[list[dict[str, float | None]]]


def rows(*groups: list[tuple[float | None, ...]]) -> Rows:
    return [[dict(zip(NAMES, one, strict=True)) for one in group] for group in groups]


def close(found: Advantages, *expected: float) -> bool:
    return torch.allclose(found.values_PG.flatten(), torch.tensor(expected), atol=1e-5)


FOUR: Rows = rows([(1, 1, 1, 0.5), (1, 0, 1, 1.0), (0, 1, 0, 0.2), (0, 0, 0, 0.0)])


def test_a_group_by_hand() -> None:
    # r = 1 + 0.1·0.5 + 1 + 1 = 3.05;  1 + 0.5·1.0 + 0 + 1 = 2.5;  0 + 0.5·0.2 + 1 + 0 = 1.1;  0.  Mean 1.6625.
    # r − mean: 1.3875, 0.8375, −0.5625, −1.6625; squares 1.92515625, 0.70140625, 0.31640625, 2.76390625, sum 5.706875;
    # unbiased deviation √(5.706875 / 3) = 1.37924, plus 0.0001: 1.37934.
    found = advantages(FOUR)
    assert found.rewards_PG.tolist() == [pytest.approx([3.05, 2.5, 1.1, 0.0])]
    assert close(found, 1.3875 / 1.37934, 0.8375 / 1.37934, -0.5625 / 1.37934, -1.6625 / 1.37934)
    assert close(advantages(FOUR, AdvantageConfig(scale_rewards="none")), 1.3875, 0.8375, -0.5625, -1.6625)


def test_rouge_counts_where_its_weight_is_zero_for_some() -> None:
    # alpha is 0 for the right one and 0.5 for the other two: 3, then 2 + 0.5·1.0, 2 + 0.5·0.2
    found = advantages(rows([(1, 1, 1, 0.5), (1, 0, 1, 1.0), (1, 0, 1, 0.2)]), rewards=RewardConfig(alpha_min=0.0))
    assert found.rewards_PG.tolist() == [pytest.approx([3.0, 2.5, 2.1])]


def test_a_batch_by_hand() -> None:
    # rewards 2, 1 and 1, 1: all four have mean 1.25, squares 0.5625 + 3·0.0625 = 0.75, deviation √(0.75 / 3) = 0.5.
    two = rows([(1, 1, 0, 0.0), (1, 0, 0, 0.0)], [(1, 0, 0, 0.0), (1, 0, 0, 0.0)])
    assert close(advantages(two, AdvantageConfig(scale_rewards="batch")), 0.5 / 0.5001, -0.5 / 0.5001, 0, 0)


def test_gdpo_by_hand() -> None:
    # Two rollouts: both formats 1; visual 1, 0; textual 1, 1; ROUGE 0.2, 0.6; alpha 0.1 and 0.5.
    # visual: mean 0.5, deviation √(0.5) = 0.707107, normal ±0.5 / 0.707207 = ±0.707007.
    # ROUGE: mean 0.4, deviation √(0.08) = 0.282843, normal ∓0.2 / 0.282943 = ∓0.706857.
    # sums 0.707007 − 0.1·0.706857 = 0.636321 and −0.707007 + 0.5·0.706857 = −0.353578; mean 0.141371.
    # centred ±0.494950; batch deviation 0.494950·√2 = 0.699965, plus 0.0001: A = ±0.707006.
    pair = rows([(1, 1, 1, 0.2), (1, 0, 1, 0.6)])
    assert close(advantages(pair, AdvantageConfig(aggregation="gdpo")), 0.707006, -0.707006)
    # Beside a pair that differs in ROUGE alone, 0.2 and 0.6, all labels right: ∓0.1·0.706857 = ∓0.070686, centred.
    # batch deviation √((2·0.494950² + 2·0.070686²) / 3) = 0.408220, plus 0.0001.
    both = pair + rows([(1, 1, 1, 0.2), (1, 1, 1, 0.6)])
    found = advantages(both, AdvantageConfig(aggregation="gdpo"))
    assert close(found, 0.494950 / 0.40832, -0.494950 / 0.40832, -0.070686 / 0.40832, 0.070686 / 0.40832)


def test_noise_of_rouge_drives_a_full_update_unless_signal_is_verified() -> None:
    right = rows([(1, 1, 1, 0.50), (1, 1, 1, 0.51), (1, 1, 1, 0.50), (1, 1, 1, 0.51)])
    assert advantages(right).values_PG.abs().min() > 0.7, "the paper's known weakness"
    found = advantages(right + FOUR, AdvantageConfig(signal="verified"))
    assert found.signal_P.tolist() == [False, True]
    assert found.values_PG[0].tolist() == [0, 0, 0, 0]
    assert torch.equal(found.values_PG[1], advantages(FOUR).values_PG[0])
    gdpo = advantages(right + FOUR, AdvantageConfig(signal="verified", aggregation="gdpo"))
    assert gdpo.signal_P.tolist() == [False, True]
    assert gdpo.values_PG[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["format", "visual", "textual", "outcome", "mine:f"])
def test_anything_but_rouge_is_verified_signal(name: str) -> None:
    config = RewardConfig(outcome_weight=1, outcome_judge="rules", extra=("mine:f",))
    same = {"format": 1.0, "visual": 1.0, "textual": 1.0, "rouge": 0.3, "outcome": 1.0, "mine:f": 1.0}
    group = [[same, same | {name: 0.0}]]
    assert advantages(group, AdvantageConfig(signal="verified"), rewards=config).signal_P.tolist() == [True]
    weightless = RewardConfig(outcome_judge="rules", gamma_visual=0, gamma_textual=0)
    if name in ("visual", "textual", "outcome"):
        found = advantages([[same | {"rouge": None}, same | {"rouge": None, name: 0.0}]], rewards=weightless)
        assert found.signal_P.tolist() == [False], "a component of weight 0 never counts"


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("aggregation", ["sum", "gdpo"])
@pytest.mark.parametrize("signal", ["any", "verified"])
def test_nothing_to_learn_is_zero_and_never_nan(scale: Any, aggregation: Any, signal: Any) -> None:
    config = AdvantageConfig(scale_rewards=scale, aggregation=aggregation, signal=signal)
    none, same = (None,) * 4, (1, 1, 1, 0.3)
    found = advantages(rows([none] * 3, [same] * 3, [none, none, same]), config)
    assert found.values_PG.tolist() == [[0.0] * 3] * 3
    assert found.signal_P.tolist() == [False] * 3
    assert found.unscored_PG.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    assert advantages(rows([same]), config).values_PG.tolist() == [[0.0]]
    assert advantages(rows([none, none]), config).values_PG.tolist() == [[0.0, 0.0]]
    assert advantages([[{}, {}]], config).values_PG.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("aggregation", ["sum", "gdpo"])
def test_an_unscored_response_is_left_out(aggregation: Any) -> None:
    config = AdvantageConfig(aggregation=aggregation)
    broken = rows([*[tuple(one.values()) for one in FOUR[0]], (1, None, 1, 1.0)])
    found = advantages(broken, config)
    assert found.unscored_PG.tolist() == [[False, False, False, False, True]]
    assert found.values_PG[0, 4] == 0
    assert math.isnan(found.rewards_PG[0, 4])
    assert torch.allclose(found.values_PG[0, :4], advantages(FOUR, config).values_PG[0]), "the others as if alone"


@pytest.mark.parametrize("aggregation", ["sum", "gdpo"])
def test_a_component_that_a_whole_group_lacks_does_not_apply(aggregation: Any) -> None:
    config = AdvantageConfig(aggregation=aggregation)
    lacking = rows([(1, 1, 1, None), (0, 1, 1, None)])
    found = advantages(lacking + rows([(1, 1, 1, 0.5), (0, 1, 1, 0.5)]), config)
    assert not found.unscored_PG.any()
    assert torch.allclose(found.values_PG[0], found.values_PG[1])
    assert found.values_PG[0, 0] > 0.5


def test_a_weightless_component_leaves_nobody_out() -> None:
    measured = [[{"format": 1.0, "outcome": None}, {"format": 0.0, "outcome": 1.0}]]
    assert not advantages(measured).unscored_PG.any(), "measured only: its weight is 0"
    paid = RewardConfig(outcome_weight=1, outcome_judge="rules")
    assert advantages(measured, rewards=paid).unscored_PG.tolist() == [[True, False]]


def test_groups_of_different_sizes_are_refused() -> None:
    for wrong in (FOUR + rows([(1, 1, 1, 0.5)]), [], [[]]):
        with pytest.raises(InputError, match="groups of the sizes"):
            advantages(wrong)


@pytest.mark.parametrize(("config", "theirs"), [
    (AdvantageConfig(), {"scale_rewards": "group"}),
    (AdvantageConfig(scale_rewards="batch"), {"scale_rewards": "batch"}),
    (AdvantageConfig(scale_rewards="none"), {"scale_rewards": "none"}),
    (AdvantageConfig(aggregation="gdpo"), {"multi_objective_aggregation": "normalize_then_sum"}),
])  # fmt: skip
def test_equal_to_stock_trl(config: AdvantageConfig, theirs: dict[str, Any], tmp_path: Path) -> None:
    """The advantages that TRL's own code computes in a real trainer from the same components, weights and groups."""
    generator = torch.Generator().manual_seed(3)
    table_SK = torch.rand(8, 4, generator=generator)
    table_SK[0] = torch.nan  # one response that nobody can score
    table_SK[:4, 2] = torch.nan  # a component that does not apply to the first group
    columns: list[list[float | None]] = [[None if value != value else value for value in column]
                                         for column in table_SK.T.tolist()]  # fmt: skip

    def reward(column: list[float | None]) -> Any:
        def called(prompts: Any, **_: Any) -> list[float | None]:
            return column

        return called

    prompts = [{"prompt": "take a dax"}, {"prompt": "clay and sand"}]
    trainer = trainer_of(tmp_path, [reward(column) for column in columns], prompts,
                         reward_weights=[1.0, 1.0, 2.0, 0.3], **theirs)  # fmt: skip
    inputs = [prompts[0]] * 4 + [prompts[1]] * 4
    expected = trainer._generate_and_score_completions(inputs)["advantages"]
    scores = [dict(zip(NAMES, row, strict=True)) for row in zip(*columns, strict=True)]
    found = advantages([scores[:4], scores[4:]], config, rewards=CONSTANT)
    assert expected.abs().max() > 0.1
    assert torch.allclose(found.values_PG.flatten(), expected, atol=2e-6)
