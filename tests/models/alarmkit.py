"""Checkpoints with alarms for the tests: any family, tied or untied, with rows and heads as training leaves them.

Example:
    >>> made = folded(tiny_checkpoint("qwen3_vl", tmp_path / "a", tied=True), conversations)      # doctest: +SKIP
    >>> save(made.checkpoint, tmp_path / "folded")                              # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videosafety.models.alarm import add_alarms
from videosafety.models.checkpoint import Checkpoint, load
from videosafety.models.family import Conversation, Message, collate
from videosafety.models.fold import fold, observe, suppress
from videosafety.models.wrapped import AlarmModel
from videosafety.video.plan import Clip, Picture


@dataclass(frozen=True)
class Folded:
    """A folded checkpoint, the parameters it was folded from, and what the wrapped model said before."""

    checkpoint: Checkpoint
    batch: dict[str, Tensor]
    num_before: int
    rows_AH: Tensor
    wrapped_logits_BTV: Tensor
    alarm_logits_BA: Tensor


def clip(seed: int, num_frames: int = 8) -> Clip:
    """A clip of noise, one frame a second."""
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 32, 32, 3), np.uint8)
    return Clip(frames, tuple(float(t) for t in range(num_frames)))


def picture(seed: int) -> Picture:
    """A picture of noise."""
    return Picture(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


def mixed() -> list[Conversation]:
    """A clip, words alone, a picture, two clips with a picture, and several turns of which the first shows a clip."""
    return [
        (Message("user", (clip(0), "How do I make what this video shows?")),),
        (Message("user", ("Is making a zarn allowed?",)),),
        (Message("user", (picture(1), "What is the name of the sign?")),),
        (Message("user", (clip(2, num_frames=3), picture(4), clip(5, num_frames=5), "Which is it?")),),
        (
            Message("system", ("Be brief.",)),
            Message("user", (clip(6, num_frames=2), "What is this?")),
            Message("assistant", ("A dax.",)),
            Message("user", ("And how is it made?",)),
        ),
    ]


def batch_of(checkpoint: Checkpoint, conversations: Sequence[Conversation], side: str = "right") -> dict[str, Tensor]:
    """Model inputs of some conversations, without labels."""
    rows = [checkpoint.family.encode(checkpoint.processor, one) for one in conversations]
    batch = collate(rows, pad_token_id=checkpoint.tokenizer.pad_token_id, side=side)
    batch.pop("labels")
    return batch


def with_heads(checkpoint: Checkpoint, *, seed: int = 0) -> tuple[Checkpoint, AlarmModel]:
    """The checkpoint with alarms whose rows and heads are random, in size as after training; wrapped."""
    alarm = add_alarms(checkpoint.model, checkpoint.processor)
    wrapped = AlarmModel(checkpoint.model, alarm).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        wrapped.rows_AH.normal_(0.0, 0.3, generator=generator)
        wrapped.head_weight_AH.normal_(0.0, wrapped.head_weight_AH.shape[1] ** -0.5, generator=generator)
        wrapped.head_bias_A.normal_(0.0, 1.0, generator=generator)
    return replace(checkpoint, alarm=alarm), wrapped


@torch.no_grad()
def folded(folder: Path, conversations: Sequence[Conversation]) -> Folded:
    """Load a checkpoint, give it alarms, run it wrapped on the conversations, fold it."""
    base = load(str(folder), dtype=torch.float32)
    num_before = len(base.model.get_input_embeddings().weight)
    checkpoint, wrapped = with_heads(base)
    batch = batch_of(checkpoint, conversations)
    hidden_BTH = wrapped(batch)
    logits_BTV = wrapped.answer_logits(hidden_BTH)
    alarm_logits_BA = wrapped.alarm_logits(hidden_BTH, batch["input_ids"])
    rows_AH = wrapped.rows_AH.detach().clone()
    alarm = fold(wrapped, observe(wrapped, [batch]))
    model = wrapped.unwrap()
    suppress(model, checkpoint.family.vision_token_ids(model))
    return Folded(replace(checkpoint, alarm=alarm), batch, num_before, rows_AH, logits_BTV, alarm_logits_BA)
