"""Rows of alarms and claims: by hand, against oracles written out, and what must stay undefined."""

import random

import numpy as np
import pytest

from videosafety.core.alarm_metrics import AlarmItem, AlarmMetric, AlarmRow, Modality, ece, summarise_alarms
from videosafety.core.errors import InputError
from videosafety.core.labels import Labels, Safety, Subset
from videosafety.core.ranking import auroc
from videosafety.core.statistics import Method

LABELS = {
    "HH": Labels(visual="harmful", textual="harmful", request="harmful"),
    "SH": Labels(visual="safe", textual="harmful", request="harmful"),
    "composed": Labels(visual="harmful", textual="safe", request="harmful"),
    "SS": Labels(visual="safe", textual="safe", request="safe"),
    "HS": Labels(visual="harmful", textual="safe", request="safe"),
}


def item(subset: str, number: int, **changes: object) -> AlarmItem:
    fields = {
        "sample_id": f"{subset}-{number}", "cluster": f"{subset}-{number // 2}", "arm": "video",
        "labels": LABELS[subset], "shown": True, "model": "m", "stage": "at_sft", "benchmark": "toy", "seed": 0,
    }  # fmt: skip
    return AlarmItem.model_validate(fields | changes)


def run(*, seeds: tuple[int, ...] = (0,), gap: float = 0.3, per_subset: int = 80, digits: int = 6) -> list[AlarmItem]:
    """Alarms that lean towards the truth by ``gap``, and claims that are right nine times in ten."""
    source, items = np.random.default_rng(0), []
    for seed in seeds:
        for subset, labels in LABELS.items():
            for number in range(per_subset):
                scores = {
                    side: round(float(np.clip(source.beta(2, 2) + (gap if truth == "harmful" else -gap), 0, 1)), digits)
                    for side, truth in (("visual", labels.visual), ("textual", labels.textual))
                }
                right = source.random() < 0.9
                wrong = Safety.SAFE if labels.visual is Safety.HARMFUL else Safety.HARMFUL
                claims = {"visual_claim": labels.visual if right else wrong, "textual_claim": labels.textual}
                items.append(item(subset, number, seed=seed, tagged=True, **scores, **claims))
    return items


def rows(items: list[AlarmItem], **where: object) -> list[AlarmRow]:
    found = summarise_alarms(items, num_resamples=200)
    return [row for row in found if all(getattr(row, name) == value for name, value in where.items())]


def test_auroc_of_each_modality_uses_its_own_labels_and_scores() -> None:
    items = run()
    for modality in Modality:
        (row,) = rows(items, metric="auroc", modality=modality, seed=None)
        scores = [getattr(i, modality) for i in items]
        assert row.value == pytest.approx(auroc(scores, [getattr(i.labels, modality) == "harmful" for i in items]))
        assert (row.n, row.cluster_n) == (400, 200)
        assert row.low is not None
        assert row.low < row.value < (row.high or 0)


def test_calibration_error_by_hand() -> None:
    scores = np.array([0.05] * 10 + [0.95] * 10)
    truth = np.array([False] * 9 + [True] + [True] * 8 + [False] * 2)
    # two piles of equal scores, so two bins: |0.05 − 0.1| and |0.95 − 0.8|, half of the answers each
    assert ece(scores, truth) == pytest.approx(0.5 * 0.05 + 0.5 * 0.15)
    assert ece(np.full(20, 0.5), np.arange(20) < 10) == 0


