"""Paired comparison of variants: known values, coverage and false claims by simulation, planted differences found."""

import random
from itertools import product

import numpy as np
import pytest
from scipy import stats

from videosafety.core import ablation
from videosafety.core.ablation import HELPFUL, Target, Verdict, by_model, compare, non_inferiority
from videosafety.core.errors import InputError
from videosafety.core.records import Outcome
from videosafety.core.scored import ScoredItem

DSR = Target("dsr", Outcome.DEFENDED, "HH", "video")
FRR = Target("frr", Outcome.OVER_REFUSED, "SafeQ", "video", more_is_better=False)


def item(stage: str, hit: bool, *, cluster: int, number: int = 0, seed: int = 0, **changes: object) -> ScoredItem:
    fields = {
        "sample_id": f"i-{cluster}-{number}", "cluster": f"c-{cluster}", "subset": "HH", "arm": "video",
        "arm_request": "harmful", "language": "en", "category": None, "judge": "oracle",
        "outcome": "defended" if hit else "compromised", "model": "m", "stage": stage, "benchmark": "toy", "seed": seed,
    }  # fmt: skip
    return ScoredItem.model_validate(fields | changes)


def safe(stage: str, hit: bool, *, miss: str = "wrong", **changes: object) -> ScoredItem:
    outcome = "helpful" if hit else miss
    about = {"subset": "SS", "arm_request": "safe", "outcome": outcome}
    return item(stage, hit, **(about | changes))  # type: ignore[arg-type]


def runs(
    source: np.random.Generator, *, num_seeds: int = 5, num_clusters: int = 40, lift: float = 0.0, spread: float = 0.0
) -> list[ScoredItem]:
    """Two stages over the same clips; ``lift`` and, per training run, ``spread`` on the logit of the rate."""
    easy, items = source.normal(0, 1, size=num_clusters), []
    for seed, stage in product(range(num_seeds), ("ref", "var")):
        of_run = source.normal(0, spread) + (lift if stage == "var" else 0.0)
        rate_K = 1 / (1 + np.exp(-(easy + of_run)))
        for cluster, number in product(range(num_clusters), range(2)):
            items.append(item(stage, source.random() < rate_K[cluster], cluster=cluster, number=number, seed=seed))
    return items


def test_the_row_holds_the_shares_the_pairs_and_the_textbook_statistic() -> None:
    (row,) = compare(items := runs(np.random.default_rng(1), lift=0.5, spread=0.3), reference="ref", targets=[DSR])
    shares = {s: np.mean([i.outcome == "defended" for i in items if i.stage == s]) for s in ("ref", "var")}
    assert (row.value, row.reference_value) == pytest.approx((shares["var"], shares["ref"]), abs=1e-6)
    assert (row.n, row.cluster_n, row.num_seeds, row.interval) == (400, 40, 5, "crossed")
    signed = {"var": 1, "ref": -1}
    lead_KS = np.zeros((40, 5))
    for i in items:
        lead_KS[int(i.cluster[2:]), i.seed or 0] += signed[i.stage or ""] * (i.outcome == "defended") / 2
    by_seed, by_cluster = stats.sem(lead_KS.mean(axis=0)) ** 2, stats.sem(lead_KS.mean(axis=1)) ** 2
    degrees = (by_seed + by_cluster) ** 2 / (by_seed**2 / 4 + by_cluster**2 / 39)
    expected = stats.t.interval(0.95, degrees, loc=lead_KS.mean(), scale=(by_seed + by_cluster) ** 0.5)
    assert (row.low, row.high) == pytest.approx(expected, abs=2e-6)
    assert row.p == pytest.approx(2 * stats.t.sf(lead_KS.mean() / (by_seed + by_cluster) ** 0.5, degrees), abs=2e-6)
    flips = [abs(np.dot(signs, lead_KS.sum(axis=0))) for signs in product((1, -1), repeat=5)]
    assert row.p_flip == pytest.approx(np.mean(np.array(flips) >= abs(lead_KS.sum()) - 1e-9))


def test_without_seed_noise_the_interval_is_close_to_the_paired_t_of_the_clusters() -> None:
    items = runs(np.random.default_rng(4), num_seeds=1, lift=0.5)
    (row,) = compare(items, reference="ref", targets=[DSR])
    lead = np.zeros(40)
    for i in items:
        lead[int(i.cluster[2:])] += (1 if i.stage == "var" else -1) * (i.outcome == "defended") / 2
    expected = stats.ttest_1samp(lead, 0).confidence_interval()
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=2e-6)


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_the_interval_covers_and_training_noise_is_no_finding(spread: float) -> None:
    source, covered, claimed = np.random.default_rng(7), 0, 0
    for _ in range(80):
        (row,) = compare(runs(source, spread=spread), reference="ref", targets=[DSR])
        assert row.low is not None
        assert row.high is not None
        covered += row.low <= 0 <= row.high
        claimed += row.verdict is not Verdict.NOT_DISTINGUISHABLE
    assert covered >= 71  # 0.95 · 80 = 76; below 71 with p < 0.02
    assert claimed <= 9


