"""VideoLLaMA3 (Zhang et al., 2025), the paper's model, by the class in transformers.

Vision runs per frame; the prompt expands to ``Time 0.0s:<|video_pad|>…,Time 1.0s:…``. We hand over decoded frames with
their true timestamps, so nothing is sampled twice. ``batch_frames`` runs all equally large frames of a batch in one
attention call, where transformers loops over them in Python; same numbers, and several times faster on a CPU.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin, VideoLlama3ForConditionalGeneration
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.video_llama_3 import modeling_video_llama_3 as stock
from transformers.video_utils import VideoMetadata

from videosafety.core.errors import MediaError, MediaFault
from videosafety.models.family import (
    Conversation,
    Encoded,
    media_of,
    refuse_placeholders,
    template_messages,
)
from videosafety.video.plan import Clip

MAX_ASPECT = 200  # longer side by shorter side that the stock processor takes
TICKS_PER_S = 1000  # VideoMetadata knows frame indices and a rate; a millisecond clock carries any timestamp
MAX_SCORES = 2**26  # attention scores that one batched eager call may hold (256 MB in fp32)
STACKED = (
    "pixel_values", "image_grid_thw", "image_merge_sizes",
    "pixel_values_videos", "video_grid_thw", "video_merge_sizes", "video_compression_mask",
)  # fmt: skip


class VideoLlama3:
    """The family of ``VideoLlama3ForConditionalGeneration``."""

    name = "videollama3"
    model_type = "video_llama_3"
    model_class: type[PreTrainedModel] = VideoLlama3ForConditionalGeneration

    def render(self, processor: ProcessorMixin, conversation: Conversation) -> str:
        """The prompt by the checkpoint's chat template; the assistant speaks next."""
        tokenizer = cast(Any, processor).tokenizer
        marks = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        refuse_placeholders(conversation, sorted(marks | set(tokenizer.all_special_tokens)))
        _refuse_strips(conversation)
        rendered = processor.apply_chat_template(
            template_messages(conversation), tokenize=False, add_generation_prompt=True
        )
        return str(rendered)

    def encode(self, processor: ProcessorMixin, conversation: Conversation, *, target: str | None = None) -> Encoded:
        """Ids (T,), flat patches (N, 3·p·p), grids (clips, 3), merge sizes (clips,) and compression mask."""
        clips, pictures = media_of(conversation)
        media: dict[str, Any] = {}
        if clips:
            media["videos"] = [torch.from_numpy(clip.frames).permute(0, 3, 1, 2) for clip in clips]
            media["video_metadata"] = [_metadata(clip) for clip in clips]
            media["do_sample_frames"] = False
        if pictures:
            media["images"] = [torch.from_numpy(picture.pixels).permute(2, 0, 1) for picture in pictures]
        inputs = cast(Any, processor)(text=[self.render(processor, conversation)], return_tensors="pt", **media)
        ids = inputs["input_ids"][0]
        stacked = {name: inputs[name] for name in STACKED if name in inputs}
        if target is None:
            return Encoded(input_ids=ids, stacked=stacked)
        answer = self._answer_ids(processor, target)
        return Encoded(input_ids=torch.cat([ids, answer]), num_target=len(answer), stacked=stacked)

    def _answer_ids(self, processor: ProcessorMixin, target: str) -> Tensor:
        tokenizer = cast(Any, processor).tokenizer
        ids = tokenizer(target, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        return torch.tensor(ids, dtype=torch.long)

    def vision_token_ids(self, model: PreTrainedModel) -> list[int]:
        """``<|image_pad|>`` and ``<|video_pad|>``: sampled, they would crash the next forward."""
        config = cast(Any, model.config)
        return [int(config.image_token_id), int(config.video_token_id)]

    def prepare(self, model: PreTrainedModel) -> None:
        """Batch the vision attention over frames of equal size."""
        batch_frames(model)


def _refuse_strips(conversation: Conversation) -> None:
    """Raises MediaError TOO_LARGE for what the processor's ``smart_resize`` refuses, so that only its item is lost."""
    clips, pictures = media_of(conversation)
    for height, width in [clip.frames.shape[1:3] for clip in clips] + [one.pixels.shape[:2] for one in pictures]:
        if max(height, width) > MAX_ASPECT * min(height, width):
            what = f"is {width}x{height} px as shown, one side over {MAX_ASPECT} times the other"
            raise MediaError(what, fault=MediaFault.TOO_LARGE, fix="crop it")


def _metadata(clip: Clip) -> VideoMetadata:
    ticks = [round(t * TICKS_PER_S) for t in clip.timestamps_s]
    num, height, width = clip.frames.shape[:3]
    total = max(ticks[-1] + 1, num)
    return VideoMetadata(
        total_num_frames=total, fps=TICKS_PER_S, frames_indices=ticks, height=height, width=width,
        duration=total / TICKS_PER_S,
    )  # fmt: skip


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
