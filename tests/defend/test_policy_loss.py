"""The policy loss: by hand, equal to stock TRL's own code with its gradient, and the same however a batch is split."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trlkit import COMPLETION, WORDS, trainer_of

from videosafety.core.errors import InputError, VideoSafetyError
from videosafety.defend.policy_loss import BatchCounts, KlTerm, LossType, PolicyTerms, policy_loss

LOSS_TYPES: tuple[LossType, ...] = get_args(LossType)
LENGTHS = (4, 1, 0, 5, 2, 3)  # tokens of each completion: one is empty
MASK = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
COUNTS = BatchCounts(sequences=len(LENGTHS), tokens=sum(LENGTHS), max_new_tokens=8)


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Log-probs far enough apart that ratios are clipped on both sides."""
    generator = torch.Generator().manual_seed(seed)
    logp, old, ref = (-2 + 0.5 * torch.randn(MASK.shape, generator=generator) for _ in range(3))
    return {"logp": logp.requires_grad_(), "old": old, "ref": ref, "advantage": torch.randn(6, generator=generator)}


def loss_of(one: dict[str, Tensor], loss_type: LossType, rows: Sequence[int] = range(6), **given: Any) -> PolicyTerms:
    part = list(rows)
    logp, old, advantage, mask = one["logp"][part], one["old"][part], one["advantage"][part], MASK[part]
    given = {"counts": COUNTS, "ref_SC": one["ref"][part], "beta": 0.04, "loss_type": loss_type, **given}
    return policy_loss(logp, old, advantage, mask, **given)


def test_by_hand() -> None:
    # A 2, one token, ratio 1.5, clipped to 1.2: −min(3, 2.4) = −2.4. A −1, tokens of ratio 1.5 and 0.5, the second
    # clipped to 0.8: −min(−1.5, −1.2) = 1.5 and −min(−0.5, −0.8) = 0.8. The reference is half as likely as the policy:
    # KL = 0.5 + ln 2 − 1 = 0.193147 a token, times 0.1 = 0.0193147.
    ratio_SC = torch.tensor([[1.5, 1.0], [1.5, 0.5]])
    logp_SC, mask_SC = torch.full((2, 2), -1.0), torch.tensor([[1, 0], [1, 1]])
    given = {"counts": BatchCounts(2, 3, 4), "ref_SC": logp_SC - math.log(2), "beta": 0.1}
    expected = {
        "grpo": ((-2.4) + (1.5 + 0.8) / 2) / 2 + 0.0193147,
        "bnpo": (-2.4 + 1.5 + 0.8) / 3 + 0.0193147,
        "dapo": (-2.4 + 1.5 + 0.8) / 3 + 0.0193147,
        "dr_grpo": (-2.4 + 1.5 + 0.8 + 3 * 0.0193147) / (2 * 4),
    }
    for loss_type in LOSS_TYPES:
        terms = policy_loss(logp_SC, logp_SC - ratio_SC.log(), torch.tensor([2.0, -1.0]), mask_SC, loss_type=loss_type,
                            **given)  # type: ignore[arg-type]  # fmt: skip
        assert terms.loss.item() == pytest.approx(expected[loss_type], abs=1e-6)
        assert float(terms.kl_sum) == pytest.approx(3 * 0.193147, abs=1e-5)
        assert (int(terms.clipped_sum), int(terms.tokens)) == (2, 3), "1.5 above for A > 0, 0.5 below for A < 0"


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@settings(deadline=None, max_examples=20)
@given(cuts=st.sets(st.integers(1, 5)), order=st.permutations(range(6)))
def test_any_split_gives_the_same_loss_and_gradient(loss_type: LossType, cuts: set[int], order: list[int]) -> None:
    whole, parts = batch(), batch()
    expected = loss_of(whole, loss_type)
    expected.loss.backward()
    edges = [0, *sorted(cuts), 6]
    found = [loss_of(parts, loss_type, order[a:b]) for a, b in pairwise(edges)]
    for terms in found:
        terms.loss.backward()
    for values, value in zip(zip(*found, strict=True), expected, strict=True):
        assert torch.allclose(sum(values), value, atol=1e-6)
    assert whole["logp"].grad is not None
    assert torch.allclose(parts["logp"].grad, whole["logp"].grad, atol=1e-7)
    assert whole["logp"].grad[MASK].abs().max() > 0.01


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_an_empty_completion_is_zero_and_padding_is_never_read(loss_type: LossType) -> None:
    one = batch()
    dirty = {name: value if name == "advantage" else torch.where(MASK, value, torch.nan) for name, value in one.items()}
    found, expected = loss_of(dirty, loss_type), loss_of(one, loss_type)
    assert torch.equal(found.loss, expected.loss)
    found.loss.backward()
    assert torch.equal(one["logp"].grad, torch.where(MASK, one["logp"].grad, 0.0)), "no gradient into padding"
    alone = loss_of(one, loss_type, [2])
    assert [value.item() for value in alone] == [0, 0, 0, 0]
    nothing = loss_of(one, loss_type, [2], counts=BatchCounts(0, 0, 0))
    assert nothing.loss.item() == 0
    wide = policy_loss(torch.zeros(2, 0), torch.zeros(2, 0), torch.ones(2), torch.zeros(2, 0), counts=COUNTS, beta=0.0)
    assert wide.loss.item() == 0, "not one token in the whole part"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logp", "old", "ref", "advantage"])