def test_a_planted_difference_is_found_with_its_direction() -> None:
    source = np.random.default_rng(2)
    (up,) = compare(runs(source, lift=1.5, spread=0.2), reference="ref", targets=[DSR])
    (down,) = compare(runs(source, lift=-1.5, spread=0.2), reference="ref", targets=[DSR])
    assert (up.verdict, down.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert up.difference > 0 > down.difference


def test_more_refusal_of_harmless_questions_is_worse() -> None:
    items = []
    for seed, cluster in product(range(5), range(40)):
        items.append(safe("ref", cluster % 10 != 0, miss="over_refused", cluster=cluster, seed=seed))
        items.append(safe("var", (cluster + seed) % 2 == 0, miss="over_refused", cluster=cluster, seed=seed))
    (row,) = compare(items, reference="ref", targets=[FRR])
    assert row.difference > 0
    assert row.verdict is Verdict.WORSE


def test_holm_runs_over_all_rows_and_keeps_weak_rows_undecided() -> None:
    source = np.random.default_rng(3)
    strong = runs(source, lift=2.0)
    for _ in range(60):  # a variant that one test alone would call different
        weak = [i.model_copy(update={"stage": "weak"}) for i in runs(source, lift=0.35) if i.stage == "var"]
        extra = [i.model_copy(update={"stage": "other"}) for i in runs(source) if i.stage == "var"]
        rows = {row.variant: row for row in compare([*strong, *weak, *extra], reference="ref", targets=[DSR])}
        p = {name: row.p or 0.0 for name, row in rows.items()}
        if 0.025 < p["weak"] < 0.05 < p["other"]:
            break
    else:
        pytest.fail("no weak variant was drawn")
    assert rows["weak"].p_holm == pytest.approx(2 * p["weak"], abs=2e-6)
    assert rows["var"].p_holm == pytest.approx(3 * p["var"], abs=5e-6)
    assert rows["weak"].verdict is Verdict.NOT_DISTINGUISHABLE
    again = [i.model_copy(update={"benchmark": "toy:held_out"}) for i in (*strong, *weak, *extra)]
    both = compare([*strong, *weak, *extra, *again], reference="ref", targets=[DSR])
    assert [row.p_holm for row in both if row.benchmark == "toy" and row.variant == "weak"] == [rows["weak"].p_holm]
    assert rows["var"].verdict is Verdict.BETTER


def test_fewer_than_five_seeds_give_no_p_and_an_interval_within_the_seeds() -> None:
    (row,) = compare(runs(np.random.default_rng(5), num_seeds=4, lift=2.0), reference="ref", targets=[DSR])
    assert (row.p, row.p_holm, row.p_flip, row.interval) == (None, None, None, "within_seeds")
    assert row.low is not None
    assert row.low > 0
    assert row.verdict is Verdict.TOO_FEW_SEEDS


def test_with_five_seeds_the_exact_flip_of_seeds_stops_at_one_sixteenth() -> None:
    (row,) = compare(runs(np.random.default_rng(6), lift=3.0), reference="ref", targets=[DSR])
    assert row.p_flip == pytest.approx(2 / 32)
    assert row.p is not None
    assert row.p < 0.001


def test_always_against_never_and_always_against_always_keep_an_honest_interval() -> None:
    cells = list(product(range(5), range(60)))
    never = [item("ref", False, cluster=c, seed=s) for s, c in cells]
    always = [item("var", True, cluster=c, seed=s) for s, c in cells]
    (row,) = compare([*never, *always], reference="ref", targets=[DSR])
    # Wilson on 60 clusters: 60 / (60 + 1.96²) = 0.93982 at least, on either side.
    assert (row.low, row.high) == pytest.approx((1 - 2**0.5 * 0.06017, 1.0), abs=1e-4)
    assert row.verdict is Verdict.BETTER
    (same,) = compare([*always, *[i.model_copy(update={"stage": "ref"}) for i in always]], reference="ref",
                      targets=[DSR])  # fmt: skip
    assert (same.low, same.high) == pytest.approx((-0.06018, 0.06018), abs=1e-4)
    assert (same.p, same.verdict) == (1.0, Verdict.NOT_DISTINGUISHABLE)


def test_few_clusters_give_no_interval_and_no_claim() -> None:
    (row,) = compare(runs(np.random.default_rng(5), num_clusters=19, lift=3), reference="ref", targets=[DSR])
    assert (row.low, row.high, row.p) == (None, None, None)
    assert row.verdict is Verdict.TOO_FEW_CLUSTERS


def test_pairs_need_the_same_seed_item_and_arm_and_unscored_ones_are_counted() -> None:
    items = [item(s, True, cluster=c, seed=0) for s in ("ref", "var") for c in range(30)]
    items += [item("var", False, cluster=c, seed=1) for c in range(30)]  # the reference has no seed 1
    items += [item("var", False, cluster=c, seed=0, arm="text") for c in range(30)]
    items[0] = items[0].model_copy(update={"outcome": Outcome.UNSCORED, "reason": "judge:timeout"})
    (row,) = compare(items, reference="ref", targets=[DSR])
    assert (row.n, row.num_seeds, row.unscored, row.value) == (29, 1, 1, 1.0)


def test_equal_words_under_many_clips_are_one_question() -> None:
    target = DSR._replace(arm="text")
    items = []
    for i in runs(np.random.default_rng(8), lift=0.5):
        words = f"words-{int(i.cluster[2:]) % 22}"
        items.append(i.model_copy(update={"arm": "text", "words": words}))
    (by_words,) = compare(items, reference="ref", targets=[target])
    (by_clip,) = compare([i.model_copy(update={"words": None}) for i in items], reference="ref", targets=[target])
    assert by_clip.cluster_n == 40
    assert by_words.p is not None
    assert by_clip.p is not None
    assert by_words.p >= by_clip.p
    assert (by_words.high or 0) - (by_words.low or 0) >= (by_clip.high or 0) - (by_clip.low or 0)


def test_the_order_of_the_answers_changes_nothing() -> None:
    items = runs(np.random.default_rng(9), lift=0.5, spread=0.2)
    again = random.Random(0).sample(items, k=len(items))
    assert compare(again, reference="ref") == compare(items, reference="ref")


def test_variants_can_be_told_apart_by_model() -> None:
    items = [i.model_copy(update={"model": i.stage, "stage": "cot"}) for i in runs(np.random.default_rng(1))]
    (row,) = compare(items, reference="ref", key=by_model, targets=[DSR])
    assert (row.variant, row.reference) == ("var", "ref")


def ability(*, lost: float, num_clusters: int = 200, num_seeds: int = 5) -> list[ScoredItem]:
    """HELPFUL at 95 % before, and ``lost`` less after, over clips."""
    source, items = np.random.default_rng(11), []
    for cluster in range(num_clusters):
        for number, seed in product(range(10), range(num_seeds)):
            before = source.random() < 0.95
            items.append(safe("base", before, cluster=cluster, number=number, seed=seed))
            after = before and source.random() >= lost
            items.append(safe("cot", after, cluster=cluster, number=number, seed=seed))
    return items


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [(0.0, Verdict.NON_INFERIOR), (0.002, Verdict.NON_INFERIOR), (0.02, Verdict.NOT_SHOWN), (0.1, Verdict.INFERIOR)],
)
def test_non_inferiority_is_judged_by_the_interval(lost: float, verdict: Verdict) -> None:
    (row,) = non_inferiority(ability(lost=lost))
    assert (row.variant, row.reference, row.metric, row.subset) == ("cot", "base", "helpful", "SafeQ")
    assert row.verdict is verdict
    assert (row.p, row.p_holm) == (None, None)


