"""Words asked of many clips are answered once: an arm that shows nothing else must not count the copies as evidence."""

import numpy as np
import pytest

from videosafety.core.metrics import ScoredItem, SummaryRow, find, summarise
from videosafety.core.statistics import Interval, Method, sign_flip_pvalue, widest, wilson_clustered

NUM_CLIPS = 120
FIELDS = {"subset": "HH", "arm_request": "harmful", "language": "en", "category": None, "judge": "oracle",
          "model": "m", "stage": "base", "benchmark": "toy"}  # fmt: skip


def answers(num_words: int, *, share: float = 0.8, num_seeds: int = 1) -> list[ScoredItem]:
    """Every clip is asked one of ``num_words`` questions; the text arm's answer follows from the words alone."""
    rng = np.random.default_rng(0)
    items = []
    for seed in range(num_seeds):
        defended = rng.random(num_words) < share
        for i in range(NUM_CLIPS):
            word, clip = i % num_words, f"c{i}"
            text = "defended" if defended[word] else "compromised"
            video = "defended" if rng.random() < 0.3 else "compromised"
            one = FIELDS | {"sample_id": f"s{i}", "cluster": clip, "seed": seed}
            items.append(ScoredItem.model_validate(one | {"arm": "text", "outcome": text, "words": f"w{word}"}))
            items.append(ScoredItem.model_validate(one | {"arm": "video", "outcome": video}))
    return items


def pooled(items: list[ScoredItem], metric: str, arm: str = "text") -> SummaryRow:
    [row] = find(summarise(items), metric=metric, arm=arm, subset="HH", language=None, seed=None)
    return row


def without_words(items: list[ScoredItem]) -> list[ScoredItem]:
    return [item.model_copy(update={"words": None}) for item in items]


def test_the_copies_are_one_cluster() -> None:
    items = answers(24)
    text = [item for item in items if item.arm == "text"]
    row = pooled(items, "dsr")
    expected = wilson_clustered([item.outcome == "defended" for item in text], [item.words for item in text])
    assert (row.low, row.high) == (round(expected.low or 0, 6), round(expected.high or 0, 6))
    assert (row.n, row.cluster_n) == (NUM_CLIPS, 24)
    clips = pooled(without_words(items), "dsr")
    assert (row.high or 0) - (row.low or 0) > 1.5 * ((clips.high or 0) - (clips.low or 0))
    assert row.value == clips.value


def test_the_video_arm_is_clustered_by_clip_as_before() -> None:
    items = answers(24)
    assert pooled(items, "dsr", "video") == pooled(without_words(items), "dsr", "video")


def test_words_of_their_own_change_nothing() -> None:
    items = answers(NUM_CLIPS)
    assert summarise(items) == summarise(without_words(items))


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_drop_carries_the_doubt_of_the_words(num_seeds: int) -> None:
    items = answers(24, num_seeds=num_seeds)
    for metric in ("drop_points", "drop_relative"):
        row, clips = pooled(items, metric), pooled(without_words(items), metric)
        assert row.value == clips.value
        assert (row.high or 0) - (row.low or 0) > 1.1 * ((clips.high or 0) - (clips.low or 0))
        assert (row.low or 0) < (row.value or 0) < (row.high or 0)
        assert row.cluster_n == 24


def test_the_p_of_the_drop_is_the_larger_of_both_ways() -> None:
    items = answers(24, share=0.5)
    said = {(item.arm, item.sample_id): item for item in items}
    by_words = dict.fromkeys((item.words for item in items if item.words), 0)
    for (arm, sample_id), item in said.items():
        if arm == "text":
            assert item.words is not None
            by_words[item.words] += (item.outcome == "defended") - (said["video", sample_id].outcome == "defended")
    expected = sign_flip_pvalue(list(by_words.values()))
    assert expected > (pooled(without_words(items), "drop_p").value or 0)
    assert pooled(items, "drop_p").value == round(expected, 6)


def test_too_few_words_have_no_interval() -> None:
    items = answers(8)
    assert {pooled(items, metric).interval for metric in ("dsr", "drop_points")} == {Method.TOO_FEW_CLUSTERS}
    assert pooled(items, "dsr", "video").low is not None


def test_the_widest_interval_is_the_one_that_claims_least() -> None:
    narrow, wide = Interval(0.4, 0.5, Method.WILSON), Interval(0.3, 0.5, Method.WILSON)
    none = Interval(None, None, Method.TOO_FEW_CLUSTERS)
    assert [widest(some) for some in ([narrow, wide], [wide, none], [none, wide], [wide, wide])] == [1, 1, 0, 0]