def test_what_is_not_finite_stops_with_a_sentence(name: str, bad: float) -> None:
    one = {key: value.detach().clone() for key, value in batch().items()}
    one[name][(3, 4) if one[name].dim() == 2 else 3] = bad
    with pytest.raises(VideoSafetyError, match=r"sequence 3: 1 of \d+ .*s are not finite; lower learning_rate"):
        loss_of(one, "grpo")


def test_ratios_that_overflow_stop_with_a_sentence() -> None:
    one = batch()
    one["old"] = one["old"] - 1000
    with pytest.raises(VideoSafetyError, match="ratio"):
        loss_of(one, "grpo")
    one = batch()
    one["ref"] = one["ref"] + 1000
    with pytest.raises(VideoSafetyError, match="KL"):
        loss_of(one, "grpo")


def test_the_kl_term_needs_a_reference() -> None:
    with pytest.raises(InputError, match="needs a reference"):
        loss_of(batch(), "grpo", ref_SC=None)
    without = loss_of(batch(), "grpo", ref_SC=None, beta=0.0)
    assert without.loss.item() == pytest.approx(loss_of(batch(), "grpo", beta=0.0).loss.item())
    assert float(without.kl_sum) == 0 < float(loss_of(batch(), "grpo", beta=0.0).kl_sum), "measured where there is one"


def test_only_the_policy_has_a_gradient() -> None:
    one = {name: value.detach().clone().requires_grad_() for name, value in batch().items()}
    loss_of(one, "grpo").loss.backward()
    assert [name for name, value in one.items() if value.grad is not None] == ["logp"]


def test_low_precision_is_summed_in_fp32() -> None:
    one = batch()
    low = {name: value.detach().bfloat16() for name, value in one.items()}
    back = {name: value.float() for name, value in low.items()}
    assert loss_of(low, "grpo").loss.dtype is torch.float32
    assert loss_of(low, "grpo").loss.item() == pytest.approx(loss_of(back, "grpo").loss.item())


@pytest.mark.parametrize(("beta", "kl"), [(0.0, "k3"), (0.04, "k3"), (0.04, "unbiased")])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_equal_to_stock_trl(loss_type: LossType, beta: float, kl: KlTerm, tmp_path: Path) -> None:
    """TRL's own ``_compute_loss`` on the same tokens, with the gradient of every weight."""
    trainer = trainer_of(tmp_path, [lambda prompts, **_: [0.0] * len(prompts)], [{"prompt": "take"}],
                         loss_type=loss_type, epsilon=0.2, epsilon_high=0.28,
                         use_bias_correction_kl=kl == "unbiased")  # fmt: skip
    trainer.beta = beta  # given above, it would load a reference by the model's name
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.model.train()
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(COMPLETION) < torch.tensor([6, 1, 0, 4])[:, None]).long()  # one is empty
    ids = torch.randint(3, len(WORDS), (4, 3 + COMPLETION), generator=generator)
    attention = torch.cat([torch.ones(4, 3, dtype=torch.long), mask], dim=1)

    def logp() -> Tensor:
        found: Tensor = trainer._get_per_token_logps_and_entropies(model, ids, attention, COMPLETION)[0]
        return found

    old, ref = (logp().detach() + 0.4 * torch.randn(4, COMPLETION, generator=generator) for _ in range(2))
    advantage = torch.tensor([1.0, -0.7, 2.0, -1.5])
    inputs = {"prompt_ids": ids[:, :3], "prompt_mask": attention[:, :3], "completion_ids": ids[:, 3:],
              "completion_mask": mask, "advantages": advantage, "old_per_token_logps": old,
              "ref_per_token_logps": ref, "num_items_in_batch": mask.sum()}  # fmt: skip
    theirs = trainer._compute_loss(model, inputs)
    theirs.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    terms = policy_loss(logp(), old, advantage, mask, ref_SC=ref, beta=beta, epsilon_low=0.2, epsilon_high=0.28,
                        loss_type=loss_type, kl=kl, counts=BatchCounts(4, int(mask.sum()), COMPLETION))  # fmt: skip
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert expected
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-4
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-7), name
    logged = trainer._metrics["train"]
    assert float(terms.clipped_sum / terms.tokens) == pytest.approx(logged["clip_ratio/region_mean"][0]) != 0
    if beta:
        assert float(terms.kl_sum / terms.tokens) == pytest.approx(logged["kl"][0], rel=1e-5)
