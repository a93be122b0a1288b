"""Resampling over clusters and training seeds: rates over several seeds, and paired differences between two arms.

A seed is one training run; every seed answers the same clustered items. Seeds and clusters are *crossed* factors, so
both are resampled with replacement and an answer counts (draws of its seed) × (draws of its cluster), as in Owen's
(2007) pigeonhole bootstrap: one draw of clusters serves all seeds, because a hard clip is hard for all of them and
drawing clusters afresh for each seed would count the same clips as new evidence. Intervals are percentile.

What an interval over few seeds means: with S seeds only the S runs at hand are redrawn, which understates the variance
between runs by (S − 1)/S (a third at 3 seeds). Read it as "other clips, and another draw among these runs"; claims
about training itself need 5 seeds or more. With one seed it is the plain cluster bootstrap.

Where an outcome hardly varies (fewer than ``MIN_INFORMATIVE_CLUSTERS`` clusters hold the rarer one), resampling sees
no error at all, so rates fall back to Wilson's interval on the number of clusters, and differences and ratios are put
together from the two rates' intervals (Newcombe 1998 method 10 without correlation; Donner and Zou 2012).

The paper (section 4) reports drops in points for some models and relative drops for others; both are here, named.

Axis names: K clusters, S training seeds, M metrics, C columns, R resamples, N items.

Example:
    >>> pair = paired_difference([1, 1, 0, 1] * 10, [0, 1, 0, 0] * 10, list(range(40)), seed=0)
    >>> pair.value, round(pair.relative or 0, 3)
    (0.5, 0.667)
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from videosafety.core.errors import InputError
from videosafety.core.statistics import (
    MIN_CLUSTERS,
    Floats,
    Interval,
    Ints,
    Method,
    binary,
    codes,
    is_informative,
    sign_flip_pvalue,
    wilson_from_sums,
)

NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """``value`` = rate(a) − rate(b) in [−1, 1]; ``relative`` = value / rate(a), at most 1, None when rate(a) is 0.

    ``pvalue`` is the exact two-sided sign-flip test by cluster. It takes the training runs as given.
    """

    value: float
    interval: Interval
    relative: float | None
    relative_interval: Interval
    pvalue: float


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    training_seeds: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> PairedDifference:
    """The same items under arm ``a`` and arm ``b``: difference, relative difference, intervals and p.

    Args:
        a: (N,) of 0 and 1, for instance defended on text alone.
        b: (N,) of 0 and 1 for the same items, for instance defended with the video.
        clusters: (N,) labels.
        seed: of the resampling.
        training_seeds: (N,) labels, when several training runs answered.

    Raises:
        InputError: no items, unequal lengths, or outcomes other than 0 and 1.
    """
    a_N = binary(a, num_items=len(clusters), where="paired_difference")
    b_N = binary(b, num_items=len(clusters), where="paired_difference")
    sums_KSC = _labelled_sums([np.ones_like(a_N), a_N, b_N], clusters, training_seeds, where="paired_difference")
    return paired_from_sums(sums_KSC, seed=seed, num_resamples=num_resamples, level=level)


def hierarchical_bootstrap(
    outcomes: ArrayLike,
    clusters: Sequence[Hashable],
    training_seeds: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Interval of the rate pooled over all training seeds (see the module for what it means at few seeds).

    Args:
        outcomes: (N,) of 0 and 1.
        clusters: (N,) labels; the same label under two seeds is the same cluster.
        training_seeds: (N,) labels. With one seed the interval is Wilson's on the design effect.
        seed: of the resampling.

    Raises:
        InputError: no items, unequal lengths, or outcomes other than 0 and 1.
    """
    outcomes_N = binary(outcomes, num_items=len(clusters), where="hierarchical_bootstrap")
    columns = [np.ones_like(outcomes_N), outcomes_N]
    sums_KSC = _labelled_sums(columns, clusters, training_seeds, where="hierarchical_bootstrap")
    return rates_from_sums(sums_KSC, seed=seed, num_resamples=num_resamples, level=level)[0]


