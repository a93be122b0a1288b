"""Make the tiny VideoLLaMA3 of the toy world: the real class, a tokenizer trained on the toy text, random weights.

Fan-in initialisation decides whether anything visual is learned at this size: every matrix has std 1/sqrt(fan-in), half
of it on projections back into the residual stream, embeddings 0.5.

Example:
    >>> model, processor = tiny(World.of("small"), seed=0)                      # doctest: +SKIP
"""

import json
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
    VideoLlama3VisionConfig,
)

from videosafety.core.recipe import Config, knob
from videosafety.toyworld.dialogue import corpus
from videosafety.toyworld.scenes import SIDE_PX
from videosafety.toyworld.world import World

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー"  # scripts without spaces: a character is a word
WORD = rf" ?(?![{UNSPACED}])\p{{L}}(?:(?![{UNSPACED}])[\p{{L}}\p{{M}}])*"
WORDS = rf"[{UNSPACED}]|{WORD}| ?\d+\.\d+s:|,?Time|[^\s\p{{L}}\p{{M}}]| "
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ['image', 'image_url'] %}<|image_pad|>\n"
    "{% elif part['type'] in ['video', 'video_url'] %}<|video_pad|>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_CLIP_PX = 90 * SIDE_PX**2  # of all frames together: larger clips are shrunk to fit the context
RESIDUAL = ("o_proj", "out_proj", "down_proj", "fc2")


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


def tokenizer(world: World, *, vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A BPE tokenizer over characters with byte fallback, trained on every sentence of the world."""
    names = tuple(thing.name for thing in world.things)
    lines = [line for language in world.languages for line in corpus(language, names)]
    lines += [f"Time {t}.0s:,Time {t}.0s:" for t in range(10) for _ in range(200)] + ["user\nassistant\nsystem\n"] * 200
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[*SPECIAL, *bytes_],
                                                       show_progress=False))  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=_without_byte_markup(bpe), eos_token="<|im_end|>",
                                   pad_token="<|endoftext|>", additional_special_tokens=list(SPECIAL[1:]),
                                   padding_side="left")  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


def _without_byte_markup(bpe: Tokenizer) -> Tokenizer:
    """The trainer can only reserve byte tokens as special ones; a text "<0x41>" must not match them."""
    state = json.loads(bpe.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(state))


def processor(words: PreTrainedTokenizerFast, *, patch_px: int, merge: int) -> VideoLlama3Processor:
    """Toy pictures and clips at their own size, larger ones shrunk; every frame keeps its tokens (compression off)."""
    least, most = patch_px**2 * merge**2, 16 * SIDE_PX**2
    common = {"patch_size": patch_px, "merge_size": merge, "temporal_patch_size": 1, "min_pixels": least}
    image = cast(Any, VideoLlama3ImageProcessor)(**common, max_pixels=most)
    video = cast(Any, VideoLlama3VideoProcessor)(
        **common, max_pixels=MAX_CLIP_PX, max_frames=180, use_token_compression=False
    )
    return VideoLlama3Processor(image_processor=image, tokenizer=words, video_processor=video, chat_template=TEMPLATE)


def tiny(
    world: World, *, seed: int, size: ModelSize | None = None
) -> tuple[VideoLlama3ForConditionalGeneration, VideoLlama3Processor]:
    """A tiny VideoLLaMA3 with random weights and its processor."""
    size = size or ModelSize()
    words = tokenizer(world, vocab_size=size.vocab_size)
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=size.hidden_size, intermediate_size=3 * size.hidden_size,
        num_hidden_layers=size.num_layers, num_attention_heads=size.num_heads, num_key_value_heads=size.num_heads,
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    vision = VideoLlama3VisionConfig(
        hidden_size=size.vision_hidden_size, intermediate_size=3 * size.vision_hidden_size,
        num_hidden_layers=size.vision_num_layers, num_attention_heads=4, patch_size=size.patch_px,
    )  # fmt: skip
    ids = cast(Any, words.convert_tokens_to_ids)
    config = VideoLlama3Config(text_config=text, vision_config=vision, image_token_id=ids("<|image_pad|>"),
                               video_token_id=ids("<|video_pad|>"), tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(seed)
    model = VideoLlama3ForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    _initialise(model, seed=seed)
    return model, processor(words, patch_px=size.patch_px, merge=size.merge)


def _initialise(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        gain = 0.5 if any(part in name for part in RESIDUAL) else 1.0
        std = 0.5 if "embed_tokens" in name else gain * parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, 0.0, std, generator=generator)
