"""Qwen3-VL (Qwen team, 2025), by the class in transformers.

Two frames become one grid step, written in the prompt with its time, ``<0.5 seconds><|vision_start|>…<|vision_end|>``:
the mean of the two frames' true times. An odd last frame is taken twice. The template's own marks stay around a whole
clip, as the stock processor leaves them. The tower's features enter the decoder's first
layers too; they belong to the tower. Positions need ``mm_token_type_ids``, as in Qwen2.5-VL.

Example:
    >>> row = FAMILY.encode(processor, (Message("user", (clip, "What is shown?")),))        # doctest: +SKIP
    >>> sorted(row.stacked)                                                     # doctest: +SKIP
    ['pixel_values_videos', 'video_grid_thw']
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import ProcessorMixin, Qwen3VLForConditionalGeneration

from videosafety.models.family import StockFamily
from videosafety.video.plan import Clip, Picture


class Qwen3VL(StockFamily):
    """The family of ``Qwen3VLForConditionalGeneration``: flat patches (N, 3·2·p·p) and grids (clips, 3)."""

    name = "qwen3_vl"
    model_type = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    stacked = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
    per_token = ("mm_token_type_ids",)
    vision = ("model.visual",)

    def process(
        self, processor: ProcessorMixin, rendered: str, clips: Sequence[Clip], pictures: Sequence[Picture]
    ) -> Mapping[str, Any]:
        """The stock call; it refuses a clip of one frame, so that frame is taken twice as an odd last one is."""
        return super().process(processor, rendered, [_paired(clip) for clip in clips], pictures)


def _paired(clip: Clip) -> Clip:
    if len(clip.frames) > 1:
        return clip
    return Clip(np.repeat(clip.frames, 2, axis=0), clip.timestamps_s * 2)


FAMILY = Qwen3VL()
