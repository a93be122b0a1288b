"""SmolVLM2 (Marafioti et al., 2025), by the class in transformers.

A clip becomes one ``<image>`` a frame among words (how many frames, how long, ``Frame from 00:01:``), a picture several
tiles; both go in as pictures. The stock processor can neither mix clips and pictures nor tell apart the lengths of two
clips, so each medium is processed by itself, by the stock parts, in the order in which the prompt shows them. The
rendered words, ids and pixels of a single medium are those of the stock call.

Checkpoints were published with chat templates that know no clips; transformers then silently takes a template of its
own, and so do we, openly (``template``): a checkpoint whose own template shows clips keeps it.

Example:
    >>> row = FAMILY.encode(processor, (Message("user", (clip, "What is shown?")),))        # doctest: +SKIP
    >>> row.stacked["pixel_values"].shape  # frames, 1, channels, height, width  # doctest: +SKIP
    torch.Size([8, 1, 3, 512, 512])
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from transformers import ProcessorMixin, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from videosafety.models.family import StockFamily, media_arguments
from videosafety.models.placement import place, placed, remove
from videosafety.video.plan import Clip, Picture


class SmolVLM(StockFamily):
    """The family of ``SmolVLMForConditionalGeneration``: every tile and frame a row of ``pixel_values``."""

    name = "smolvlm2"
    model_type = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    stacked = ("pixel_values",)
    vision = ("model.vision_model", "model.connector")
    decoder = "model.text_model"

    def template(self, processor: ProcessorMixin) -> str:
        """The checkpoint's chat template, or that of transformers with the same alarms where it shows no clips."""
        own = super().template(processor)
        if "video" in remove(own):
            return own
        return place(DEFAULT_CHAT_TEMPLATE, placed(own)) if placed(own) else str(DEFAULT_CHAT_TEMPLATE)

    def process(
        self, processor: ProcessorMixin, rendered: str, clips: Sequence[Clip], pictures: Sequence[Picture]
    ) -> Mapping[str, Any]:
        """Ids (1, T) and pixels (N, 1, C, H, W) of N tiles and frames, in the order of their placeholders."""
        engine = cast(Any, processor)
        rest = {engine.video_token: iter(clips), engine.image_token: iter(pictures)}
        words, pixels = [], []
        for piece in re.split(f"({'|'.join(map(re.escape, rest))})", rendered):
            if piece not in rest:
                words.append(piece)
                continue
            shown, values = _one(engine, next(cast(Any, rest[piece])))
            words.append(shown)
            pixels.append(values)
        inputs = dict(engine.tokenizer(["".join(words)], return_tensors="pt"))
        return inputs | ({"pixel_values": torch.cat(pixels)[:, None]} if pixels else {})


def _one(engine: Any, medium: Clip | Picture) -> tuple[str, torch.Tensor]:
    """The words that stand for a clip or a picture, and its frames or tiles (N, C, H, W)."""
    if isinstance(medium, Clip):
        made = engine.video_processor(**media_arguments([medium], []), return_metadata=True, return_tensors="pt")
        return engine.replace_video_token(made, 0), made["pixel_values"][0]
    images = [media_arguments([], [medium])["images"]]
    made = engine.image_processor(images, return_row_col_info=True, return_tensors="pt")
    return engine.replace_image_token(made, 0), made["pixel_values"][0]


FAMILY = SmolVLM()
