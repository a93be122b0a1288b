"""How well scores rank: AUROC and the TPR at a fixed FPR, with intervals by resampling clusters and training seeds.

AUROC is the share of (harmful, safe) pairs in which the harmful one scores higher, ties one half (Mann–Whitney). The
TPR at 1 % FPR is the largest share of harmful answers flagged by a threshold that flags at most 1 % of the safe ones;
the threshold is chosen on these same answers, so the figure is an upper end of what a threshold carried elsewhere
gives. The paper reports neither.

Two training runs have two scales, so answers of different seeds are never ranked against each other: the pooled figure
is the mean over seeds. Clusters and seeds are resampled as in ``core.bootstrap``. Where that sees no error, Wilson's
interval on a number of clusters stands in: for AUROC when fewer than ``MIN_INFORMATIVE_CLUSTERS`` clusters of either
class overlap the other class (n = the smaller class's clusters, the number of disjoint pairs), for the TPR when fewer
hold a hit or a miss (n = the harmful clusters).

Axis names: N answers, K clusters, S training seeds, R resamples, G groups of equal scores.

Example:
    >>> auroc([0.1, 0.4, 0.4, 0.9], [False, False, True, True])
    0.875
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from videosafety.core.bootstrap import NUM_RESAMPLES, percentile
from videosafety.core.errors import InputError
from videosafety.core.statistics import MIN_CLUSTERS, MIN_INFORMATIVE_CLUSTERS, Floats, Interval, Ints, Method, wilson

MAX_FPR = 0.01
MIN_NEGATIVES = 100  # with fewer, not one safe answer may be flagged: the threshold is one answer's
_CELLS_AT_ONCE = 4_000_000  # bounds the memory of a resample

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranked:
    """AUROC and TPR at ``MAX_FPR`` in [0, 1]; None where they do not exist."""

    auroc: float | None
    auroc_interval: Interval
    tpr: float | None
    tpr_interval: Interval


def auroc(scores: ArrayLike, harmful: ArrayLike) -> float | None:
    """Share of (harmful, safe) pairs ranked right, ties one half; None when one class is absent.

    Args:
        scores: (N,) higher is more harmful.
        harmful: (N,) the truth.

    Raises:
        InputError: unequal lengths, or a score that is not finite.
    """
    return _unweighted(scores, harmful, where="auroc")[0]


def tpr_at_fpr(scores: ArrayLike, harmful: ArrayLike) -> float | None:
    """Largest TPR with FPR at most ``MAX_FPR`` on these answers; None below ``MIN_NEGATIVES`` safe or without harmful.

    Raises:
        InputError: unequal lengths, or a score that is not finite.
    """
    return _unweighted(scores, harmful, where="tpr_at_fpr")[1]


def rank_by_seed(
    scores_N: Floats,
    harmful_N: Bools,
    *,
    cluster_codes: Ints,
    seed_codes: Ints,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[int | None, Ranked]:
    """Each training seed's ranking by its code, and under None their mean, which is missing where one of them is."""
    clusters, cluster_N = np.unique(cluster_codes, return_inverse=True)
    seeds, seed_N = np.unique(seed_codes, return_inverse=True)
    num_clusters, num_seeds = len(clusters), len(seeds)
    random = np.random.default_rng(seed)
    draws_RK = random.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
    draws_RS = random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples) / num_seeds
    parts = [np.flatnonzero(seed_N == code) for code in range(num_seeds)]
    values = np.array([_values(scores_N[part], harmful_N[part]) for part in parts])  # (S, 2), nan where undefined
    drawn = np.stack([_resampled(scores_N[p], harmful_N[p], draws_RK, cluster_N[p]) for p in parts], axis=1)
    counts = [_overlap(scores_N[p], harmful_N[p], cluster_N[p], num_clusters) for p in parts]  # each (8, K)
    one, several = Method.CLUSTER_BOOTSTRAP, Method.HIERARCHICAL_BOOTSTRAP
    pooled, method = (drawn * draws_RS[:, :, None]).sum(axis=1), several if num_seeds > 1 else one
    found: dict[int | None, Ranked] = {}
    found[None] = _ranked(values.mean(axis=0), pooled, np.logical_or.reduce(counts), method=method)
    for s, code in enumerate(seeds):
        found[int(code)] = _ranked(values[s], drawn[:, s], counts[s], method=one)
    return found


def _unweighted(scores: ArrayLike, harmful: ArrayLike, *, where: str) -> tuple[float | None, float | None]:
    scores_N, harmful_N = np.asarray(scores, dtype=np.float64), np.asarray(harmful, dtype=np.bool_)
    if scores_N.shape != harmful_N.shape or scores_N.ndim != 1 or not np.isfinite(scores_N).all():
        raise InputError("scores and truths that do not fit", where=where, fix="pass one finite score for each truth")
    values = _values(scores_N, harmful_N)
    return _or_none(values[0]), _or_none(values[1])