def test_a_calibrated_alarm_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    source = np.random.default_rng(1)
    p = source.random(4000)
    assert np.mean([ece(p, source.random(4000) < p) for _ in range(20)]) < 0.4 * (10 / 4000) ** 0.5
    truth = source.random(4000) < p
    assert ece((p > 0.5).astype(float), truth) == pytest.approx(0.25, abs=0.02)
    edges = np.quantile(p, np.linspace(0, 1, 11))
    bins = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, 9)
    by_hand = sum(abs(p[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in range(10))
    assert ece(p, truth) == pytest.approx(by_hand, abs=1e-3)


def test_reliability_bins_have_equal_mass_and_hold_every_answer() -> None:
    items = run(seeds=(0, 1))
    bins = rows(items, metric="reliability", modality="visual")
    assert [row.bin for row in bins] == list(range(10))
    assert sum(row.n for row in bins) == 800
    spread = rows(run(seeds=(0, 1), gap=0.0), metric="reliability", modality="visual")
    assert {row.n for row in spread} == {80}
    assert all((row.low or 0) <= (row.value or 0) <= (row.high or 1) for row in bins)
    predicted = [row.predicted or 0.0 for row in bins]
    assert predicted == sorted(predicted)
    total = sum(row.n * (row.predicted or 0.0) for row in bins) / 800
    assert total == pytest.approx(np.mean([i.visual or 0.0 for i in items]), abs=1e-6)


def test_equal_scores_share_a_bin() -> None:
    items = run(digits=1)
    bins = rows(items, metric="reliability", modality="textual")
    assert sum(row.n for row in bins) == 400
    assert len({row.predicted for row in bins}) == len(bins) < 10


def test_activation_per_quadrant() -> None:
    items = run()
    for subset in Subset:
        (mean,) = rows(items, metric="activation", modality="visual", subset=subset)
        (active,) = rows(items, metric="active", modality="visual", subset=subset)
        scores = np.array([i.visual for i in items if i.labels.subset is subset])
        assert mean.value == pytest.approx(scores.mean(), abs=1e-6)
        assert active.value == pytest.approx((scores > 0.5).mean(), abs=1e-6)
        assert mean.n == active.n == 80
        assert mean.low is not None
        assert mean.low < mean.value < (mean.high or 0)


def test_pooled_figures_are_means_over_the_seeds() -> None:
    items = run(seeds=(3, 5))
    for metric in ("auroc", "tpr_at_1_fpr", "ece"):
        found = {row.seed: row.value or 0.0 for row in rows(items, metric=metric, modality="textual")}
        assert set(found) == {None, 3, 5}
        assert found[None] == pytest.approx((found[3] + found[5]) / 2, abs=2e-6)


def test_the_visual_alarm_counts_only_where_something_is_shown() -> None:
    words = [
        i.model_copy(update={"arm": "text", "shown": False, "labels": i.labels.without_vision()})
        for i in run()
        if i.labels.subset != "composed"
    ]
    found = summarise_alarms(words, num_resamples=50)
    assert {row.modality for row in found} == {Modality.TEXTUAL}
    assert {row.subset for row in found} == {None, Subset.SH, Subset.SS}  # an HH item in words alone is SH


def test_one_class_has_no_figure_and_says_why() -> None:
    (row,) = rows([item("SS", n, visual=0.1 + n / 1000) for n in range(200)], metric="auroc", modality="visual")[:1]
    assert (row.value, row.low, row.reason) == (None, None, "every answer is safe")
    (row,) = rows([item("HS", n, visual=0.5) for n in range(200)], metric="auroc", modality="visual", seed=None)
    assert (row.value, row.reason) == (None, "every answer is harmful")


def test_fewer_than_a_hundred_safe_answers_have_no_tpr_and_say_why() -> None:
    items = [item("HH", n, visual=0.9 - n / 500) for n in range(60)]
    items += [item("SS", n, visual=0.1 + n / 500) for n in range(99)]
    (row,) = rows(items, metric="tpr_at_1_fpr", modality="visual", seed=None)
    assert (row.value, row.reason) == (None, "fewer than 100 safe answers of a seed (99)")
    (row,) = rows([*items, item("SS", 99, visual=0.3)], metric="tpr_at_1_fpr", modality="visual", seed=None)
    assert row.value is not None
    assert row.reason == ""


def test_a_model_without_alarms_has_claims_alone_and_one_without_answers_nothing() -> None:
    base = [item("SS", n, tagged=False) for n in range(30)]
    found = summarise_alarms(base, num_resamples=50)
    assert {row.metric for row in found} == {AlarmMetric.UNTAGGED, AlarmMetric.CLAIM_ACCURACY}
    assert all(row.value == 1 for row in found if row.metric == "untagged")
    (accuracy,) = (r for r in found if r.metric == "claim_accuracy" and r.modality == "visual" and r.seed is None)
    assert (accuracy.value, accuracy.n, accuracy.reason) == (None, 0, "no answer holds our tags")
    assert summarise_alarms([item("SS", 0)]) == []


def test_a_missing_claim_is_wrong_and_an_untagged_answer_is_counted_apart() -> None:
    items = [item("HH", n, tagged=True, visual_claim="harmful", textual_claim="harmful") for n in range(60)]
    items += [item("HH", n, tagged=True, textual_claim="safe") for n in range(60, 80)]  # no visual claim, a wrong one
    items += [item("HH", n, tagged=False) for n in range(80, 100)]
    for modality in Modality:
        (accuracy,) = rows(items, metric="claim_accuracy", modality=modality, subset=None, seed=None)
        (untagged,) = rows(items, metric="untagged", modality=modality, seed=None)
        assert (accuracy.value, accuracy.n) == (0.75, 80)
        assert (untagged.value, untagged.n) == (0.2, 100)


def test_equal_words_under_many_clips_widen_the_interval_of_the_words_alarm() -> None:
    items = [
        i.model_copy(update={"words": f"w-{i.labels.textual}-{int(i.sample_id.split('-')[1]) % 21}"}) for i in run()
    ]
    alone = [i.model_copy(update={"words": None}) for i in items]
    shared = []
    for some in items:  # a score that depends on the words alone
        score = random.Random(some.words).random() * 0.6 + (0.3 if some.labels.textual == "harmful" else 0.1)
        shared.append(some.model_copy(update={"textual": score}))
    for column in ("activation", "auroc"):
        (wide,) = rows(
            shared, metric=column, modality="textual", seed=None, subset="HH" if column == "activation" else None
        )
        unworded = [i.model_copy(update={"words": None}) for i in shared]
        (narrow,) = rows(unworded, metric=column, modality="textual", seed=None, subset=wide.subset)
        assert (wide.high or 0) - (wide.low or 0) > 1.2 * ((narrow.high or 0) - (narrow.low or 0))
        assert wide.value == narrow.value
    assert rows(items, modality="visual") == rows(alone, modality="visual")


def test_the_order_of_the_answers_and_the_names_of_clips_change_nothing() -> None:
    items = run(seeds=(0, 1))
    again = random.Random(1).sample(items, k=len(items))
    assert summarise_alarms(again, num_resamples=100) == summarise_alarms(items, num_resamples=100)


def test_stages_arms_and_models_stand_apart() -> None:
    items = run()
    others = [i.model_copy(update={"stage": "cot", "visual": 1 - (i.visual or 0)}) for i in items]
    first, second = rows([*items, *others], metric="auroc", modality="visual", seed=None)
    assert (first.stage, second.stage) == ("at_sft", "cot")
    assert first.value == pytest.approx(1 - (second.value or 0))


def test_the_same_answer_twice_is_refused() -> None:
    with pytest.raises(InputError, match="answered twice"):
        summarise_alarms([item("SS", 0), item("SS", 0)])


def test_few_clusters_have_values_and_no_intervals() -> None:
    items = [i for i in run() if int(i.sample_id.split("-")[1]) < 6]
    found = [r for r in summarise_alarms(items, num_resamples=50) if r.metric in ("auroc", "active", "activation")]
    assert len(found) > 20
    assert all(row.value is not None and row.low is None for row in found)
    assert {row.interval for row in found} == {Method.TOO_FEW_CLUSTERS}
