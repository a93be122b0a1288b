"""Make the tiny model of the toy world: a real class, a tokenizer trained on the toy text, random weights.

VideoLLaMA3, the paper's model, unless another of ``base_families`` is named. Fan-in initialisation decides whether
anything visual is learned at this size: every matrix has std 1/sqrt(fan-in), half of it on projections back into the
residual stream, embeddings 0.5.

Example:
    >>> model, processor = tiny(World.of("small"), seed=0)                      # doctest: +SKIP
"""

import json

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from videosafety.core.errors import InputError, did_you_mean
from videosafety.toyworld.base_families import FAMILIES, TEMPLATE, ModelSize, ToyFamily
from videosafety.toyworld.dialogue import corpus
from videosafety.toyworld.world import World

__all__ = ["TEMPLATE", "VIDEO_LLAMA3", "ModelSize", "family_named", "tiny", "tokenizer"]

VIDEO_LLAMA3 = "videollama3"
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー"  # scripts without spaces: a character is a word
WORD = rf" ?(?![{UNSPACED}])\p{{L}}(?:(?![{UNSPACED}])[\p{{L}}\p{{M}}])*"
REST = r"[^\s\p{L}\p{M}]| "
RESIDUAL = ("o_proj", "out_proj", "down_proj", "fc2", "attn.proj")


def family_named(name: str) -> ToyFamily:
    """A family of ``base_families``. Raises InputError: no such family."""
    if name not in FAMILIES:
        raise InputError(f"no toy model of the family {name!r}", where="family", fix=did_you_mean(name, FAMILIES))
    return FAMILIES[name]


def tokenizer(world: World, *, vocab_size: int = 2048, family: str = VIDEO_LLAMA3) -> PreTrainedTokenizerFast:
    """A BPE tokenizer over characters with byte fallback, trained on every sentence of the world."""
    own = family_named(family)
    names = tuple(thing.name for thing in world.things)
    lines = [line for language in world.languages for line in corpus(language, names)]
    lines += [line for line in own.written for _ in range(200)] + ["user\nassistant\nsystem\n"] * 200
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
    words = "|".join((f"[{UNSPACED}]", WORD, *own.marks, REST))
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(words), "isolated")
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[*own.special, *bytes_],
                                                       show_progress=False))  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=_without_byte_markup(bpe, own.special), eos_token=own.end,
                                   pad_token=own.special[0], additional_special_tokens=list(own.special[1:]),
                                   padding_side="left")  # fmt: skip
    fast.chat_template = own.template
    return fast


def _without_byte_markup(bpe: Tokenizer, special: tuple[str, ...]) -> Tokenizer:
    """The trainer can only reserve byte tokens as special ones; a text "<0x41>" must not match them."""
    state = json.loads(bpe.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


def tiny(
    world: World, *, seed: int, size: ModelSize | None = None, family: str = VIDEO_LLAMA3
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A tiny model of a family with random weights, and its processor.

    Raises:
        InputError: no such family.
    """
    size = size or ModelSize()
    words = tokenizer(world, vocab_size=size.vocab_size, family=family)
    torch.manual_seed(seed)
    model, processor = family_named(family).make(words, size)
    generation = model.generation_config
    generation.eos_token_id, generation.pad_token_id = words.eos_token_id, words.pad_token_id
    _initialise(model, seed=seed)
    return model, processor


def _initialise(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        gain = 0.5 if any(part in name for part in RESIDUAL) else 1.0
        std = 0.5 if "embed_tokens" in name else gain * parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, 0.0, std, generator=generator)
