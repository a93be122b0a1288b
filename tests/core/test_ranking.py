"""AUROC and TPR at 1 % FPR against scipy and brute force; intervals against repetition, and coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from videosafety.core.errors import InputError
from videosafety.core.ranking import Ranked, auroc, rank_by_seed, tpr_at_fpr
from videosafety.core.statistics import Floats, Ints, Method


def drawn(
    source: np.random.Generator, *, num_clusters: int = 60, size: int = 4, gap: float = 1.0
) -> tuple[Floats, ...]:
    """Scores in [0, 1], truths and clusters; answers of a cluster share a truth and half of their noise."""
    cluster = np.repeat(np.arange(num_clusters), size)
    harmful = cluster % 2 == 0
    noise = source.normal(size=num_clusters)[cluster] + source.normal(size=len(cluster))
    return norm.cdf(noise / 2**0.5 + gap * harmful), harmful, cluster


def ranked(scores: Floats, harmful: Floats, cluster: Ints, seeds: Ints | None = None, **more: int) -> Ranked:
    seeds = np.zeros(len(scores), dtype=np.int64) if seeds is None else seeds
    found = rank_by_seed(scores, harmful.astype(bool), cluster_codes=cluster, seed_codes=seeds, seed=0, **more)
    return found[None]


def test_auroc_is_the_mann_whitney_statistic_ties_included() -> None:
    source = np.random.default_rng(0)
    for digits in (1, 2, 8):
        scores, harmful, _ = drawn(source)
        scores = np.round(scores, digits)
        u = mannwhitneyu(scores[harmful], scores[~harmful]).statistic
        assert auroc(scores, harmful) == pytest.approx(u / (harmful.sum() * (~harmful).sum()))


@pytest.mark.parametrize(("scores", "expected"), [([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0), ([1, 1, 1, 1], 0.5)])
def test_auroc_by_hand(scores: list[float], expected: float) -> None:
    assert auroc(scores, [False, False, True, True]) == expected


def test_one_class_has_no_auroc_and_no_tpr() -> None:
    for harmful in ([True] * 200, [False] * 200):
        assert auroc(np.linspace(0, 1, 200), harmful) is None
        assert tpr_at_fpr(np.linspace(0, 1, 200), harmful) is None


def test_tpr_flags_at_most_one_safe_answer_in_a_hundred() -> None:
    safe = [*np.linspace(0, 0.5, 99), 0.9]
    harmful = [0.95, 0.91, 0.9, 0.6, 0.2]
    truth = [False] * 100 + [True] * 5
    assert tpr_at_fpr([*safe, *harmful], truth) == pytest.approx(4 / 5)  # one of 100 may be flagged: 0.9
    assert tpr_at_fpr([*safe[:-1], *harmful], truth[1:]) is None  # 99 safe answers
    assert tpr_at_fpr([*safe, 0.9, *harmful], [False, *truth]) == pytest.approx(2 / 5)  # two at 0.9 would be 2 of 101


def test_tpr_is_the_best_threshold_by_brute_force() -> None:
    source = np.random.default_rng(1)
    for _ in range(20):
        scores, harmful, _ = drawn(source, num_clusters=120)
        scores = np.round(scores, 2)
        best = max(
            (scores[harmful] >= t).mean() for t in [*scores, 2.0] if (scores[~harmful] >= t).mean() <= 0.01
        )  # fmt: skip
        assert tpr_at_fpr(scores, harmful) == pytest.approx(best)


def test_a_cluster_drawn_twice_counts_twice() -> None:
    """The interval is that of copying the answers of drawn clusters."""
    source = np.random.default_rng(2)
    scores, harmful, cluster = drawn(source)
    values = []
    for _ in range(1500):
        picked = np.concatenate([np.flatnonzero(cluster == c) for c in source.integers(60, size=60)])
        values.append(auroc(scores[picked], harmful[picked]))
    around = ranked(scores, harmful, cluster).auroc_interval
    assert around.method is Method.CLUSTER_BOOTSTRAP
    assert (around.low, around.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.012)


def test_the_interval_covers_the_true_area_with_clustered_scores() -> None:
    source, hits = np.random.default_rng(3), 0
    truth = float(norm.cdf(1 / 2**0.5))
    naive = 0
    for _ in range(120):
        scores, harmful, cluster = drawn(source)
        around = ranked(scores, harmful, cluster, num_resamples=300).auroc_interval
        alone = ranked(scores, harmful, np.arange(len(scores)), num_resamples=300).auroc_interval
        hits += (around.low or 1) <= truth <= (around.high or 0)
        naive += (alone.low or 1) <= truth <= (alone.high or 0)
    assert hits >= 106  # 0.95 · 120 = 114
    assert naive < hits - 4  # answers of one clip are not independent


def test_seeds_are_never_ranked_against_each_other() -> None:
    scores, harmful, cluster = drawn(np.random.default_rng(4))
    shifted = np.concatenate([scores / 2, 0.5 + scores / 2])
    twice, seeds = np.tile(harmful, 2), np.repeat([0, 1], len(scores))
    found = ranked(shifted, twice, np.tile(cluster, 2), seeds)
    assert found.auroc == pytest.approx(auroc(scores, harmful))
    assert found.auroc != pytest.approx(auroc(shifted, twice))
    assert found.auroc_interval.method is Method.HIERARCHICAL_BOOTSTRAP
    alone = ranked(scores, harmful, cluster).auroc_interval
    widths = [(one.high or 0) - (one.low or 0) for one in (found.auroc_interval, alone)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)  # equal seeds are no new evidence


def test_a_perfect_alarm_still_has_an_interval() -> None:
    cluster = np.repeat(np.arange(80), 3)
    harmful = cluster < 30
    found = ranked(harmful * 0.9 + 0.05, harmful, cluster)
    assert (found.auroc, found.tpr) == (1.0, 1.0)
    assert found.auroc_interval.method is Method.WILSON_CLUSTER_COUNT
    assert found.auroc_interval.low == pytest.approx(30 / (30 + 1.959964**2))
    assert found.tpr_interval.low == pytest.approx(30 / (30 + 1.959964**2))


def test_one_seed_without_a_figure_leaves_the_mean_without_one() -> None:
    scores, harmful, cluster = drawn(np.random.default_rng(5))
    seeds = np.repeat([0, 1], len(scores))
    truths = np.concatenate([harmful, np.ones(len(scores), dtype=bool)])
    found = rank_by_seed(np.tile(scores, 2), truths, cluster_codes=np.tile(cluster, 2), seed_codes=seeds, seed=0)
    assert found[0].auroc is not None
    assert (found[1].auroc, found[None].auroc) == (None, None)
    assert found[None].auroc_interval.method is Method.UNDEFINED


def test_few_clusters_of_one_class_give_no_interval() -> None:
    scores, harmful, cluster = drawn(np.random.default_rng(6), num_clusters=38)
    found = ranked(scores, harmful, cluster)
    assert found.auroc is not None
    assert found.auroc_interval.method is Method.TOO_FEW_CLUSTERS


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        auroc([0.1, 0.2], [True])
    with pytest.raises(InputError, match="do not fit"):
        auroc([0.1, float("nan")], [True, False])
