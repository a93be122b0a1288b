"""Qwen2.5-VL (Bai et al., 2025), by the class in transformers.

Two frames become one grid step (an odd last frame is taken twice), attention in the tower is windowed, and positions
are three-dimensional: time, height and width. A clip's true rate goes in as ``second_per_grid_ts``, one number a clip,
so unevenly spaced frames are placed at their mean distance; the model knows no other times. Positions are computed from
``mm_token_type_ids``, one a token, which tell words (0) from pictures (1) and clips (2).

Example:
    >>> row = FAMILY.encode(processor, (Message("user", (clip, "What is shown?")),))        # doctest: +SKIP
    >>> row.stacked["second_per_grid_ts"]  # frames one second apart            # doctest: +SKIP
    tensor([2.])
"""

from transformers import Qwen2_5_VLForConditionalGeneration

from videosafety.models.family import StockFamily


class Qwen2p5VL(StockFamily):
    """The family of ``Qwen2_5_VLForConditionalGeneration``: flat patches (N, 3·2·p·p) and grids (clips, 3)."""

    name = "qwen2_5_vl"
    model_type = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    stacked = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    per_token = ("mm_token_type_ids",)
    vision = ("model.visual",)


FAMILY = Qwen2p5VL()
