"""Tiny random checkpoints of every family: real classes, real processors, a few thousand weights.

Published checkpoints cannot be fetched here, so their chat templates are written anew with the same structure. A frame
of 32 px becomes four visual tokens, two frames together in the Qwen families.

Example:
    >>> folder = tiny_checkpoint("qwen3_vl", tmp_path / "tiny", tied=True)      # doctest: +SKIP
    >>> checkpoint = load(str(folder))                                          # doctest: +SKIP
"""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VideoLlama3ForConditionalGeneration,
)

from videosafety.models.checkpoint import save_model
from videosafety.toyworld.base_model import ModelSize, tiny, tokenizer
from videosafety.toyworld.world import World

FAMILY_NAMES = ("videollama3", "qwen2_5_vl", "qwen3_vl", "smolvlm2", "llava_onevision")
WIDTH, DEPTH, HEADS = 32, 2, 2
PATCH_PX, SIDE_PX = 8, 32
MEAN_STD = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}

QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou answer questions.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}"
    "{{ ':' if message.content[0].type == 'image' else ': ' }}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image>{% elif part.type == 'video' %}<video>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA = (
    "{% for message in messages %}<|im_start|>{{ message.role }} "
    "{% for kind in ['image', 'video'] %}{% for part in message.content if part.type == kind %}<{{ kind }}>\n"
    "{% endfor %}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}\n{{ part.text }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Made = tuple[PreTrainedModel, ProcessorMixin]


def tiny_checkpoint(name: str, folder: Path, *, tied: bool, seed: int = 0) -> Path:
    """Write a random checkpoint of the family ``name`` (one of ``FAMILY_NAMES``) to ``folder``."""
    torch.manual_seed(seed)
    model, processor = MAKERS[name](tied)
    initialise(model, seed=seed)
    end = processor.tokenizer.eos_token_id
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, processor.tokenizer.pad_token_id
    return save_model(model, processor, folder)


def initialise(model: nn.Module, *, seed: int) -> None:
    """Fan-in initialisation: with the usual 0.02 a tiny model says the same whatever it sees."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            std = 0.5 if "embed" in name and "patch" not in name else parameter[0].numel() ** -0.5
            nn.init.normal_(parameter, 0.0, std, generator=generator)


@lru_cache
def _toy_words() -> PreTrainedTokenizerFast:
    return tokenizer(World.of("small"), vocab_size=1024)


def words(template: str, special: tuple[str, ...], *, end: str) -> PreTrainedTokenizerFast:
    """The toy tokenizer with a family's special tokens and chat template."""
    own = deepcopy(_toy_words())
    own.add_tokens(list(special), special_tokens=True)
    own.eos_token, own.chat_template = end, template
    return own


def _text(tokens: PreTrainedTokenizerFast, **extra: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokens), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 4096,
        "bos_token_id": None, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **extra,
    }  # fmt: skip


def _video_llama3(tied: bool) -> Made:
    model, processor = tiny(
        World.of("small"), seed=0, size=ModelSize(vocab_size=1024, hidden_size=WIDTH, num_layers=DEPTH, num_heads=HEADS,
                                                  vision_hidden_size=WIDTH)
    )  # fmt: skip
    config = deepcopy(model.config)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    return VideoLlama3ForConditionalGeneration(config), processor


def _qwen_ids(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        f"{name}_token_id": tokens.convert_tokens_to_ids(f"<|{mark}|>")
        for name, mark in (("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"),
                           ("vision_end", "vision_end"))
    }  # fmt: skip


QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>")
QWEN_PIXELS = {"patch_size": PATCH_PX, "merge_size": 2, "temporal_patch_size": 2}
FRAME_SIZE = {"shortest_edge": (2 * PATCH_PX) ** 2, "longest_edge": 16 * SIDE_PX**2}
CLIP_SIZE = {"shortest_edge": (2 * PATCH_PX) ** 2, "longest_edge": 90 * SIDE_PX**2}


