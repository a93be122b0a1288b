"""A prompt shared by its completions gives what separate sequences give, in hidden states, log-probs and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from alarmkit import batch_of, mixed
from rolloutkit import padded, shared, with_alarms
from tinyfamilies import FAMILY_NAMES
from torch import Tensor

from videosafety.models.checkpoint import Checkpoint
from videosafety.models.family import collate
from videosafety.models.logprobs import Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.shared_prefix import naive_hidden, shared_hidden, shared_prefix_attention, why_not
from videosafety.models.wrapped import AlarmModel

SAID = ["A dax.", "No, that is not allowed at all.", "Yes"]


def completions(checkpoint: Checkpoint) -> list[list[list[int]]]:
    """(B, G) answers as the family encodes them, each prompt's in another order."""
    told = []
    for i, conversation in enumerate(mixed()):
        rows = [checkpoint.family.encode(checkpoint.processor, conversation, target=t) for t in SAID[i % 3 :] + SAID]
        told.append([row.input_ids[-row.num_target :].tolist() for row in rows[:3]])
    return told


def stock_hidden(checkpoint: Checkpoint, ids_BGC: Tensor, real_BGC: Tensor) -> Tensor:
    """(N, H) from the family's own forward pass over each whole sequence: no positions, nothing shared, pixels in."""
    found = []
    for conversation, ids_GC, real_GC in zip(mixed(), ids_BGC, real_BGC, strict=True):
        for ids_C, real_C in zip(ids_GC, real_GC, strict=True):
            prompt = checkpoint.family.encode(checkpoint.processor, conversation)
            said = ids_C[real_C]
            batch = collate([prompt], pad_token_id=0, side="right")
            batch.pop("labels")
            for name in ("input_ids", "attention_mask", *prompt.per_token):
                more = said if name == "input_ids" else torch.full_like(said, int(name == "attention_mask"))
                batch[name] = torch.cat([batch[name], more[None]], dim=1)
            hidden_1TH = checkpoint.model.base_model(**batch, use_cache=False).last_hidden_state
            found.append(hidden_1TH[0, -len(said) - 1 : -1])
    return torch.cat(found)


def gradient(checkpoint: Checkpoint, wrapped: AlarmModel, loss: Tensor) -> Tensor:
    """The decoder's and the alarms' gradients in a row."""
    wrapped.zero_grad()
    loss.backward()
    own = [*checkpoint.family.language_model(checkpoint.model).parameters(), wrapped.rows_AH]
    found = torch.cat([p.grad.flatten() for p in own if p.grad is not None])
    wrapped.zero_grad()
    return found


@contextmanager
def checkpointing(checkpoint: Checkpoint, on: bool) -> Iterator[None]:
    """Gradient checkpointing as training has it."""
    if not on:
        yield
        return
    checkpoint.model.activation_checkpointing_enable({"use_reentrant": False})
    checkpoint.model.train()
    try:
        yield
    finally:
        checkpoint.model.activation_checkpointing_disable()
        checkpoint.model.eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_shared_is_naive_is_stock(name: str, attention: str) -> None:
    checkpoint, wrapped = with_alarms(name, attention)
    assert why_not(checkpoint.family.language_model(checkpoint.model)) is None
    ids_BGC, real_BGC = padded(completions(checkpoint))
    head = Head(wrapped, never=[3, 5], temperature=0.7)
    weight_N = torch.linspace(-1.0, 2.0, int(real_BGC.sum()))

    def outcome(hidden_NH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logp_N, _ = token_logprobs(head, hidden_NH, ids_BGC[real_BGC], chunk=16)
        return hidden_NH.detach(), logp_N.detach(), gradient(checkpoint, wrapped, (logp_N * weight_N).sum())

    hidden_NH, logp_N, gradient_all = outcome(stock_hidden(checkpoint, ids_BGC, real_BGC))
    prefix = Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()))
    others = [outcome(naive_hidden(checkpoint.model, prefix, ids_BGC)[1][real_BGC])]
    for on in (False, True):
        with checkpointing(checkpoint, on):
            others.append(outcome(shared(checkpoint, prefix, ids_BGC)[1][real_BGC]))
    for other_hidden_NH, other_logp_N, other_gradient in others:
        torch.testing.assert_close(other_hidden_NH, hidden_NH, atol=1e-5, rtol=0)
        torch.testing.assert_close(other_logp_N, logp_N, atol=1e-5, rtol=0)
        assert (other_gradient - gradient_all).norm() < 1e-5 * gradient_all.norm()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_nobody_sees_another_completion_nor_padding(name: str, attention: str) -> None:
    checkpoint, _ = with_alarms(name, attention)
    prefix = Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()))
    ids_BGC, real_BGC = padded(completions(checkpoint))
    changed_BGC = torch.where(real_BGC, ids_BGC, 11)
    changed_BGC[2, 1, 0] += 1
    with torch.no_grad():
        prompt_BPH, hidden_BGCH = shared(checkpoint, prefix, ids_BGC)
        other_BPH, other_BGCH = shared(checkpoint, prefix, changed_BGC)
    same_BGC = real_BGC.clone()
    same_BGC[2, 1] = False
    same_BGC[:, :, 0] = True
    torch.testing.assert_close(other_BGCH[same_BGC], hidden_BGCH[same_BGC], atol=1e-6, rtol=0)
    torch.testing.assert_close(other_BPH, prompt_BPH, atol=1e-6, rtol=0)
    assert (other_BGCH[2, 1, 1] - hidden_BGCH[2, 1, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_what_is_no_shared_prefix_is_computed_as_before(attention: str) -> None:
    checkpoint, wrapped = with_alarms("smolvlm2", attention)
    batch = batch_of(checkpoint, mixed())
    config = checkpoint.family.language_model(checkpoint.model).config
    with torch.no_grad():
        before_BTH = wrapped(batch)
        with shared_prefix_attention(checkpoint.family.language_model(checkpoint.model)):
            inside_BTH = wrapped(batch)
            assert config._attn_implementation != attention
    real_BT = batch["attention_mask"].bool()
    torch.testing.assert_close(inside_BTH[real_BT], before_BTH[real_BT], atol=1e-5, rtol=0)
    assert config._attn_implementation == attention


def test_the_kind_of_attention_comes_back_after_a_failure() -> None:
    checkpoint, _ = with_alarms("qwen2_5_vl", "eager")
    language = checkpoint.family.language_model(checkpoint.model)
    with pytest.raises(RuntimeError), shared_prefix_attention(language):
        raise RuntimeError
    assert language.config._attn_implementation == "eager"


def test_a_decoder_that_is_not_made_ready_does_not_pass_in_silence() -> None:
    checkpoint, _ = with_alarms("qwen2_5_vl", "sdpa")
    prefix = Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()))
    with pytest.raises((RuntimeError, ValueError)):
        shared_hidden(checkpoint.model, prefix, padded(completions(checkpoint))[0])