def rates_from_sums(
    sums_KSC: Floats, *, seed: int, num_resamples: int = NUM_RESAMPLES, level: float = 0.95
) -> list[Interval]:
    """Intervals of M = C − 1 pooled rates. Columns of (K, S, C): number of items, then successes of each metric.

    One seed: Wilson's on the design effect. Several: hierarchical bootstrap, or Wilson's where the outcome hardly
    varies. Clusters and seeds without items must have been left out.
    """
    sizes_K, hits_KM = sums_KSC[..., 0].sum(axis=1), sums_KSC[..., 1:].sum(axis=1)
    intervals = wilson_from_sums(hits_KM, sizes_K, level=level)
    resampled_M = is_informative(hits_KM, sizes_K)
    if sums_KSC.shape[1] == 1 or len(sizes_K) < MIN_CLUSTERS or not resampled_M.any():
        return intervals
    drawn_RC = resampled_sums(sums_KSC, seed=seed, num_resamples=num_resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates_RM = drawn_RC[:, 1:] / drawn_RC[:, :1]
    for metric in np.flatnonzero(resampled_M):
        intervals[metric] = percentile(rates_RM[:, metric], level=level, method=Method.HIERARCHICAL_BOOTSTRAP)
    return intervals


def paired_from_sums(
    sums_KSC: Floats, *, seed: int, num_resamples: int = NUM_RESAMPLES, level: float = 0.95
) -> PairedDifference:
    """``paired_difference`` from sums (K, S, 3): number of items, successes under a, successes under b."""
    n, hits_a, hits_b = sums_KSC.sum(axis=(0, 1))
    value, relative = float((hits_a - hits_b) / n), float((hits_a - hits_b) / hits_a) if hits_a else None
    sizes_K, hits_KM = sums_KSC[..., 0].sum(axis=1), sums_KSC[..., 1:].sum(axis=1)
    pvalue = sign_flip_pvalue(hits_KM[:, 0] - hits_KM[:, 1])
    if len(sizes_K) < MIN_CLUSTERS:
        nothing = Interval(None, None, Method.TOO_FEW_CLUSTERS)
        return PairedDifference(value, nothing, relative, nothing, pvalue)
    if not is_informative(hits_KM, sizes_K).all():
        rate_a, rate_b = float(hits_a / n), float(hits_b / n)
        around_a, around_b = rates_from_sums(sums_KSC, seed=seed, num_resamples=num_resamples, level=level)
        difference, ratio = unpaired_intervals(rate_a, around_a, rate_b, around_b)
        return PairedDifference(value, difference, relative, ratio, pvalue)
    drawn_RC = resampled_sums(sums_KSC, seed=seed, num_resamples=num_resamples)
    method = Method.HIERARCHICAL_BOOTSTRAP if sums_KSC.shape[1] > 1 else Method.CLUSTER_BOOTSTRAP
    with np.errstate(divide="ignore", invalid="ignore"):
        lost_R = drawn_RC[:, 1] - drawn_RC[:, 2]
        difference = percentile(lost_R / drawn_RC[:, 0], level=level, method=method)
        ratio = percentile(lost_R / drawn_RC[:, 1], level=level, method=method)
    return PairedDifference(value, difference, relative, ratio, pvalue)


def unpaired_intervals(rate_a: float, a: Interval, rate_b: float, b: Interval) -> tuple[Interval, Interval]:
    """Intervals of rate(a) − rate(b) and of its share of rate(a), from the rates' own, as if they were independent."""
    for one in (a, b):
        if one.low is None:
            return one, one
    return _square_and_add(rate_a, a, rate_b, b), _ratio_drop(rate_a, a, rate_b, b)


def resampled_sums(sums_KSC: Floats, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """Column sums (R, C) of resampled data: clusters with replacement, crossed with seeds with replacement.

    Clusters with equal sums are interchangeable, so what is drawn is how often each distinct kind of cluster occurs:
    the same distribution at a fraction of the cost, and independent of how clusters are named or ordered.
    """
    num_clusters, num_seeds, num_columns = sums_KSC.shape
    kinds, counts = np.unique(sums_KSC.reshape(num_clusters, -1), axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    drawn_RSC = (_draw_kinds(random, counts, num_resamples) @ kinds).reshape(num_resamples, num_seeds, num_columns)
    if num_seeds == 1:
        return np.asarray(drawn_RSC[:, 0])
    weights_RS = random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples)
    weighted_RC: Floats = (drawn_RSC * weights_RS[:, :, None]).sum(axis=1)
    return weighted_RC


def _draw_kinds(random: np.random.Generator, counts: Ints, num_resamples: int) -> Floats:
    """(R, kinds) how often each kind is met in as many draws with replacement as there are clusters."""
    num_clusters, num_kinds = int(counts.sum()), len(counts)
    if num_kinds * 6 < num_clusters:  # the cheaper of two equal distributions
        return random.multinomial(num_clusters, counts / num_clusters, size=num_resamples).astype(np.float64)
    kind_K = np.repeat(np.arange(num_kinds), counts)
    drawn = np.empty((num_resamples, num_kinds))
    for start in range(0, num_resamples, 250):  # bounds the memory
        rows = min(250, num_resamples - start)
        picked = kind_K[random.integers(num_clusters, size=(rows, num_clusters))] + num_kinds * np.arange(rows)[:, None]
        drawn[start : start + rows] = np.bincount(picked.ravel(), minlength=rows * num_kinds).reshape(rows, num_kinds)
    return drawn


def sums_by_cluster(columns: Sequence[Floats], *, cluster_codes: Ints, seed_codes: Ints) -> Floats:
    """Sums (K, S, C) of N-long columns over the clusters and seeds that occur, from whole-number codes (N,) of each."""
    clusters, cluster_N = np.unique(cluster_codes, return_inverse=True)
    seeds, seed_N = np.unique(seed_codes, return_inverse=True)
    num_cells, cell_N = len(clusters) * len(seeds), cluster_N * len(seeds) + seed_N
    sums = [np.bincount(cell_N, weights=column, minlength=num_cells) for column in columns]
    return np.stack(sums, axis=-1).astype(np.float64).reshape(len(clusters), len(seeds), len(columns))


def _labelled_sums(
    columns: Sequence[Floats],
    clusters: Sequence[Hashable],
    training_seeds: Sequence[Hashable] | None,
    *,
    where: str,
) -> Floats:
    if not len(clusters):
        raise InputError("no items", where=where, fix="pass at least one outcome")
    seeds = training_seeds if training_seeds is not None else [0] * len(clusters)
    if len(seeds) != len(clusters):
        raise InputError(f"{len(seeds)} seeds for {len(clusters)} clusters", where=where, fix="one seed an item")
    return sums_by_cluster(columns, cluster_codes=codes(clusters), seed_codes=codes(seeds))


def percentile(values_R: Floats, *, level: float, method: Method) -> Interval:
    """The central ``level`` of resampled values (R,); none when one of them does not exist."""
    if not np.isfinite(values_R).all():
        return Interval(None, None, Method.UNDEFINED)
    low, high = np.quantile(values_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), method)


def _square_and_add(rate_a: float, a: Interval, rate_b: float, b: Interval) -> Interval:
    """Interval of rate(a) − rate(b) from the two intervals, as if independent: too wide rather than too narrow."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Interval(None, None, Method.UNDEFINED)
    value = rate_a - rate_b
    low = value - sqrt((rate_a - a.low) ** 2 + (b.high - rate_b) ** 2)
    high = value + sqrt((a.high - rate_a) ** 2 + (rate_b - b.low) ** 2)
    return Interval(max(-1.0, low), min(1.0, high), Method.SQUARE_AND_ADD)


def _ratio_drop(rate_a: float, a: Interval, rate_b: float, b: Interval) -> Interval:
    """Interval of 1 − rate(b) / rate(a) from the two intervals, as if independent; none where rate(a) may be 0."""
    if a.low is None or a.high is None or b.low is None or b.high is None or a.low <= 0:
        return Interval(None, None, Method.UNDEFINED)
    product = rate_a * rate_b
    inner_low = product**2 - b.low * a.high * (2 * rate_b - b.low) * (2 * rate_a - a.high)
    inner_high = product**2 - b.high * a.low * (2 * rate_b - b.high) * (2 * rate_a - a.low)
    denominator_low, denominator_high = a.high * (2 * rate_a - a.high), a.low * (2 * rate_a - a.low)
    if denominator_low <= 0:
        return Interval(None, None, Method.UNDEFINED)
    ratio_low = (product - sqrt(max(0.0, inner_low))) / denominator_low
    ratio_high = (product + sqrt(max(0.0, inner_high))) / denominator_high
    return Interval(1 - ratio_high, 1 - max(0.0, ratio_low), Method.SQUARE_AND_ADD)
