"""VideoLLaMA3 (Zhang et al., 2025), the paper's model, by the class in transformers.

Vision runs per frame; the prompt expands to ``Time 0.0s:<|video_pad|>…,Time 1.0s:…``. We hand over decoded frames with
their true timestamps, so nothing is sampled twice. ``batch_frames`` runs all equally large frames of a batch in one
attention call, where transformers loops over them in Python; same numbers, and several times faster on a CPU.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, VideoLlama3ForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.video_llama_3 import modeling_video_llama_3 as stock

from videosafety.models.family import StockFamily

MAX_SCORES = 2**26  # attention scores that one batched eager call may hold (256 MB in fp32)


class VideoLlama3(StockFamily):
    """The family of ``VideoLlama3ForConditionalGeneration``: flat patches (N, 3·p·p) and grids (clips, 3)."""

    name = "videollama3"
    model_type = "video_llama_3"
    model_class = VideoLlama3ForConditionalGeneration
    stacked = (
        "pixel_values", "image_grid_thw", "image_merge_sizes",
        "pixel_values_videos", "video_grid_thw", "video_merge_sizes", "video_compression_mask",
    )  # fmt: skip
    vision = ("model.vision_model", "model.projector")

    def prepare(self, model: PreTrainedModel) -> None:
        """Batch the vision attention over frames of equal size."""
        batch_frames(model)


def batch_frames(model: torch.nn.Module) -> None:
    """Let every vision attention layer of ``model`` attend within all frames at once where they have one size."""
    for module in model.modules():
        if isinstance(module, stock.VideoLlama3VisionAttention) and not isinstance(module, _FrameAttention):
            module.__class__ = _FrameAttention


class _FrameAttention(stock.VideoLlama3VisionAttention):
    """Stock weights, one attention call for N frames of L patches each instead of N calls."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        lengths = cu_seqlens.diff()
        num, length = len(lengths), int(lengths[0])
        one_size = bool((lengths == length).all())
        eager = self.config._attn_implementation == "eager"
        fits = not eager or num * length * length * self.num_heads <= MAX_SCORES
        if not (one_size and fits and self.config._attn_implementation in ("eager", "sdpa")):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        flat = (-1, self.num_heads, self.head_dim)
        query, key, value = (p(hidden_states).view(flat) for p in (self.q_proj, self.k_proj, self.v_proj))
        query, key = stock.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (x.view(num, length, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, stock.eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        out, _ = attend(self, query, key, value, attention_mask=None, scaling=self.scaling, dropout=dropout,
                        is_causal=False, **kwargs)  # fmt: skip
        return self.out_proj(out.reshape(num * length, -1).contiguous()), None


FAMILY = VideoLlama3()
