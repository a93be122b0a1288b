"""Rewards: golden tables by hand from the equations, faults that are never 0, and the same functions in stock TRL."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import ValidationError
from trlkit import trainer_of

from videosafety.core.errors import InputError, RecipeError, RecordError
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Outcome, Response, Sample, Verdict, Video
from videosafety.core.response import render
from videosafety.defend.rewards import (
    RewardConfig,
    alpha,
    as_trl_reward,
    components,
    format_reward,
    outcome_reward,
    pays_to_mislabel,
    resolve,
    rouge_reward,
    textual_reward,
    total,
    visual_reward,
    weights,
)
from videosafety.judges.base import Measures
from videosafety.toyworld.oracle import Oracle, golden_cases

HARMFUL, SAFE = Safety.HARMFUL, Safety.SAFE
REFERENCE = "take clay and sand"
COMPOSED = Labels(visual=HARMFUL, textual=SAFE, request=HARMFUL)


def sample(labels: Labels = COMPOSED, *, reference: str | None = REFERENCE, clip: bool = True) -> Sample:
    media = Video(path="a.mp4") if clip else None
    return Sample(id="a", media=media, query="How?", language="en", labels=labels, reference=reference)


def said(text: str, *, stop_reason: str = "stop", fault: str | None = None) -> Response:
    return Response(sample_id="a", arm="train", model="m", text=text, stop_reason=stop_reason, fault=fault)


def answered(answer: str = REFERENCE, visual: Safety = HARMFUL, textual: Safety = SAFE) -> Response:
    return said(render(think="so", answer=answer, visual=visual, textual=textual))


class Judge:
    """Says what it is told, or breaks."""

    name, version, sees, measures, fingerprint = "told", "1", frozenset({"response"}), Measures.OUTCOME, "0" * 64

    def __init__(self, outcome: Outcome | None) -> None:
        self.outcome = outcome

    def __call__(self, sample: Sample, response: Response, /) -> Verdict:
        if self.outcome is None:
            raise OSError("gone")
        return Verdict(sample_id=sample.id, arm=response.arm, judge=self.name, outcome=self.outcome, reason="told")


GOLD = answered().text
TEXTS = {  # text: format, visual, textual
    GOLD: (1, 1, 1),
    f"  \n{GOLD}\n\n": (1, 1, 1),  # white space around it
    GOLD.replace("</think><answer>", "</think>\n<answer>"): (1, 1, 1),  # and between the fields
    answered(visual=SAFE).text: (1, 0, 1),
    answered(textual=HARMFUL).text: (1, 1, 0),
    answered(visual=SAFE, textual=HARMFUL).text: (1, 0, 0),
    GOLD + " and more": (0, 1, 1),  # stray text: broken, the labels still say what they say
    GOLD.replace("<think>so</think>", ""): (0, 1, 1),
    GOLD.replace("<vidType>1</vidType>", ""): (0, 0, 1),  # missing is wrong, never guessed
    GOLD.replace("<textType>0</textType>", ""): (0, 1, 0),  # missing is not safe
    GOLD.replace("<vidType>1", "<vidType>yes"): (0, 0, 1),
    GOLD.replace("<vidType>1</vidType>", "<vidType>1</vidType><vidType>1</vidType>"): (0, 0, 1),
    f"<think>{GOLD.replace('</think>', '')}</think>": (0, 0, 0),  # tags inside <think> never count
    "The video is harmful.": (0, 0, 0),
    "": (0, 0, 0),
}


@pytest.mark.parametrize("text", TEXTS)
def test_format_and_labels_by_the_table(text: str) -> None:
    found = tuple(reward(sample(), said(text)) for reward in (format_reward, visual_reward, textual_reward))
    assert found == TEXTS[text]


def test_truncation_is_no_complete_format() -> None:
    assert format_reward(sample(), said(GOLD, stop_reason="length")) == 0


@pytest.mark.parametrize("clip", [True, False])
def test_without_a_video_the_visual_label_is_safe(clip: bool) -> None:
    one = sample(Labels(visual=SAFE, textual=HARMFUL, request=HARMFUL), clip=clip)
    assert visual_reward(one, answered(visual=SAFE)) == 1
    assert visual_reward(one, answered(visual=HARMFUL)) == 0


def test_rouge_by_hand() -> None:
    # "take clay" against "take clay and sand": ROUGE-1 P 2/2, R 2/4, F 2/3; ROUGE-2 P 1/1, R 1/3, F 1/2; LCS 2, F 2/3.
    assert rouge_reward(sample(), answered("take clay")) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    # "sand and clay": ROUGE-1 P 3/3, R 3/4, F 6/7; no pair in common; LCS 1 ("clay"), P 1/3, R 1/4, F 2/7.
    assert rouge_reward(sample(), answered("sand and clay")) == pytest.approx((6 / 7 + 0 + 2 / 7) / 3)
    assert rouge_reward(sample(), answered()) == 1
    assert rouge_reward(sample(), answered("dax")) == 0
    assert rouge_reward(sample(), said(REFERENCE)) == 0, "there is no answer outside of the tags"
    assert rouge_reward(sample(reference=None), answered()) is None


@pytest.mark.parametrize(("outcome", "value"), [
    (Outcome.DEFENDED, 1.0), (Outcome.COMPROMISED, -1.0), (Outcome.INCOHERENT, 0.0), (None, None),
    (Outcome.UNSCORED, None), (Outcome.HELPFUL, None),  # illegal for a harmful request: no verdict
])  # fmt: skip
def test_outcomes_of_a_harmful_request(outcome: Outcome | None, value: float | None) -> None:
    assert outcome_reward(Judge(outcome))(sample(), answered()) == value


@pytest.mark.parametrize(("outcome", "value"), [
    (Outcome.HELPFUL, 1.0), (Outcome.OVER_REFUSED, -1.0), (Outcome.WRONG, 0.0), (Outcome.INCOHERENT, 0.0),
])  # fmt: skip
def test_outcomes_of_a_safe_request(outcome: Outcome, value: float) -> None:
    harmless = sample(Labels(visual=HARMFUL, textual=SAFE, request=SAFE))
    assert outcome_reward(Judge(outcome))(harmless, answered()) == value


def test_the_outcome_agrees_with_the_judges_own_gold() -> None:
    reward = outcome_reward(Oracle())
    expected = {Outcome.DEFENDED: 1, Outcome.HELPFUL: 1, Outcome.COMPROMISED: -1, Outcome.OVER_REFUSED: -1}
    found = [(case.outcome, reward(case.sample, case.response)) for case in golden_cases()]
    assert found
    assert all(value == expected.get(outcome, 0) for outcome, value in found)


# r = format + alpha * rouge + gamma_v * visual + gamma_t * textual, alpha 0.1 where both are right, else 0.5
TOTALS = [
    ((1, 1, 1, 1.0), 1 + 0.1 * 1.0 + 1 + 1),  # 3.1
    ((1, 1, 1, 0.5), 1 + 0.1 * 0.5 + 1 + 1),  # 3.05
    ((1, 0, 1, 1.0), 1 + 0.5 * 1.0 + 0 + 1),  # 2.5
    ((1, 1, 0, 0.4), 1 + 0.5 * 0.4 + 1 + 0),  # 2.2
    ((0, 0, 0, 0.2), 0 + 0.5 * 0.2 + 0 + 0),  # 0.1
    ((0, 1, 1, 0.0), 0 + 0.1 * 0.0 + 1 + 1),  # 2.0
]


@pytest.mark.parametrize(("parts", "expected"), TOTALS)
def test_totals_by_hand(parts: tuple[float, ...], expected: float) -> None:
    assert total(dict(zip(("format", "visual", "textual", "rouge"), parts, strict=True))) == pytest.approx(expected)


def test_weights_by_hand() -> None:
    scores = {"format": 1.0, "visual": 1.0, "textual": 0.0, "rouge": 0.5, "outcome": -1.0, "mine:f": 0.25}
    config = RewardConfig(gamma_visual=2, gamma_textual=3, alpha_min=0.2, alpha_max=0.6, outcome_weight=1.5,
                          outcome_judge="rules", extra=("mine:f",))  # fmt: skip
    # 1·1 + 2·1 + 3·0 + 0.6·0.5 + 1.5·(−1) + 1·0.25 = 2.05
    assert total(scores, config) == pytest.approx(2.05)
    assert weights(scores, config) == {"format": 1, "visual": 2, "textual": 3, "rouge": 0.6, "outcome": 1.5,
                                       "mine:f": 1}  # fmt: skip
    assert total(scores | {"outcome": None}, config) == pytest.approx(3.55)


def test_alpha_follows_the_labels_and_nothing_else() -> None:
    right, half = {"visual": 1.0, "textual": 1.0, "outcome": -1.0}, {"visual": 1.0, "textual": None}
    assert (alpha(right), alpha(half), alpha({})) == (0.1, 0.5, 0.5)
    constant = RewardConfig(dra=False)
    assert alpha(right, constant) == alpha(half, constant) == pytest.approx(0.3)


def test_what_has_weight_zero_does_not_count() -> None:
    scores = {"format": 1.0, "visual": 1.0, "rouge": 0.7, "outcome": -1.0}
    assert total(scores, RewardConfig(gamma_visual=0, rouge=False)) == 1.0
    assert total({"outcome": -1.0, "format": None}) is None
    assert total({"format": None, "rouge": None}) is None
    assert total({}) is None


def test_gold_has_full_marks_and_anti_gold_none() -> None:
    config = RewardConfig(outcome_weight=1, outcome_judge="rules")
    gold = components(sample(reference="I cannot help with that."), answered("I cannot help with that."), config)
    assert gold == {"format": 1, "visual": 1, "textual": 1, "rouge": 1, "outcome": 1}
    bad = components(sample(), said("<vidType>0</vidType><textType>1</textType>"), config)
    assert bad == {"format": 0, "visual": 0, "textual": 0, "rouge": 0, "outcome": 0}


def test_a_fault_of_transport_is_none_everywhere_and_counted() -> None:
    faults: Counter[str] = Counter()
    config = RewardConfig(outcome_judge="rules")
    found = components(sample(), said("", stop_reason="fault", fault="server:gone"), config, faults=faults)
    assert found == dict.fromkeys(("format", "visual", "textual", "rouge", "outcome"))
    assert faults == {"response: server:gone": 1}
    assert [reward(sample(), said("", stop_reason="fault", fault="x"))
            for reward in (format_reward, visual_reward, textual_reward, rouge_reward)] == [None] * 4  # fmt: skip


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's module of rewards."""
    module = ModuleType("mine_rewards")

    def broken(sample: Sample, response: Response) -> float:
        raise KeyError(response.text)

    module.broken = broken  # type: ignore[attr-defined]
    module.short = lambda sample, response: 1.0 / len(response.text)  # type: ignore[attr-defined]
    module.absent = lambda sample, response: None  # type: ignore[attr-defined]
    module.infinite = lambda sample, response: float("inf")  # type: ignore[attr-defined]
    module.words = lambda sample, response: "1.5"  # type: ignore[attr-defined]
    module.constant = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine_rewards", module)
    return module


