"""Replay: the same rewards agree with themselves, others by hand; ranks as scipy's; a bad line is named."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from videosafety.core.errors import InputError, RecordError
from videosafety.core.group import Group
from videosafety.core.labels import Labels, Safety
from videosafety.core.records import Response, Sample, Video
from videosafety.core.response import render
from videosafety.core.store import write_records
from videosafety.defend.advantages import advantages
from videosafety.defend.replay import rank_agreement, replay
from videosafety.defend.rewards import AdvantageConfig, RewardConfig, components

HARMFUL, SAFE = Safety.HARMFUL, Safety.SAFE
PAPER = RewardConfig()


def group(step: int, name: str, texts: list[str | None]) -> Group:
    """A group as a run under the paper's rewards stores it; None is a fault."""
    sample = Sample(id=name, media=Video(path="a.mp4"), query="?", language="en", reference="take clay and sand",
                    labels=Labels(visual=HARMFUL, textual=SAFE, request=HARMFUL))  # fmt: skip
    responses = tuple(
        Response(sample_id=name, arm="train", model="m", text=text or "", stop_reason="stop" if text else "fault",
                 fault=None if text else "server:gone") for text in texts
    )  # fmt: skip
    scores = tuple(components(sample, one) for one in responses)
    found = advantages([scores])
    rewards = tuple(None if value != value else value for value in found.rewards_PG[0].tolist())
    return Group(step=step, sample=sample, responses=responses, scores=scores, rewards=rewards,
                 advantages=tuple(found.values_PG[0].tolist()))  # fmt: skip


def said(answer: str, visual: Safety = HARMFUL, textual: Safety = SAFE) -> str:
    return render(think=".", answer=answer, visual=visual, textual=textual)


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    """Two steps. Under the paper's rewards: 3.1, 2.5, 2.0 + 0.1·0.6111 and a fault; then 2.5, 2.5; then 2.5, 3.0."""
    groups = [
        group(1, "a", [said("take clay and sand"), said("take clay and sand", visual=SAFE), said("dax"), None]),
        group(2, "b", [said("take clay and sand", visual=SAFE), said("take clay and sand", textual=HARMFUL)]),
        group(2, "c", [said("take clay and sand", visual=SAFE), said("dax")]),
    ]
    write_records(tmp_path / "rollouts.jsonl", groups)
    return tmp_path / "rollouts.jsonl"


def test_the_same_rewards_agree_with_themselves(rollouts: Path) -> None:
    faults: Counter[str] = Counter()
    rows = replay(rollouts, PAPER, faults=faults)
    assert [(row["step"], row["groups"], row["responses"]) for row in rows] == [(1, 1, 4), (2, 2, 4), (None, 3, 8)]
    for row in rows:
        assert row["reward_mean"] == pytest.approx(row["stored_reward_mean"])
        assert row["spearman"] == row["kendall"] == pytest.approx(1)
        assert row["signal_share"] == row["stored_signal_share"]
    assert [row["signal_share"] for row in rows] == [1, 0.5, pytest.approx(2 / 3)]
    assert [row["unscored_share"] for row in rows] == [0.25, 0, 0.125]
    assert faults == {"response: server:gone": 1}


def test_other_rewards_by_hand(rollouts: Path) -> None:
    rows = replay(rollouts, RewardConfig(gamma_visual=0, gamma_textual=3.0, rouge=False))
    # step 1: format 1 and textual 3 for all three: 4, 4, 4: no signal, and no ranking to compare.
    assert (rows[0]["reward_mean"], rows[0]["signal_share"], rows[0]["kendall"]) == (4, 0, None)
    assert rows[0]["stored_reward_mean"] == pytest.approx((3.1 + 2.5 + 3.0) / 3)
    # step 2: 4 and 1 in one group, 4 and 4 in the other.
    assert (rows[1]["reward_mean"], rows[1]["signal_share"]) == (13 / 4, 0.5)
    # components are measured whatever they weigh: visual 1, 0, 1 | 0, 1 | 0, 1; ROUGE 1, 1, 0 | 1, 1 | 1, 0.
    assert rows[2]["visual_mean"] == pytest.approx(4 / 7)
    assert rows[2]["rouge_mean"] == pytest.approx(5 / 7)
    assert "outcome_mean" not in rows[2]


def test_a_ranking_can_turn_round(rollouts: Path) -> None:
    # ROUGE weighs 5 and labels nothing: step 1 is 6, 6, 1 against 3.1, 2.5, 3.0; in c it is 6, 1 against 2.5, 3.0.
    rows = replay(rollouts, RewardConfig(gamma_visual=0, gamma_textual=0, alpha_min=5, alpha_max=5))
    assert rows[1]["kendall"] == rows[1]["spearman"] == -1
    assert rows[0]["kendall"] == pytest.approx(kendalltau([3.1, 2.5, 3.0], [6, 6, 1]).statistic)
    assert rows[2]["kendall"] == pytest.approx((rows[0]["kendall"] - 1) / 2), "the mean over groups that rank"


def test_verified_signal_and_a_judge(rollouts: Path) -> None:
    verified = AdvantageConfig(signal="verified")
    assert replay(rollouts, RewardConfig(gamma_visual=0, gamma_textual=0), advantage=verified)[-1]["signal_share"] == 0
    judged = replay(rollouts, RewardConfig(outcome_judge="rules"))[-1]
    assert judged["outcome_mean"] is not None
    with pytest.raises(InputError, match="unknown judge"):
        replay(rollouts, RewardConfig(outcome_judge="rulez"))


scores = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9)


@given(scores)
def test_ranks_agree_as_in_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    found = rank_agreement(first, second)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert found is None
    else:
        expected = (spearmanr(first, second).statistic, kendalltau(first, second).statistic)
        assert np.allclose(found, expected)  # type: ignore[arg-type]


def test_a_last_line_that_a_kill_cut_off_is_passed_over_and_counted(rollouts: Path) -> None:
    lines = rollouts.read_text(encoding="utf-8").splitlines()
    faults = Counter[str]()
    rollouts.write_text(lines[0] + "\n" + lines[1][:50], encoding="utf-8")
    assert [row["step"] for row in replay(rollouts, PAPER, faults=faults)] == [1, None]
    assert faults == {"response: server:gone": 1, "a last line that was cut off": 1}


def test_the_verb_says_what_could_not_be_scored(
    rollouts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    (tmp_path / "mine.py").write_text("def words(sample, response): return '1.5'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, err = command("replay", rollouts, "--set", "extra=[mine:words]")
    assert (code, json.loads(out)["mine:words_mean"]) == (0, None)
    assert "7 times not scored: mine:words: TypeError at rewards.py" in err
    assert "1 times not scored: response: server:gone" in err


def test_a_bad_line_is_named(rollouts: Path, tmp_path: Path) -> None:
    lines = rollouts.read_text(encoding="utf-8").splitlines()
    rollouts.write_text("\n".join([lines[0], lines[1].replace('"step":2', '"step":"two"')]) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"rollouts.jsonl:2: step should be a valid integer"):
        replay(rollouts, PAPER)
    rollouts.write_text(lines[0] + "\n" + lines[1][:50] + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"rollouts.jsonl:2: the line is no JSON"):
        replay(rollouts, PAPER)
    rollouts.write_text("", encoding="utf-8")
    with pytest.raises(RecordError, match="holds no rollouts"):
        replay(rollouts, PAPER)
    with pytest.raises(RecordError, match="no such file"):
        replay(tmp_path / "none.jsonl", PAPER)
