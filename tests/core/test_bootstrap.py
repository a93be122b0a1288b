"""Resampling against a naive implementation in plain Python, and the published drops."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from videosafety.core.bootstrap import (
    hierarchical_bootstrap,
    paired_difference,
    resampled_sums,
)
from videosafety.core.errors import InputError
from videosafety.core.statistics import Interval, Method, design_effect, wilson_clustered

Answer = tuple[int, int, int, int]  # cluster, training seed, outcome under a, outcome under b


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def world(*, num_seeds: int, num_clusters: int = 40, spread: float = 0.0) -> list[Answer]:
    """Clips of 1 to 5 items with rates of their own; ``b`` is defended less often than ``a``."""
    source = np.random.default_rng(3)
    easy, sizes = source.beta(2, 2, size=num_clusters), source.integers(1, 6, size=num_clusters)
    answers = []
    for seed in range(num_seeds):
        for cluster in range(num_clusters):
            for _ in range(sizes[cluster]):
                rate = float(np.clip(easy[cluster] + spread * (seed - (num_seeds - 1) / 2), 0.02, 0.98))
                answers.append((cluster, seed, int(source.random() < rate**0.5), int(source.random() < rate)))
    return answers


def naive(answers: list[Answer], figure: Callable[[list[Answer]], float], *, resamples: int) -> tuple[float, float]:
    """Draw clips and training seeds one by one, copy the answers, compute the figure anew."""
    draw, values = random.Random(11), []
    clusters, seeds = sorted({a[0] for a in answers}), sorted({a[1] for a in answers})
    cells: dict[tuple[int, int], list[Answer]] = {}
    for answer in answers:
        cells.setdefault(answer[:2], []).append(answer)
    for _ in range(resamples):
        drawn_seeds, drawn_clusters = draw.choices(seeds, k=len(seeds)), draw.choices(clusters, k=len(clusters))
        values.append(figure([a for s in drawn_seeds for c in drawn_clusters for a in cells.get((c, s), [])]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def points(answers: list[Answer]) -> float:
    return sum(a[2] - a[3] for a in answers) / len(answers)


def relative(answers: list[Answer]) -> float:
    return sum(a[2] - a[3] for a in answers) / sum(a[2] for a in answers)


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_paired_intervals_are_close_to_the_naive_ones(num_seeds: int) -> None:
    answers = world(num_seeds=num_seeds, spread=0.2)
    clusters, seeds, a, b = zip(*answers, strict=True)
    pair = paired_difference(a, b, clusters, seed=5, training_seeds=seeds, num_resamples=4000)
    assert pair.value == pytest.approx(points(answers))
    assert pair.relative == pytest.approx(relative(answers))
    assert bounds(pair.interval) == pytest.approx(naive(answers, points, resamples=2000), abs=0.015)
    assert bounds(pair.relative_interval) == pytest.approx(naive(answers, relative, resamples=2000), abs=0.02)
    method = Method.CLUSTER_BOOTSTRAP if num_seeds == 1 else Method.HIERARCHICAL_BOOTSTRAP
    assert pair.interval.method is pair.relative_interval.method is method


def test_pooled_rate_is_close_to_the_naive_one_and_feels_the_seeds() -> None:
    widths = []
    for spread in (0.0, 0.3):
        answers = world(num_seeds=3, spread=spread)
        clusters, seeds, _, b = zip(*answers, strict=True)
        interval = hierarchical_bootstrap(b, clusters, seeds, seed=5)
        assert interval.method is Method.HIERARCHICAL_BOOTSTRAP
        expected = naive(answers, lambda drawn: sum(a[3] for a in drawn) / len(drawn), resamples=1500)
        assert bounds(interval) == pytest.approx(expected, abs=0.02)
        widths.append(bounds(interval)[1] - bounds(interval)[0])
    assert widths[1] > 1.5 * widths[0]


def test_seeds_that_repeat_the_same_answers_add_no_evidence() -> None:
    one = world(num_seeds=1)
    clusters, _, _, b = zip(*one, strict=True)
    low, high = bounds(wilson_clustered(b, clusters))
    thrice = hierarchical_bootstrap(b * 3, clusters * 3, [s for s in range(3) for _ in b], seed=0)
    assert bounds(thrice)[1] - bounds(thrice)[0] == pytest.approx(high - low, rel=0.15)


def test_one_seed_is_wilson() -> None:
    clusters, seeds, _, b = zip(*world(num_seeds=1), strict=True)
    assert hierarchical_bootstrap(b, clusters, seeds, seed=0) == wilson_clustered(b, clusters)


def test_bootstrap_variance_is_the_design_effect_variance() -> None:
    answers = world(num_seeds=1, num_clusters=400)
    clusters, _, _, b = zip(*answers, strict=True)
    sums = np.zeros((400, 1, 2))
    for cluster, _, _, hit in answers:
        sums[cluster, 0] += (1, hit)
    drawn = resampled_sums(sums, seed=0, num_resamples=4000)
    rate = sum(b) / len(b)
    expected = design_effect(b, clusters) * rate * (1 - rate) / len(b)
    assert float(np.var(drawn[:, 1] / drawn[:, 0])) == pytest.approx(expected, rel=0.1)


def test_both_ways_to_draw_have_the_same_moments() -> None:
    few_kinds = np.tile([[[1.0, 0.0]], [[1.0, 1.0]], [[3.0, 1.0]]], (100, 1, 1))
    tiny = np.linspace(0, 1e-9, 300)[:, None, None] * [0.0, 1.0]  # makes every cluster a kind of its own
    first, second = (resampled_sums(sums, seed=1, num_resamples=6000) for sums in (few_kinds, few_kinds + tiny))
    assert first.mean(axis=0) == pytest.approx(second.mean(axis=0), rel=0.01)
    assert np.cov(first.T) == pytest.approx(np.cov(second.T), rel=0.1)


def test_the_same_seed_gives_the_same_interval_in_any_order() -> None:
    answers = world(num_seeds=3)
    shuffled = random.Random(0).sample(answers, k=len(answers))
    results = []
    for some, names in ((answers, range(40)), (shuffled, range(40)), (answers, [f"clip-{97 - i}" for i in range(40)])):
        clusters, seeds, a, b = zip(*some, strict=True)
        results.append(paired_difference(a, b, [names[c] for c in clusters], seed=2, training_seeds=seeds))
    assert results[0] == results[1] == results[2]
    clusters, seeds, a, b = zip(*answers, strict=True)
    assert paired_difference(a, b, clusters, seed=3, training_seeds=seeds).interval != results[0].interval


@pytest.mark.parametrize(
    ("video", "text", "lost_points", "lost_share"),
    [(867, 995, 12.8, 12.9), (730, 984, 25.4, 25.8), (184, 893, 70.9, 79.4), (165, 535, 37.0, 69.2)],
)
def test_published_drops(video: int, text: int, lost_points: float, lost_share: float) -> None:
    a = [1] * text + [0] * (1000 - text)
    b = [1] * video + [0] * (1000 - video)
    pair = paired_difference(a, b, list(range(1000)), seed=0)
    assert pair.relative is not None
    assert (round(100 * pair.value, 1), round(100 * pair.relative, 1)) == (lost_points, lost_share)
    for value, interval in ((pair.value, pair.interval), (pair.relative, pair.relative_interval)):
        assert bounds(interval)[0] < value < bounds(interval)[1]
    assert pair.pvalue < 1e-12


def test_a_drop_from_always_to_never_still_has_an_interval() -> None:
    clusters = [i // 3 for i in range(180)]
    pair = paired_difference([1] * 180, [0] * 180, clusters, seed=0)
    # Wilson on 60 clusters: never below 60 / (60 + 1.96²) = 0.9398, so 1 − √2 · 0.0602 for the difference.
    assert (pair.value, pair.relative) == (1.0, 1.0)
    assert bounds(pair.interval) == pytest.approx((1 - 2**0.5 * 0.06017, 1.0), abs=1e-4)
    assert bounds(pair.relative_interval) == pytest.approx((1 - 0.06028, 1.0), abs=1e-4)
    assert pair.interval.method is Method.SQUARE_AND_ADD
    assert pair.pvalue == pytest.approx(2 / 2**60)


def test_nothing_to_lose_has_no_relative_drop() -> None:
    pair = paired_difference([0] * 40, [0] * 30 + [1] * 10, list(range(40)), seed=0)
    assert pair.value == -0.25
    assert pair.relative is None
    assert pair.relative_interval == Interval(None, None, Method.UNDEFINED)
    low, high = bounds(pair.interval)
    assert low < -0.25 < high < 0


def test_few_clusters_keep_the_value_and_the_p_but_no_interval() -> None:
    pair = paired_difference([1] * 8, [0] * 8, list(range(8)), seed=0)
    assert pair.interval == pair.relative_interval == Interval(None, None, Method.TOO_FEW_CLUSTERS)
    assert (pair.value, pair.pvalue) == (1.0, 2 / 2**8)


def test_a_rate_that_hardly_varies_over_seeds_counts_clusters() -> None:
    clusters, seeds = [i % 30 for i in range(90)], [i // 30 for i in range(90)]
    interval = hierarchical_bootstrap([1] * 90, clusters, seeds, seed=0)
    assert interval.method is Method.WILSON_CLUSTER_COUNT
    assert bounds(interval) == pytest.approx((30 / (30 + 1.959964**2), 1.0), abs=1e-6)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InputError, match="no items"):
        paired_difference([], [], [], seed=0)
    with pytest.raises(InputError, match="2 outcomes for 1"):
        paired_difference([1, 0], [1, 0], ["a"], seed=0)
    with pytest.raises(InputError, match="other than 0 and 1"):
        paired_difference([1, 0.5], [1, 0], ["a", "b"], seed=0)
    with pytest.raises(InputError, match="1 seeds for 2"):
        hierarchical_bootstrap([1, 0], ["a", "b"], [0], seed=0)
