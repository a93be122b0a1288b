"""A batch of prompts, encoded once: token ids, positions and the features of their frozen vision.

Stage 4 shows the same prompt to the sampler, to the policy and to the reference. The vision tower runs once for all of
them: its output is kept here and handed to the family's own forward pass, which takes it in place of pixels.

Axes: B prompts, P prompt tokens (padded on the right), X position axes (1, or 3 where rotary positions have several).

Example:
    >>> prefix = Prefix.of(checkpoint.model, collate(rows, pad_token_id=0, side="right"))     # doctest: +SKIP
    >>> hidden_BPH = prefix.run(checkpoint.model).last_hidden_state             # doctest: +SKIP
"""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # SplitMix64's, as int64
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass(frozen=True)
class Prefix:
    """Prompts as a model reads them.

    ``ids_BP`` and ``mask_BP`` (1 real, 0 padding); ``positions_XBP`` rotary positions; ``media`` are the tensors that a
    family's forward pass needs beside the ids, pixels apart; ``vision`` what the tower made of the pixels, by kind;
    ``digest`` is a hash over ids and pixels.
    """

    ids_BP: Tensor
    mask_BP: Tensor
    positions_XBP: Tensor
    media: Mapping[str, Tensor]
    vision: Mapping[str, Any]
    digest: str

    @staticmethod
    def of(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> "Prefix":
        """Run the vision tower on a right-padded batch of a family's tensors. No gradient: vision is frozen.

        Raises:
            ValueError: the batch is padded on the left.
        """
        mask_BP = inputs["attention_mask"]
        if not bool(mask_BP[:, 0].all()):
            raise ValueError("prompts are padded on the left: pad them on the right")
        base = cast(Any, model.base_model)
        with torch.no_grad():
            vision = {kind: _call(getattr(base, f"get_{kind}_features"), inputs)
                      for kind, pixels in PIXELS.items() if pixels in inputs}  # fmt: skip
        media = {name: t for name, t in inputs.items() if name not in (*PER_TOKEN, *PIXELS.values())}
        return Prefix(inputs["input_ids"], mask_BP, rotary_positions(model, inputs), media, vision, digest(inputs))

    @property
    def lengths_B(self) -> Tensor:
        """Real tokens of each prompt."""
        return self.mask_BP.sum(dim=1)

    @property
    def next_B(self) -> Tensor:
        """The rotary position of the first token after each prompt, the same on every axis.

        It is one more than that of the last token, not than the highest: transformers' Qwen2.5-VL lets the moments of a
        clip run ahead of the words after it, in the forward pass and in ``generate`` alike.
        """
        rows_B = torch.arange(len(self.ids_BP), device=self.ids_BP.device)
        return self.positions_XBP[:, rows_B, self.lengths_B - 1].amax(dim=0) + 1

    def run(self, model: PreTrainedModel, **given: Any) -> Any:
        """The base model's output for the prompts; ``given`` may replace ids, mask and positions by longer ones."""
        inputs = {
            "input_ids": self.ids_BP, "attention_mask": self.mask_BP, "position_ids": axes(self.positions_XBP),
            "use_cache": False, **self.media, **given,
        }  # fmt: skip
        if self.vision:
            inputs["mm_encoder_outputs"] = dict(self.vision)
        return cast(Any, model.base_model)(**inputs)


def rotary_positions(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """(X, B, P): what the family's own forward pass would use for a right-padded batch."""
    multi = getattr(model.base_model, "compute_3d_position_ids", None)
    if multi is not None:
        found = _call(multi, {**inputs, "inputs_embeds": None, "past_key_values": None})
        if found is not None:
            return cast(Tensor, found)
    num, length = inputs["input_ids"].shape
    return torch.arange(length, device=inputs["input_ids"].device).expand(1, num, length)


def axes(positions_XBT: Tensor) -> Tensor:
    """Positions in the shape that a family takes: (B, T) where there is one axis."""
    return positions_XBT[0] if len(positions_XBT) == 1 else positions_XBT


def digest(inputs: Mapping[str, Tensor]) -> str:
    """16 hex digits over the real token ids of each prompt and everything that the media became."""
    real = inputs["attention_mask"].bool()
    total = hashlib.sha256(str(real.sum(dim=1).tolist()).encode())
    for name, tensor in sorted(inputs.items()):
        if name in ("labels", "attention_mask"):
            continue
        kept = tensor[real] if name in PER_TOKEN else tensor
        take_in(total, kept, name=name)
    return total.hexdigest()[:16]


def take_in(total: Any, tensor: Tensor, *, name: str) -> None:
    """A tensor's name, type, shape and values into a hash of ``hashlib``.

    On the CPU all its bytes; of one on a device the 64 bits that ``mixed`` makes of them there, since copying tens of
    megabytes of pixels and hashing them costs a tenth of a second a prompt. Compare hashes made on one kind of device.
    """
    total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total.update(flat.numpy().data if flat.device.type == "cpu" else mixed(flat).to_bytes(8, "big", signed=True))


def mixed(flat: Tensor) -> int:
    """64 bits of (N,) bytes, exact in integers: another value or order of any 8 bytes gives other bits.

    Each word and its place go through SplitMix64's finaliser (Steele, Lea and Flood, 2014), then all are added up.
    Any change of a single word shows; several at once hide with a chance of 2⁻⁶⁴. Not for hostile input.
    """
    words = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(torch.int64)
    words = words + torch.arange(len(words), device=flat.device) * _GOLDEN
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        words = (words ^ (words >> shift & (1 << 64 - shift) - 1)) * factor  # a shift that brings in zeros
    return int(words.sum())


def _call(function: Any, inputs: Mapping[str, Any]) -> Any:
    """A model's own method with those of ``inputs`` that it names; what it names and the batch lacks is None."""
    wanted = inspect.signature(function).parameters.values()
    given = {p.name: inputs[p.name] for p in wanted if p.name in inputs}
    given |= {p.name: None for p in wanted if p.default is p.empty and p.name not in given and p.kind != p.VAR_KEYWORD}
    return function(**given)