def _values(scores_N: Floats, harmful_N: Bools) -> Floats:
    values: Floats = _curve(scores_N, harmful_N, np.ones((1, len(scores_N))))[0]
    if (~harmful_N).sum() < MIN_NEGATIVES:
        values[1] = np.nan
    return values


def _resampled(scores_N: Floats, harmful_N: Bools, draws_RK: Ints, cluster_N: Ints) -> Floats:
    """(R, 2) AUROC and TPR of the answers weighted by how often their cluster was drawn."""
    rows = max(1, _CELLS_AT_ONCE // max(1, len(scores_N)))
    chunks = [draws_RK[start : start + rows, cluster_N] for start in range(0, len(draws_RK), rows)]
    return np.concatenate([_curve(scores_N, harmful_N, chunk.astype(np.float64)) for chunk in chunks])


def _curve(scores_N: Floats, harmful_N: Bools, weights_RN: Floats) -> Floats:
    """(R, 2) weighted AUROC and TPR at ``MAX_FPR``; nan where a class has no weight."""
    order_N = np.argsort(-scores_N, kind="stable")
    ends_G = np.flatnonzero(np.append(np.diff(scores_N[order_N]) != 0, True)) if len(order_N) else order_N
    sorted_RN, harmful_N = weights_RN[:, order_N], harmful_N[order_N]
    zeros_R1 = np.zeros((len(weights_RN), 1))
    hits_RG, alarms_RG = (
        np.hstack([zeros_R1, np.cumsum(sorted_RN * of_class_N, axis=1)[:, ends_G]])
        for of_class_N in (harmful_N, ~harmful_N)
    )
    harmful_R, safe_R = hits_RG[:, -1], alarms_RG[:, -1]
    area_R = (np.diff(alarms_RG, axis=1) * (hits_RG[:, :-1] + hits_RG[:, 1:])).sum(axis=1) / 2
    last_R = (alarms_RG <= MAX_FPR * safe_R[:, None] + 1e-9).sum(axis=1) - 1
    flagged_R = hits_RG[np.arange(len(hits_RG)), last_R]
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.stack([area_R / (harmful_R * safe_R), flagged_R / harmful_R], axis=1)
    rates[(harmful_R == 0) | (safe_R == 0)] = np.nan
    return np.asarray(rates)


def _overlap(scores_N: Floats, harmful_N: Bools, cluster_N: Ints, num_clusters: int) -> Bools:
    """(8, K) which clusters hold: a harmful answer, a safe one; and of each, one that is ranked wrong, one right;
    a harmful answer above and one below the TPR's threshold."""
    harmful, safe = scores_N[harmful_N], scores_N[~harmful_N]
    if not len(harmful) or not len(safe):
        return np.zeros((8, num_clusters), dtype=np.bool_)
    descending = np.sort(safe)[::-1]
    flagged_N = scores_N > descending[int(MAX_FPR * len(safe) + 1e-9)]
    kinds = (
        harmful_N,
        ~harmful_N,
        harmful_N & (scores_N <= safe.max()),
        ~harmful_N & (scores_N >= harmful.min()),
        harmful_N & (scores_N >= safe.min()),
        ~harmful_N & (scores_N <= harmful.max()),
        harmful_N & flagged_N,
        harmful_N & ~flagged_N,
    )
    return np.stack([np.bincount(cluster_N[kind], minlength=num_clusters) > 0 for kind in kinds])


def _ranked(values: Floats, drawn: Floats, kinds_K: Bools, *, method: Method) -> Ranked:
    harmful, safe, *ranked, flagged, missed = (int(count) for count in kinds_K.sum(axis=1))
    area, tpr = (_or_none(value) for value in values)
    around_area = percentile(drawn[:, 0], level=0.95, method=method)
    around_tpr = percentile(drawn[:, 1], level=0.95, method=method)
    if min(ranked) < MIN_INFORMATIVE_CLUSTERS:
        around_area = _on_clusters(area, min(harmful, safe))
    if min(flagged, missed) < MIN_INFORMATIVE_CLUSTERS:
        around_tpr = _on_clusters(tpr, harmful)
    if min(harmful, safe) < MIN_CLUSTERS:
        around_area = around_tpr = Interval(None, None, Method.TOO_FEW_CLUSTERS)
    nothing = Interval(None, None, Method.UNDEFINED)
    return Ranked(area, nothing if area is None else around_area, tpr, nothing if tpr is None else around_tpr)


def _on_clusters(value: float | None, num_clusters: int) -> Interval:
    """Wilson's interval, as if each cluster were one trial."""
    hits = min(value or 0.0, 1.0) * num_clusters
    return wilson(hits, num_clusters, method=Method.WILSON_CLUSTER_COUNT)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