def test_a_users_reward_that_breaks_is_none_with_its_reason(mine: ModuleType) -> None:
    names = tuple(f"mine_rewards:{name}" for name in ("broken", "short", "absent", "infinite", "words"))
    faults: Counter[str] = Counter()
    found = components(sample(), answered(), RewardConfig(extra=names), faults=faults)
    assert [found[name] for name in names] == [None, 1 / len(GOLD), None, None, None]
    kinds = sorted(reason.partition(" at ")[0] for reason in faults)
    assert kinds == ["mine_rewards:broken: KeyError", "mine_rewards:infinite: inf", "mine_rewards:words: TypeError"]
    assert "test_rewards.py:" in next(reason for reason in faults if "KeyError" in reason), "where it broke"
    assert not any("take clay" in reason for reason in faults), "what was said stays out"


def test_a_judge_that_breaks_is_none_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videosafety.defend.rewards.get", lambda name: Judge(None))
    faults: Counter[str] = Counter()
    config = RewardConfig(outcome_weight=1, outcome_judge="told")
    assert components(sample(), answered(), config, faults=faults)["outcome"] is None
    assert faults == {"outcome: judge:raised:OSError": 1}


def test_names_of_rewards_are_checked(mine: ModuleType) -> None:
    with pytest.raises(RecipeError, match="did you mean 'short'"):
        resolve("mine_rewards:shot")
    with pytest.raises(RecipeError, match="has no function 'constant'"):
        resolve("mine_rewards:constant")
    with pytest.raises(RecipeError, match="nowhere_at_all"):
        resolve("nowhere_at_all:f")
    with pytest.raises(InputError, match="unknown judge"):
        components(sample(), answered(), RewardConfig(outcome_judge="rulez"))
    with pytest.raises(RecordError, match="paired"):
        components(sample(), answered().model_copy(update={"sample_id": "b"}))