def _qwen2_5_vl(tied: bool) -> Made:
    tokens = words(QWEN, QWEN_MARKS, end="<|im_end|>")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    vision = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": HEADS,
              "patch_size": PATCH_PX, "window_size": 2 * PATCH_PX * 2, "out_hidden_size": WIDTH,
              "fullatt_block_indexes": [1]}  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=_text(tokens, rope_parameters=rope), vision_config=vision,
                              tie_word_embeddings=tied, **_qwen_ids(tokens))  # fmt: skip
    video = Qwen2VLVideoProcessor(**QWEN_PIXELS, size=FRAME_SIZE, cap_pixels_per_frame=False)
    image = Qwen2VLImageProcessor(**QWEN_PIXELS, size=FRAME_SIZE)
    processor = Qwen2_5_VLProcessor(image, tokens, video, chat_template=QWEN)
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _qwen3_vl(tied: bool) -> Made:
    tokens = words(QWEN, QWEN_MARKS, end="<|im_end|>")
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    vision = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_heads": HEADS,
              "patch_size": PATCH_PX, "out_hidden_size": WIDTH, "num_position_embeddings": 16,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    text = _text(tokens, head_dim=WIDTH // HEADS, rope_parameters=rope)
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **_qwen_ids(tokens))
    video = Qwen3VLVideoProcessor(**QWEN_PIXELS, size=CLIP_SIZE, cap_pixels_per_frame=False)
    image = Qwen2VLImageProcessor(**QWEN_PIXELS, size=FRAME_SIZE, **MEAN_STD)
    return Qwen3VLForConditionalGeneration(config), Qwen3VLProcessor(image, tokens, video, chat_template=QWEN)


def _smolvlm2(tied: bool) -> Made:
    tiles = tuple(f"<row_{row}_col_{col}>" for row in (1, 2) for col in (1, 2))
    special = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)
    tokens = words(SMOLVLM, special, end="<end_of_utterance>")
    vision = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": DEPTH,
              "num_attention_heads": HEADS, "image_size": SIDE_PX, "patch_size": PATCH_PX}  # fmt: skip
    text = {"model_type": "llama", **_text(tokens)}
    config = SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2, tie_word_embeddings=tied,
                           image_token_id=tokens.convert_tokens_to_ids("<image>"))  # fmt: skip
    tile = {"longest_edge": SIDE_PX}
    image = SmolVLMImageProcessor(size={"longest_edge": 2 * SIDE_PX}, max_image_size=tile, do_image_splitting=True,
                                  **MEAN_STD)  # fmt: skip
    video = SmolVLMVideoProcessor(size=tile, max_image_size=tile, num_frames=64, fps=1, **MEAN_STD)
    processor = SmolVLMProcessor(image, tokens, video, image_seq_len=4, chat_template=SMOLVLM)
    return SmolVLMForConditionalGeneration(config), processor


def _llava_onevision(tied: bool) -> Made:
    tokens = words(LLAVA, ("<image>", "<video>"), end="<|im_end|>")
    grid = [[SIDE_PX * rows, SIDE_PX * cols] for rows in (1, 2) for cols in (1, 2)]
    vision = {"model_type": "siglip_vision_model", "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH,
              "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": SIDE_PX,
              "patch_size": PATCH_PX, "vision_use_head": False}  # fmt: skip
    text = {"model_type": "qwen2", **_text(tokens)}
    ids = {f"{kind}_token_index": tokens.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video")}
    config = LlavaOnevisionConfig(text_config=text, vision_config=vision, image_grid_pinpoints=grid,
                                  tie_word_embeddings=tied, **ids)  # fmt: skip
    size = {"height": SIDE_PX, "width": SIDE_PX}
    image = LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid, **MEAN_STD)
    video = LlavaOnevisionVideoProcessor(size=size, **MEAN_STD)
    processor = LlavaOnevisionProcessor(
        image, tokens, video, num_image_tokens=(SIDE_PX // PATCH_PX) ** 2, vision_feature_select_strategy="full",
        chat_template=LLAVA,
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config), processor


MAKERS: dict[str, Callable[[bool], Made]] = {
    "videollama3": _video_llama3,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm2": _smolvlm2,
    "llava_onevision": _llava_onevision,
}
