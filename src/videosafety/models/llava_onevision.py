"""LLaVA-OneVision (Li et al., 2024), by the class in transformers.

Vision runs per frame and is pooled to a quarter; a clip ends with one newline embedding, and the model sees no times.
Of a lone picture the tower sees the whole and its tiles, of several pictures in a conversation the whole of each. The
chat template shows pictures first, then clips, then words.

transformers takes clips as (B, T, C, H, W) and so cannot batch clips of different lengths; ``prepare`` lets it, each
clip computed as it is alone.

Example:
    >>> row = FAMILY.encode(processor, (Message("user", (clip, "What is shown?")),))        # doctest: +SKIP
    >>> row.stacked["pixel_values_videos"].shape                                # doctest: +SKIP
    torch.Size([1, 8, 3, 384, 384])
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedModel, ProcessorMixin
from transformers.models.llava_onevision import modeling_llava_onevision as stock

from videosafety.models.family import StockFamily, cat_padded, media_arguments
from videosafety.video.plan import Clip, Picture


class LlavaOnevision(StockFamily):
    """The family of ``LlavaOnevisionForConditionalGeneration``: clips (clips, T, C, H, W), pictures (N, tiles, …)."""

    name = "llava_onevision"
    model_type = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    stacked = ("pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos")
    vision = ("model.vision_tower", "model.multi_modal_projector")

    def process(
        self, processor: ProcessorMixin, rendered: str, clips: Sequence[Clip], pictures: Sequence[Picture]
    ) -> Mapping[str, Any]:
        """The stock call; pictures are handed over as those of one conversation, clips may differ in length."""
        media = media_arguments(clips, pictures)
        if pictures:
            media["images"] = [media["images"]]
        inputs = dict(cast(Any, processor)(text=[rendered], **media))
        for name in ("pixel_values", "pixel_values_videos"):
            if name in inputs:
                inputs[name] = cat_padded([one[None] for one in inputs[name]])
        return {name: torch.as_tensor(value) for name, value in inputs.items()}

    def prepare(self, model: PreTrainedModel) -> None:
        """Let clips of different lengths share a batch."""
        model.get_submodule("model").__class__ = _AnyLength


class _AnyLength(stock.LlavaOnevisionModel):
    """Stock weights; a clip's frames end where ``collate``'s padding (NaN) begins."""

    def get_video_features(self, pixel_values_videos: Tensor, **kwargs: Any) -> Any:
        lengths = (~pixel_values_videos[:, :, 0, 0, 0].isnan()).sum(1).tolist()
        if len(set(lengths)) == 1:
            return super().get_video_features(pixel_values_videos, **kwargs)
        clips = [clip[None, :length] for clip, length in zip(pixel_values_videos, lengths, strict=True)]
        each = [super(_AnyLength, self).get_video_features(clip, **kwargs) for clip in clips]
        each[0].pooler_output = torch.cat([one.pooler_output for one in each], dim=1)
        return each[0]


FAMILY = LlavaOnevision()