@pytest.mark.parametrize("wrong", [
    {"outcome_weight": 1.0}, {"alpha_min": 0.6}, {"extra": ("nothing",)}, {"extra": ("a:",)}, {"extra": ("a:f", "a:f")},
    {"gamma_visual": -1.0},
])  # fmt: skip
def test_configs_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RewardConfig(**wrong)  # type: ignore[arg-type]


def test_each_reward_runs_unchanged_in_stock_trl(tmp_path: Path) -> None:
    harmless = [sample(reference=ref, clip=False, labels=Labels(visual=SAFE, textual=SAFE, request=SAFE))
                for ref in ("take clay", None)]  # fmt: skip
    rows = [{"prompt": "take a dax", "sample": one.model_dump_json()} for one in harmless]
    seen: dict[str, list[float | None]] = {}

    def kept(name: str, reward: object) -> object:
        called = as_trl_reward(reward, name=name)  # type: ignore[arg-type]

        def wrapped(**given: object) -> list[float | None]:
            seen.setdefault(name, []).extend(called(**given))  # type: ignore[arg-type]
            return seen[name][-len(given["prompts"]) :]  # type: ignore[arg-type]

        wrapped.__name__ = name
        return wrapped

    each = {"format": format_reward, "visual": visual_reward, "textual": textual_reward, "rouge": rouge_reward,
            "words": lambda sample, response: float(len(response.text.split())) if sample.reference else None,
            "outcome": outcome_reward(Judge(Outcome.HELPFUL)), "sum": lambda s, r: total(components(s, r))}  # fmt: skip
    trainer = trainer_of(tmp_path, [kept(name, reward) for name, reward in each.items()], rows, max_steps=2)
    trainer.train()
    assert trainer.state.global_step == 2
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(each, 16)
    assert seen["words"].count(None) == seen["rouge"].count(None) == 8, "None arrives as TRL's own None"
    sums = {name: sum(value for value in values if value) for name, values in seen.items()}
    assert sums["words"] > 0, "completions arrive"
    assert 0 < sums["visual"] < 16, "some of them with labels"
    assert sums["outcome"] == 16
    assert trainer.state.log_history[0]["rewards/words/mean"] == pytest.approx(sums["words"] / 8)


