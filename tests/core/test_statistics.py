"""Closed forms and exact tests against other implementations, brute force and simulation."""

from itertools import product
from math import erfc, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from videosafety.core.errors import InputError
from videosafety.core.statistics import (
    Interval,
    Method,
    codes,
    design_effect,
    holm,
    mcnemar,
    sign_flip_pvalue,
    wilson,
    wilson_clustered,
)


def bounds(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_wilson_by_hand() -> None:
    # z = 1.96: centre (0.8 + 0.19207)/1.38415 = 0.71674, half width 1.96·sqrt(0.016 + 0.0096036)/1.38415 = 0.22658
    low, high = bounds(wilson(8, 10))
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_statsmodels(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert bounds(wilson(successes, n, level=level)) == pytest.approx(expected, abs=1e-9)


def test_wilson_at_the_ends_and_with_nothing() -> None:
    assert wilson(0, 30).low == 0.0
    assert wilson(30, 30).high == 1.0
    assert wilson(30, 30).low == pytest.approx(30 / (30 + 1.959964**2), abs=1e-6)
    assert wilson(0, 0) == Interval(None, None, Method.EMPTY)
    for successes, n in ((-1, 5), (6, 5)):
        with pytest.raises(InputError, match="successes"):
            wilson(successes, n)
    with pytest.raises(InputError, match="level"):
        wilson(1, 2, level=95)


def test_design_effect_by_hand() -> None:
    # Four clusters of two, each all alike: rate 1/2, residuals ±1, so 4/3 · 4/64 over 1/4/7.
    assert design_effect([1, 1, 0, 0, 1, 1, 0, 0], list("aabbccdd")) == pytest.approx((4 / 3 * 4 / 64) / (1 / 28))


def test_design_effect_is_one_for_independent_items_and_never_less() -> None:
    outcomes = [0, 1, 1, 0, 1, 0, 0]
    assert design_effect(outcomes, list(range(7))) == pytest.approx(1.0)
    assert design_effect([0, 1] * 10, [i // 2 for i in range(20)]) == 1.0  # every cluster is half and half


def test_design_effect_without_variance_is_the_cluster_size() -> None:
    assert design_effect([1] * 12, [i // 3 for i in range(12)]) == 3.0
    assert design_effect([0, 1, 1, 0, 1], ["only"] * 5) == 5.0
    with pytest.raises(InputError, match="no items"):
        design_effect([], [])


def test_clustered_interval_of_single_items_is_plain_wilson() -> None:
    outcomes = [1] * 30 + [0] * 20
    assert bounds(wilson_clustered(outcomes, list(range(50)))) == pytest.approx(bounds(wilson(30, 50)), abs=1e-12)


def test_clustered_interval_widens_with_the_cluster() -> None:
    outcomes = [1] * 120 + [0] * 120
    interval = wilson_clustered(outcomes, [i // 4 for i in range(240)])
    assert interval.method is Method.WILSON_DESIGN_EFFECT
    plain, whole_clips = bounds(wilson(120, 240)), bounds(wilson(30, 60))
    low, high = bounds(interval)
    assert low < plain[0]
    assert high > plain[1]
    # Alike within a clip: sixty independent clips, up to the small-sample corrections.
    assert (low, high) == pytest.approx(whole_clips, abs=0.005)


def test_few_clusters_pay_for_the_estimated_design_effect() -> None:
    outcomes, clusters = [0, 0, 0, 1, 1, 1, 1, 1] * 10, [i // 4 for i in range(80)]
    quantiles = t.ppf(0.975, 79) / t.ppf(0.975, 19)
    effective = 80 / design_effect(outcomes, clusters) * quantiles**2
    expected = wilson(effective * 50 / 80, effective)
    assert bounds(wilson_clustered(outcomes, clusters)) == pytest.approx(bounds(expected), abs=1e-12)


def test_an_outcome_that_hardly_varies_counts_clusters() -> None:
    clusters = [i // 5 for i in range(200)]
    always = wilson_clustered([1] * 200, clusters)
    assert always == wilson(40, 40, method=Method.WILSON_CLUSTER_COUNT)
    assert bounds(wilson_clustered([0] * 200, clusters)) == bounds(wilson(0, 40))
    four = wilson_clustered([0] * 4 + [1] * 196, [0, 1, 2, 3, *clusters[4:]])
    assert four.method is Method.WILSON_CLUSTER_COUNT
    spread = [1] * 200
    for cluster in range(5):
        spread[cluster * 5] = 0
    assert wilson_clustered(spread, clusters).method is Method.WILSON_DESIGN_EFFECT


def test_too_few_clusters_and_nothing_give_no_interval() -> None:
    outcomes = [0, 1] * 50
    assert wilson_clustered(outcomes, [i % 19 for i in range(100)]) == Interval(None, None, Method.TOO_FEW_CLUSTERS)
    assert wilson_clustered(outcomes, [i % 20 for i in range(100)]).low is not None
    assert wilson_clustered([], []) == Interval(None, None, Method.EMPTY)


def test_outcomes_must_be_binary_and_match() -> None:
    with pytest.raises(InputError, match="other than 0 and 1"):
        wilson_clustered([0, 2], ["a", "b"])
    with pytest.raises(InputError, match="3 outcomes for 2"):
        wilson_clustered([0, 1, 1], ["a", "b"])


@pytest.mark.parametrize("rate", [0.8, 0.97])
def test_coverage_where_the_naive_interval_fails(rate: float) -> None:
    random, correlation, clusters = np.random.default_rng(7), 0.5, np.repeat(np.arange(50), 8)
    naive = clustered = 0
    for _ in range(300):
        concentration = 1 / correlation - 1
        of_clip = random.beta(rate * concentration, (1 - rate) * concentration, size=50)
        outcomes = (random.random(400) < of_clip[clusters]).astype(int)
        low, high = bounds(wilson(int(outcomes.sum()), 400))
        naive += low <= rate <= high
        low, high = bounds(wilson_clustered(outcomes, clusters.tolist()))
        clustered += low <= rate <= high
    assert naive / 300 < 0.8
    assert clustered / 300 >= 0.92


@settings(max_examples=60)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=11))
def test_sign_flip_equals_enumeration(differences: list[int]) -> None:
    flipped = [sum(ways) for ways in product(*((d, -d) for d in differences))]
    expected = sum(abs(total) >= abs(sum(differences)) for total in flipped) / len(flipped)
    assert sign_flip_pvalue(differences) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_agrees_with_mcnemar_on_single_items() -> None:
    for first, second in ((9, 2), (30, 11), (5, 5)):
        assert sign_flip_pvalue([1] * first + [-1] * second + [0] * 40) == pytest.approx(mcnemar(first, second))


def test_sign_flip_ends() -> None:
    assert sign_flip_pvalue([]) == sign_flip_pvalue([0, 0]) == 1.0
    assert sign_flip_pvalue([1] * 60) == pytest.approx(2 / 2**60)
    with pytest.raises(InputError, match="whole"):
        sign_flip_pvalue([0.5, 1])


def test_sign_flip_of_many_large_clusters_is_near_normal() -> None:
    differences = np.random.default_rng(0).integers(-10, 11, size=4000)
    z = abs(differences.sum()) / sqrt(float((differences**2).sum()))
    assert sign_flip_pvalue(differences) == pytest.approx(erfc(z / sqrt(2)), abs=0.005)


def test_mcnemar_by_hand() -> None:
    # 1 against 5: 2 · (C(6,0) + C(6,1)) / 2^6
    assert mcnemar(1, 5) == mcnemar(5, 1) == pytest.approx(14 / 64)
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(InputError):
        mcnemar(-1, 2)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_holm_equals_statsmodels(count: int) -> None:
    pvalues = np.random.default_rng(count).random(count).round(2) ** 3  # rounded: ties as well
    assert holm(pvalues.tolist()) == pytest.approx(list(multipletests(pvalues, method="holm")[1]), abs=1e-12)


def test_holm_refuses_what_is_no_probability() -> None:
    assert holm([]) == []
    with pytest.raises(InputError):
        holm([0.2, 1.2])


def test_codes_do_not_depend_on_order() -> None:
    assert codes(["b", None, "a", "b"]).tolist() == [2, 0, 1, 2]