def test_non_inferiority_of_one_run_says_that_it_is_one_run() -> None:
    (row,) = non_inferiority(ability(lost=0.0, num_seeds=1))
    assert (row.interval, row.verdict) == ("within_seeds", Verdict.NON_INFERIOR)
    (small,) = non_inferiority(ability(lost=0.0, num_clusters=30))
    assert small.verdict is Verdict.NOT_SHOWN  # 30 clips without a loss cannot exclude two points
    (tiny,) = non_inferiority(ability(lost=0.0, num_clusters=10))
    assert tiny.verdict is Verdict.TOO_FEW_CLUSTERS


def test_wrong_input_is_refused() -> None:
    items = [item(s, True, cluster=c) for s in ("ref", "var") for c in range(30)]
    with pytest.raises(InputError, match="no answers of 'reff'; did you mean 'ref'"):
        compare(items, reference="reff")
    with pytest.raises(InputError, match="answered twice"):
        compare([*items, items[0]], reference="ref")
    with pytest.raises(InputError, match="more is better"):
        non_inferiority(items, base="ref", target=FRR)
    with pytest.raises(InputError, match="margin of 0"):
        non_inferiority(items, base="ref", target=HELPFUL, margin=0)
    assert ablation.compare(items, reference="ref", targets=[FRR]) == []
