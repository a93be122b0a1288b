"""The losses: what is summed, what divides it, what is masked; the same however a batch is cut."""

import math

import pytest
import torch
from stagekit import batch_of, difference, gradients, quick, ready

from videosafety.defend.losses import Counts, Sums, alarm_loss, answer_loss, total

NAN = math.nan


def test_the_loss_is_two_means_over_the_global_batch():
    sums = Sums(torch.tensor(6.0), torch.tensor(4.0), torch.tensor(1.0))
    counts = Counts(3.0, 2.0, 4.0)
    assert float(total(sums, counts, lambda_visual=0.1, lambda_textual=0.2, scaling="paper")) == pytest.approx(
        6 / 3 + 0.1 * 4 / 2 + 0.2 * 1 / 4
    )
    assert float(total(sums, counts, lambda_visual=0.1, lambda_textual=0.2, scaling="released")) == pytest.approx(
        6 / 3 + 0.1 * 4 / 3 + 0.2 * 1 / 3
    )


def test_parts_of_a_batch_add_up_to_the_whole():
    parts = [Sums(*torch.tensor([2.0, 3.0, 0.5])), Sums(*torch.tensor([1.0, 0.0, 4.0]))]
    whole = Sums(*(a + b for a, b in zip(*parts, strict=True)))
    knobs = {"lambda_visual": 0.1, "lambda_textual": 0.3, "scaling": "paper"}
    counts = Counts(5.0, 2.0, 3.0)
    assert float(sum(total(part, counts, **knobs) for part in parts)) == pytest.approx(
        float(total(whole, counts, **knobs))
    )


@pytest.mark.parametrize("scaling", ["paper", "released"])
def test_nothing_to_learn_is_a_loss_of_zero(scaling):
    nothing = Sums(*torch.zeros(3))
    loss = total(nothing, Counts(0.0, 0.0, 0.0), lambda_visual=0.1, lambda_textual=0.1, scaling=scaling)
    assert float(loss) == 0.0


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9, 21])
def test_chunked_logits_change_neither_loss_nor_gradient(num):
    generator = torch.Generator().manual_seed(num)
    head = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 11, (num,), generator=generator)
    found = []
    for chunk in (8, 10_000):
        weight = head.clone().requires_grad_(True)
        hidden = torch.randn(num, 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
        hidden.requires_grad_(True)
        held = []

        def logits_of(rows, weight=weight, held=held):
            held.append(len(rows))
            return rows @ weight.T

        loss = answer_loss(logits_of, hidden, targets, chunk=chunk)
        loss.backward()
        assert max(held) <= chunk
        found.append((loss.detach().double(), hidden.grad, weight.grad))
    for chunked, whole in zip(*found, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)


def test_a_masked_target_adds_nothing_to_the_loss_or_to_any_gradient():
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5], [NAN, 0.1]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [NAN, NAN], [1.0, 0.0]])
    visual, textual = alarm_loss(logits, targets)
    assert float(visual.detach()) == pytest.approx(math.log1p(math.exp(-0.3)))
    assert float(textual.detach()) == pytest.approx(math.log1p(math.exp(0.1)))
    (visual + textual).backward()
    assert logits.grad[0, 1] == logits.grad[1, 0] == logits.grad[1, 1] == logits.grad[2, 0] == 0.0
    assert logits.grad[0, 0] != 0
    assert logits.grad[2, 1] != 0


def test_the_alarm_loss_is_summed_in_fp32_whatever_comes_in():
    logits, targets = torch.zeros(3, 2, dtype=torch.bfloat16), torch.ones(3, 2, dtype=torch.bfloat16)
    for one in alarm_loss(logits, targets):
        assert one.dtype is torch.float32
        assert float(one) == pytest.approx(3 * math.log(2), rel=1e-6)


def doubled(example):
    """The same row with twice as much to say."""
    return example.model_copy(update={"answer": f"{example.answer} {example.answer}"})


@pytest.mark.parametrize(("scaling", "same"), [("paper", True), ("released", False)])
def test_a_longer_answer_weakens_the_alarm_gradient_in_the_released_scaling_only(base, clips, scaling, same):
    config = quick(atc_scaling=scaling)
    made = ready(base, config)
    rows = clips[:3]
    short, long = (
        gradients(made, [batch_of(made, some)], config)["wrapped.head_weight_AH"]
        for some in (rows, [doubled(row) for row in rows])
    )
    ratio = float(long.norm() / short.norm())
    torch.testing.assert_close(long, short * ratio, rtol=1e-4, atol=1e-7)  # only its size may differ
    assert ratio == pytest.approx(1.0, abs=1e-5) if same else 0.3 < ratio < 0.7


def test_one_batch_of_eight_is_eight_batches_of_one(base, examples):
    config = quick()
    made = ready(base, config)
    rows = examples[:4] + examples[-4:]  # with clips and without, labelled and not
    assert {bool(row.media) for row in rows} == {row.visual is None for row in rows} == {True, False}
    whole = gradients(made, [batch_of(made, rows)], config)
    single = gradients(made, [batch_of(made, [row]) for row in rows], config)
    uneven = gradients(made, [batch_of(made, rows[:5]), batch_of(made, rows[5:])], config)
    assert difference(whole, single) < 1e-5
    assert difference(whole, uneven) < 1e-5


def test_a_batch_without_labels_moves_no_head(base, examples):
    config = quick()
    made = ready(base, config)
    unlabelled = [row for row in examples if row.visual is None][:2]
    found = gradients(made, [batch_of(made, unlabelled)], config)
    assert not found["wrapped.head_weight_AH"].any()
    assert not found["wrapped.head_bias_A"].any()
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["wrapped.rows_AH"].any()  # the answers still reach the alarms' input vectors


def test_words_alone_teach_the_textual_alarm_and_not_the_visual_one(base, examples):
    config = quick()
    made = ready(base, config)
    words = [row for row in examples if not row.media and row.textual is not None][:1]
    found = gradients(made, [batch_of(made, words)], config)["wrapped.head_weight_AH"]
    assert not found[0].any()
    assert found[1].any()
