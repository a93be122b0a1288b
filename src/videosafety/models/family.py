"""The family protocol: what a video LLM must offer so that training, evaluation and serving see the same tokens.

A conversation is a tuple of messages whose parts are text, a decoded ``Clip`` or a ``Picture``. ``render`` turns it
into the string that the checkpoint's own chat template makes (so any server renders the same), ``encode`` into token
ids and pixel tensors, ``collate`` into one padded batch. A new family is one file with a ``Family``; docs/extending.md.

Example:
    >>> ask = (Message("user", ("What is shown?",)),)
    >>> encoded = checkpoint.family.encode(checkpoint.processor, ask)           # doctest: +SKIP
    >>> batch = collate([encoded], pad_token_id=0, side="left")                 # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from videosafety.core.errors import InputError
from videosafety.video.plan import Clip, Picture

IGNORE = -100  # the label that no loss counts, torch's and transformers' convention


@dataclass(frozen=True)
class Message:
    """One turn: its role and its parts, in the order in which they are shown."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Clip | Picture, ...]


Conversation: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True)
class Encoded:
    """One conversation as tensors.

    ``input_ids`` (T,) long. The last ``num_target`` of them are the answer to learn (0 at inference). ``per_token``
    holds (T,) tensors that run along with the ids; ``stacked`` holds tensors that a batch concatenates along dim 0.
    """

    input_ids: Tensor
    num_target: int = 0
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    stacked: Mapping[str, Tensor] = field(default_factory=dict)


class Family(Protocol):
    """A family of video LLMs in transformers."""

    name: str
    model_type: str
    """``config.model_type`` of its checkpoints."""
    model_class: type[PreTrainedModel]

    def render(self, processor: ProcessorMixin, conversation: Conversation) -> str:
        """The prompt up to the point where the assistant speaks, by the checkpoint's own chat template."""
        ...

    def encode(self, processor: ProcessorMixin, conversation: Conversation, *, target: str | None = None) -> Encoded:
        """Token ids and pixel tensors of a conversation, followed by ``target`` and its end token when given."""
        ...

    def vision_token_ids(self, model: PreTrainedModel) -> list[int]:
        """Placeholder ids that generation must never sample."""
        ...

    def prepare(self, model: PreTrainedModel) -> None:
        """What a freshly loaded model needs for speed; never changes what it computes."""
        ...


def template_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """A conversation in the form that chat templates read: typed parts, so that no key is present with None in it."""
    kinds = {Clip: "video", Picture: "image"}
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": kinds[type(part)]}
                for part in message.parts
            ],
        }
        for message in conversation
    ]


def media_of(conversation: Conversation) -> tuple[list[Clip], list[Picture]]:
    """All clips and all pictures, in the order in which they are shown."""
    parts = [part for message in conversation for part in message.parts]
    return [part for part in parts if isinstance(part, Clip)], [part for part in parts if isinstance(part, Picture)]


def refuse_placeholders(conversation: Conversation, tokens: Sequence[str]) -> None:
    """Refuse text that holds a special token of the model: it would be read as markup and not as words.

    Raises:
        InputError: naming the token.
    """
    for message in conversation:
        for part in message.parts:
            found = next((t for t in tokens if isinstance(part, str) and t in part), None)
            if found is not None:
                raise InputError(f"the text holds the special token {found!r}", fix="remove it from the query")


def collate(rows: Sequence[Encoded], *, pad_token_id: int, side: Literal["left", "right"]) -> dict[str, Tensor]:
    """One padded batch: ``input_ids``, ``attention_mask``, ``labels`` (B, T) and the media tensors of all rows.

    Left padding is for generation, right padding for training; both give the same logits at real positions.
    """
    longest = max(len(row.input_ids) for row in rows)

    def padded(values: Sequence[Tensor], fill: int) -> Tensor:
        out = torch.full((len(values), longest), fill, dtype=torch.long)
        for row, value in zip(out, values, strict=True):
            start = longest - len(value) if side == "left" else 0
            row[start : start + len(value)] = value
        return out

    ids = [row.input_ids for row in rows]
    labels = [_labels(row) for row in rows]
    batch = {
        "input_ids": padded(ids, pad_token_id),
        "attention_mask": padded([torch.ones_like(i) for i in ids], 0),
        "labels": padded(labels, IGNORE),
    }
    for name in rows[0].per_token:
        batch[name] = padded([row.per_token[name] for row in rows], 0)
    for name in dict.fromkeys(name for row in rows for name in row.stacked):
        batch[name] = torch.cat([row.stacked[name] for row in rows if name in row.stacked])
    return batch


def _labels(row: Encoded) -> Tensor:
    labels = torch.full_like(row.input_ids, IGNORE)
    if row.num_target:
        labels[-row.num_target :] = row.input_ids[-row.num_target :]
    return labels