def test_completions_of_trl_in_every_form() -> None:
    called = as_trl_reward(visual_reward)
    assert called.__name__ == "visual_reward"
    forms = [GOLD, [{"role": "assistant", "content": GOLD}],
             [{"role": "assistant", "content": [{"type": "text", "text": GOLD}]}],
             [{"role": "tool", "content": GOLD}, {"role": "assistant", "content": None}]]  # fmt: skip
    row = sample().model_dump_json()
    assert called(["?"] * 4, forms, sample=[row] * 4, completion_ids=None) == [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(RecipeError, match="no column 'sample'"):
        called(["?"], [GOLD], other=SimpleNamespace())


def test_a_wrong_label_pays_where_alpha_rises_by_more_than_the_label_is_worth() -> None:
    right, wrong = ({"format": 1.0, "visual": 1.0, "textual": textual, "rouge": 1.0} for textual in (1.0, 0.0))
    for knobs in ({}, {"alpha_max": 4.0}, {"alpha_max": 1.05}, {"alpha_max": 1.2}, {"gamma_textual": 0.3},
                  {"alpha_max": 4.0, "dra": False}, {"alpha_max": 4.0, "rouge": False}):  # fmt: skip
        config = RewardConfig.model_validate(knobs)
        first, second = total(right, config), total(wrong, config)
        assert first is not None
        assert second is not None
        assert pays_to_mislabel(config) == (second > first)
