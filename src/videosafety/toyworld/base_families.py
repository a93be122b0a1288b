"""Which tiny model the toy world gets: one of several families of video LLMs, by the real classes of transformers.

A family brings what is its own: special tokens, chat template, the marks that its processor writes beside the frames of
a clip, and a small config. Words, initialisation, lessons and training are the same for all (``base_model``, ``base``).
All see a frame of 32 px as four visual tokens; the Qwen family merges two frames into one step.

Example:
    >>> FAMILIES["qwen3_vl"].end                                                # doctest: +SKIP
    '<|im_end|>'
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2Config,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
    VideoLlama3VisionConfig,
)

from videosafety.core.recipe import Config, knob
from videosafety.toyworld.scenes import NUM_FRAMES, SIDE_PX

MAX_CLIP_PX = 90 * SIDE_PX**2  # of all frames together: larger clips are shrunk to fit the context
MAX_IMAGE_PX = 16 * SIDE_PX**2
MEAN_STD = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CONTEXT = 4096  # positions

TEMPLATE = (  # of VideoLLaMA3
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url'] %}<|image_pad|>\n"
    "{% elif part['type'] in ['video', 'video_url'] %}<|video_pad|>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_ONEVISION = (
    "{% for message in messages %}<|im_start|>{{ message.role }} "
    "{% if message.content is string %}\n{{ message.content }}{% else %}"
    "{% for kind in ['image', 'video'] %}{% for part in message.content if part.type == kind %}<{{ kind }}>\n"
    "{% endfor %}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}\n{{ part.text }}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ModelSize(Config):
    """The shape of the tiny model."""

    vocab_size: int = knob(2048, unit="tokens", help="upper bound of the toy tokenizer")
    hidden_size: int = knob(128, unit="channels", help="width of the language model")
    num_layers: int = knob(3, unit="layers", help="depth of the language model")
    num_heads: int = knob(4, unit="heads", help="attention heads of the language model")
    vision_hidden_size: int = knob(64, unit="channels", help="width of the vision tower")
    vision_num_layers: int = knob(1, unit="layers", help="depth of the vision tower")
    patch_px: int = knob(8, unit="px", help="side of a patch")
    merge: int = knob(2, unit="patches", help="patches a side that become one visual token", paper=2)


Made = tuple[PreTrainedModel, ProcessorMixin]


@dataclass(frozen=True)
class ToyFamily:
    """What is a family's own: ``special`` tokens (the padding first), the ``end`` of an answer, the chat ``template``.

    ``marks`` is a regular expression of what the processor writes beside frames, ``written`` all of it that an
    ordinary clip needs: the tokenizer keeps each mark in few tokens. ``make`` gives a model without its initialisation.
    """

    special: tuple[str, ...]
    end: str
    template: str
    marks: tuple[str, ...]
    written: tuple[str, ...]
    make: Callable[[PreTrainedTokenizerFast, ModelSize], Made]


def _text(words: PreTrainedTokenizerFast, size: ModelSize, **own: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(words), "hidden_size": size.hidden_size, "intermediate_size": 3 * size.hidden_size,
        "num_hidden_layers": size.num_layers, "num_attention_heads": size.num_heads,
        "num_key_value_heads": size.num_heads, "max_position_embeddings": CONTEXT, "tie_word_embeddings": True,
        "bos_token_id": None, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, **own,
    }  # fmt: skip


def _tower(size: ModelSize) -> dict[str, Any]:
    width = size.vision_hidden_size
    return {"hidden_size": width, "intermediate_size": 3 * width, "patch_size": size.patch_px}


def _id(words: PreTrainedTokenizerFast, token: str) -> int:
    return int(cast(Any, words.convert_tokens_to_ids)(token))


def _video_llama3(words: PreTrainedTokenizerFast, size: ModelSize) -> Made:
    vision = VideoLlama3VisionConfig(**_tower(size), num_hidden_layers=size.vision_num_layers, num_attention_heads=4)
    config = VideoLlama3Config(text_config=Qwen2Config(**_text(words, size)), vision_config=vision,
                               image_token_id=_id(words, "<|image_pad|>"), video_token_id=_id(words, "<|video_pad|>"),
                               tie_word_embeddings=True)  # fmt: skip
    common = {"patch_size": size.patch_px, "merge_size": size.merge, "temporal_patch_size": 1,
              "min_pixels": size.patch_px**2 * size.merge**2}  # fmt: skip
    image = cast(Any, VideoLlama3ImageProcessor)(**common, max_pixels=MAX_IMAGE_PX)
    video = cast(Any, VideoLlama3VideoProcessor)(
        **common, max_pixels=MAX_CLIP_PX, max_frames=180, use_token_compression=False
    )
    processor = VideoLlama3Processor(image_processor=image, tokenizer=words, video_processor=video,
                                     chat_template=TEMPLATE)  # fmt: skip
    return VideoLlama3ForConditionalGeneration(config), processor


def _qwen3_vl(words: PreTrainedTokenizerFast, size: ModelSize) -> Made:
    half = size.hidden_size // size.num_heads // 2
    sections = [half - 2 * (5 * half // 16), 5 * half // 16, 5 * half // 16]  # as in the 4B model: 24, 20, 20 of 64
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections, "mrope_interleaved": True}
    vision = {**_tower(size), "depth": size.vision_num_layers, "num_heads": 4, "out_hidden_size": size.hidden_size,
              "num_position_embeddings": (SIDE_PX // size.patch_px) ** 2, "spatial_merge_size": size.merge,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    ids: dict[str, Any] = {f"{kind}_token_id": _id(words, f"<|{mark}|>")
           for kind, mark in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                              ("vision_end", "vision_end"))}  # fmt: skip
    text = _text(words, size, head_dim=2 * half, rope_parameters=rope)
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    common = {"patch_size": size.patch_px, "merge_size": size.merge, "temporal_patch_size": 2}
    least = (size.patch_px * size.merge) ** 2
    image = cast(Any, Qwen2VLImageProcessor)(
        **common, **MEAN_STD, size={"shortest_edge": least, "longest_edge": MAX_IMAGE_PX}
    )
    video = cast(Any, Qwen3VLVideoProcessor)(
        **common, size={"shortest_edge": least, "longest_edge": MAX_CLIP_PX}, cap_pixels_per_frame=False
    )
    return Qwen3VLForConditionalGeneration(config), Qwen3VLProcessor(image, words, video, chat_template=QWEN3_VL)


def _llava_onevision(words: PreTrainedTokenizerFast, size: ModelSize) -> Made:
    vision = {**_tower(size), "model_type": "siglip_vision_model", "num_hidden_layers": size.vision_num_layers,
              "num_attention_heads": 4, "image_size": SIDE_PX, "vision_use_head": False}  # fmt: skip
    grid = [[SIDE_PX * rows, SIDE_PX * columns] for rows in (1, 2) for columns in (1, 2)]
    config = LlavaOnevisionConfig(
        text_config={**_text(words, size), "model_type": "qwen2"}, vision_config=vision, image_grid_pinpoints=grid,
        image_token_index=_id(words, "<image>"), video_token_index=_id(words, "<video>"), tie_word_embeddings=True,
    )  # fmt: skip
    side = {"height": SIDE_PX, "width": SIDE_PX}
    image = cast(Any, LlavaOnevisionImageProcessor)(size=side, image_grid_pinpoints=grid, **MEAN_STD)
    video = cast(Any, LlavaOnevisionVideoProcessor)(size=side, **MEAN_STD)
    processor = LlavaOnevisionProcessor(
        image, words, video, num_image_tokens=(SIDE_PX // size.patch_px) ** 2, vision_feature_select_strategy="full",
        chat_template=LLAVA_ONEVISION,
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PADS = ("<|image_pad|>", "<|video_pad|>")
FAMILIES: dict[str, ToyFamily] = {
    "videollama3": ToyFamily(
        special=(*CHATML, *PADS), end="<|im_end|>", template=TEMPLATE, marks=(r" ?\d+\.\d+s:", ",?Time"),
        written=tuple(f"Time {t}.0s:,Time {t}.0s:" for t in range(10)), make=_video_llama3,
    ),
    "qwen3_vl": ToyFamily(
        special=(*CHATML, *PADS, "<|vision_start|>", "<|vision_end|>"), end="<|im_end|>", template=QWEN3_VL,
        marks=(r"<\d+\.\d+ seconds>",), written=tuple(f"<{t}.5 seconds>" for t in range(0, NUM_FRAMES, 2)),
        make=_qwen3_vl,
    ),
    "llava_onevision": ToyFamily(
        special=(*CHATML, "<image>", "<video>"), end="<|im_end|>", template=LLAVA_ONEVISION, marks=(), written=(),
        make=_llava_onevision,
    ),
}  # fmt: skip
