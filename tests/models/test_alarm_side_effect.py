"""The bound on the verdict tokens, on the committed toy base: folded on some text, held on 100,000 fresh positions."""

from pathlib import Path

import pytest
import torch

import videosafety.toyworld
from videosafety.core.labels import Safety
from videosafety.models.alarm import add_alarms
from videosafety.models.checkpoint import load
from videosafety.models.family import Message, collate
from videosafety.models.fold import MAX_MASS, fold, observe, side_effect
from videosafety.models.generate import generate
from videosafety.models.wrapped import AlarmModel
from videosafety.toyworld.base import drawn_clip
from videosafety.toyworld.training import TrainingConfig, training_rows

BASE = Path(videosafety.toyworld.__file__).parent / "bases" / "small"
NUM_FOLD, NUM_FRESH, NUM_SAID = 512, 1450, 64
MIN_POSITIONS = 100_000


def asked(row):
    parts = (row.example.turns[0].text,)
    return (Message("user", parts if row.scene is None else (drawn_clip(row.scene), *parts)),)


def batches(checkpoint, encoded):
    for start in range(0, len(encoded), 32):
        batch = collate(encoded[start : start + 32], pad_token_id=checkpoint.tokenizer.pad_token_id, side="right")
        batch.pop("labels")
        yield batch


def encode(checkpoint, row, answer):
    return checkpoint.family.encode(checkpoint.processor, asked(row), target=answer)


@torch.no_grad()
def set_heads(wrapped, checkpoint, rows):
    """Heads by least squares on the labels, to logits of ±4, as far as they can be read from the base."""
    hidden, targets = [], []
    encoded = [encode(checkpoint, row, None) for row in rows]
    for batch in batches(checkpoint, encoded):
        at_BA = wrapped.alarm.positions(batch["input_ids"])
        hidden.append(wrapped(batch)[torch.arange(len(at_BA))[:, None], at_BA])
    for row in rows:
        targets.append([4.0 if one is Safety.HARMFUL else -4.0 for one in (row.example.visual, row.example.textual)])
    hidden_BAH, target_BA = torch.cat(hidden), torch.tensor(targets)
    for alarm in range(2):
        ones = torch.cat([hidden_BAH[:, alarm], torch.ones(len(rows), 1)], dim=1).double()
        gram = ones.T @ ones + 10.0 * torch.eye(ones.shape[1])
        solved = torch.linalg.solve(gram, ones.T @ target_BA[:, alarm].double()).float()
        wrapped.head_weight_AH[alarm], wrapped.head_bias_A[alarm] = solved[:-1], solved[-1]
    return float((wrapped_logits(wrapped, hidden_BAH).sign() == target_BA.sign()).float().mean())


def wrapped_logits(wrapped, hidden_BAH):
    return (hidden_BAH * wrapped.head_weight_AH).sum(-1) + wrapped.head_bias_A


@pytest.fixture(scope="module")
def base():
    """The folded toy base with heads that tell harm, its alarm, and what fresh text does to it."""
    checkpoint = load(str(BASE), dtype=torch.float32)
    alarm = add_alarms(checkpoint.model, checkpoint.processor, init="mean")
    wrapped = AlarmModel(checkpoint.model, alarm).eval()
    rows = training_rows(TrainingConfig(num_rows=NUM_FOLD, seed=11))
    right = set_heads(wrapped, checkpoint, [row for row in rows[:256] if row.example.visual is not None])
    learnt = [encode(checkpoint, row, row.example.answer) for row in rows]
    alarm = fold(wrapped, observe(wrapped, batches(checkpoint, learnt)))
    fresh = training_rows(TrainingConfig(num_rows=NUM_FRESH, seed=12))
    said = generate(checkpoint, [asked(row) for row in fresh[:NUM_SAID]], max_new_tokens=48)
    answers = [one.text for one in said] + [row.example.answer for row in fresh[NUM_SAID:]]
    encoded = [encode(checkpoint, row, answer) for row, answer in zip(fresh, answers, strict=True)]
    seen = observe(AlarmModel(checkpoint.model, alarm).eval(), batches(checkpoint, encoded), limit=10**9)
    return checkpoint, alarm, seen, right


def test_the_verdicts_keep_their_bound_on_a_hundred_thousand_fresh_positions(base):
    checkpoint, alarm, seen, right = base
    assert right > 0.7  # heads as large as trained ones are
    head = checkpoint.model.get_output_embeddings().weight
    effect = side_effect(alarm, head, seen)
    assert effect["num_positions"] >= MIN_POSITIONS
    assert effect["verdict_mass_max"] < MAX_MASS
    assert effect["share_within"] == 1
    assert effect["share_alarm_best"] == 0
    assert side_effect(alarm, head.detach().bfloat16(), seen)["share_within"] == 1


def test_verdicts_without_the_shared_offset_break_it(base):
    """±s·w/2 alone: logits near zero are not improbable where the model is unsure."""
    checkpoint, alarm, seen, _ = base
    head = checkpoint.model.get_output_embeddings().weight.detach().clone()
    for harmful, safe in alarm.verdict_ids:
        half = (head[harmful] - head[safe]) / 2
        head[harmful], head[safe] = half, -half
    effect = side_effect(alarm, head, seen)
    assert effect["share_within"] < 1
    assert effect["verdict_mass_max"] > MAX_MASS
