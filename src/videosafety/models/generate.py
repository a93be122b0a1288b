"""Batched greedy generation: video, image and text-only conversations in one padded batch.

The decoding protocol of the evaluation: greedy, no system prompt of ours, and never a vision placeholder in the answer.
A checkpoint's own ``generation_config`` (repetition penalty, minimal length, …) would bend greedy decoding and differs
from model to model, so nothing of it is used but the end tokens. Rows are sorted by length so that little is padded,
and returned in the order given.

Example:
    >>> [answer] = generate(checkpoint, [(Message("user", ("Hello?",)),)], max_new_tokens=8)      # doctest: +SKIP
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import GenerationConfig

from videosafety.core.records import StopReason
from videosafety.models.checkpoint import Checkpoint
from videosafety.models.family import Conversation, collate


@dataclass(frozen=True)
class Generated:
    """An answer without special tokens, its length in tokens (end token included) and why it ended."""

    text: str
    num_tokens: int
    stop_reason: StopReason


@torch.inference_mode()
def generate(
    checkpoint: Checkpoint,
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    on_done: Callable[[int], None] | None = None,
) -> list[Generated]:
    """Answer every conversation; ``on_done(k)`` is called after each batch of k.

    All conversations are encoded before the first batch runs, so the caller bounds memory by how many it hands over.
    """
    rows = [checkpoint.family.encode(checkpoint.processor, conversation) for conversation in conversations]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].input_ids), i))
    answers: dict[int, Generated] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([rows[i] for i in chosen], pad_token_id=checkpoint.tokenizer.pad_token_id, side="left")
        answers.update(zip(chosen, _generate_batch(checkpoint, batch, max_new_tokens), strict=True))
        if on_done is not None:
            on_done(len(chosen))
    return [answers[i] for i in range(len(rows))]


def _generate_batch(checkpoint: Checkpoint, batch: dict[str, torch.Tensor], max_new_tokens: int) -> list[Generated]:
    model = checkpoint.model
    prompt_length = batch["input_ids"].shape[1]
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
    own = model.generation_config
    ends = own.eos_token_id if own is not None else None
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, eos_token_id=ends,
        pad_token_id=checkpoint.tokenizer.pad_token_id, suppress_tokens=checkpoint.family.vision_token_ids(model),
    )  # fmt: skip
    try:  # transformers fills what an argument leaves open from the model's own config: so that is put aside
        tokens = cast(Any, model).generate(**inputs)
    finally:
        model.generation_config = own
    end_ids = {ends} if isinstance(ends, int) else set(ends or [])
    return [_answer(checkpoint, row[prompt_length:].tolist(), end_ids) for row in tokens]


def _answer(checkpoint: Checkpoint, ids: list[int], end_ids: set[int]) -> Generated:
    end = next((i for i, token in enumerate(ids) if token in end_ids), None)
    said = ids if end is None else ids[: end + 1]
    text = checkpoint.tokenizer.decode(said, skip_special_tokens=True)
    return Generated(text, len(said), StopReason.LENGTH if end is None else StopReason.STOP)
