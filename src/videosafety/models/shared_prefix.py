"""One forward pass for a prompt and all its completions: the prompt once, G completions behind it.

Each completion sees the prompt and itself, at the positions it would have alone, so log-probs and gradients are those
of G separate sequences while the prompt is computed once. What is written here is attention: a row of P + G·C tokens is
split into the prompt, which attends causally (the fast kernels apply), and the completions, whose queries meet the keys
of the prompt and their own. A dense mask over the whole row, or FlexAttention over blocks of it, computes the same;
neither is needed, and the dense one costs (P + G·C)² where this costs P² + G·C·(P + C).

The completions' mask travels as the ``attention_mask`` itself, (B, G, C, P + C): transformers hands a mask of four axes
to the layers as it is, so nothing is kept in a global and gradient checkpointing works.

Axes: B prompts, P prompt tokens, G completions, C completion tokens, S = P + C keys, T = P + G·C, H heads or hidden
channels, D channels of a head, X position axes.

Example:
    >>> with shared_prefix_attention(family.language_model(model)):             # doctest: +SKIP
    ...     hidden_BGCH = shared_hidden(model, prefix, ids_BGC)                 # doctest: +SKIP
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from videosafety.models.prefix import Prefix, axes

Attended = tuple[Tensor, Tensor | None]
NAME = "shared_prefix_"


def why_not(language: nn.Module) -> str | None:
    """Why a decoder cannot share a prefix; None where it can."""
    config = cast(Any, language).config
    if not getattr(language, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return "not all of its layers see the whole prompt"
    return None


@contextmanager
def shared_prefix_attention(language: nn.Module) -> Iterator[None]:
    """Let a decoder take shared prefixes, by the kind of attention that it has; all else it computes as before.

    The backward pass may come later: layers that gradient checkpointing computes again do it with this attention.
    """
    config = cast(Any, language).config
    name = NAME + ("eager" if config._attn_implementation.endswith("eager") else "sdpa")
    layers = [cast(Any, m) for m in language.modules() if getattr(m, "gradient_checkpointing", False)]
    stock = [layer._gradient_checkpointing_func for layer in layers]
    for layer, checkpoint in zip(layers, stock, strict=True):
        layer._gradient_checkpointing_func = partial(_checkpointed, checkpoint, config, name)
    try:
        with _attending(config, name):
            yield
    finally:
        for layer, checkpoint in zip(layers, stock, strict=True):
            layer._gradient_checkpointing_func = checkpoint


@contextmanager
def _attending(config: Any, name: str) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _checkpointed(checkpoint: Callable[..., Any], config: Any, name: str, layer: Callable[..., Any], *args: Any) -> Any:
    """A layer under ``checkpoint``; whenever it is computed, its attention is ``name``."""

    def attending(*given: Any) -> Any:
        with _attending(config, name):
            return layer(*given)

    return checkpoint(attending, *args)


def shared_hidden(model: PreTrainedModel, prefix: Prefix, ids_BGC: Tensor) -> tuple[Tensor, Tensor]:
    """What the LM head reads: (B, P, H) over the prompts, and (B, G, C, H) from which each completion token follows.

    ``ids_BGC`` is padded on the right with any id. The decoder must be inside ``shared_prefix_attention``.
    """
    num, width = prefix.ids_BP.shape
    length = ids_BGC.shape[-1]
    flat = ids_BGC.flatten(1)
    steps_C = torch.arange(length, device=flat.device)
    after_BT = (prefix.next_B[:, None, None] + steps_C).expand(num, ids_BGC.shape[1], length).flatten(1)
    positions_XBT = torch.cat([prefix.positions_XBP, after_BT.expand(len(prefix.positions_XBP), -1, -1)], dim=2)
    ids_BT, mask_BGCS = torch.cat([prefix.ids_BP, flat], dim=1), completion_mask(prefix.mask_BP, ids_BGC)
    given = {"input_ids": ids_BT, "attention_mask": mask_BGCS, "position_ids": axes(positions_XBT)}
    hidden_BTH = prefix.run(model, **given).last_hidden_state
    prompt_BPH, behind_BGCH = hidden_BTH[:, :width], hidden_BTH[:, width:].unflatten(1, ids_BGC.shape[1:])
    return prompt_BPH, shifted(prompt_BPH, behind_BGCH, prefix.lengths_B)


def naive_hidden(model: PreTrainedModel, prefix: Prefix, ids_BGC: Tensor) -> tuple[Tensor, Tensor]:
    """The same as ``shared_hidden`` by G passes over prompt and completion, for any decoder: the reference."""
    found = [_one(model, prefix, ids_BGC[:, g]) for g in range(ids_BGC.shape[1])]
    return found[0][0], torch.stack([behind for _, behind in found], dim=1)


def _one(model: PreTrainedModel, prefix: Prefix, ids_BC: Tensor) -> tuple[Tensor, Tensor]:
    """A pass over prompts of any length, each followed at once by its completion."""
    num, length = ids_BC.shape
    width = prefix.ids_BP.shape[1]
    at_BC = prefix.lengths_B[:, None] + torch.arange(length, device=ids_BC.device)
    positions_XBT = nn.functional.pad(prefix.positions_XBP, (0, length))
    after_BC = prefix.next_B[:, None] + torch.arange(length, device=ids_BC.device)
    positions_XBT = positions_XBT.scatter(2, at_BC.expand(len(positions_XBT), -1, -1),
                                          after_BC.expand(len(positions_XBT), -1, -1))  # fmt: skip
    ids_BT = nn.functional.pad(prefix.ids_BP, (0, length)).scatter(1, at_BC, ids_BC)
    mask_BT = nn.functional.pad(prefix.mask_BP, (0, length)).scatter(1, at_BC, torch.ones_like(ids_BC))
    hidden_BTH = prefix.run(
        model, input_ids=ids_BT, attention_mask=mask_BT, position_ids=axes(positions_XBT)
    ).last_hidden_state
    from_BC = (at_BC - 1)[..., None].expand(num, length, hidden_BTH.shape[-1])
    return hidden_BTH[:, :width], hidden_BTH.gather(1, from_BC)


def shifted(prompt_BPH: Tensor, behind_BGCH: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, G, C, H) states from which each completion token follows: the prompt's last one, then the completion's."""
    last_BH = prompt_BPH[torch.arange(len(prompt_BPH), device=prompt_BPH.device), lengths_B - 1]
    first_BG1H = last_BH[:, None, None].expand(-1, behind_BGCH.shape[1], 1, -1)
    return torch.cat([first_BG1H, behind_BGCH[:, :, :-1]], dim=2)


def completion_mask(mask_BP: Tensor, ids_BGC: Tensor) -> Tensor:
    """(B, G, C, P + C) bool: the prompt's real tokens, and of the own completion what came before."""
    num, per_prompt, length = ids_BGC.shape
    own_CC = torch.ones(length, length, dtype=torch.bool, device=mask_BP.device).tril()
    prompt = mask_BP.bool()[:, None, None].expand(num, per_prompt, length, -1)
    return torch.cat([prompt, own_CC.expand(num, per_prompt, length, length)], dim=3)


def _is_shared(query_BHTD: Tensor, mask: Tensor | None) -> bool:
    """Is the mask that of completions? A stock mask of four axes has a row for each query."""
    return mask is not None and mask.ndim == 4 and mask.shape[2] != query_BHTD.shape[2]


def _sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> Attended:
    """Scaled dot product attention by torch; the prompt's keys are copied for every completion."""
    stock: Callable[..., Attended] = sdpa_attention_forward
    if attention_mask is None or not _is_shared(query, attention_mask):
        return stock(module, query, key, value, attention_mask, **given)
    num, group, length, _ = attention_mask.shape
    width = attention_mask.shape[3] - length
    knobs = {name: given.get(name) for name in ("scaling",)} | {"dropout": given.get("dropout", 0.0)}
    prompt, _ = stock(module, *(x[:, :, :width] for x in (query, key, value)), None, is_causal=True, **knobs)

    def own(x: Tensor) -> Tensor:
        behind: Tensor = x[:, :, width:].unflatten(2, (group, length))
        return behind.transpose(1, 2)

    def whole(x: Tensor) -> Tensor:
        shared = x[:, None, :, :width].expand(-1, group, -1, -1, -1)
        return torch.cat([shared, own(x)], dim=3).flatten(0, 1)

    behind, _ = stock(module, own(query).flatten(0, 1), whole(key), whole(value),
                      attention_mask.flatten(0, 1)[:, None], is_causal=False, **knobs)  # fmt: skip
    return torch.cat([prompt, behind.unflatten(0, (num, group)).flatten(1, 2)], dim=1), None


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> Attended:
    """Attention written out; all completions meet one copy of the prompt's keys."""
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scaling, dropout = given.get("scaling") or query.shape[-1] ** -0.5, given.get("dropout", 0.0)

    def weights(scores: Tensor) -> Tensor:
        soft = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        return nn.functional.dropout(soft, p=dropout, training=module.training)

    if attention_mask is None or not _is_shared(query, attention_mask):
        scores = query @ key.transpose(2, 3) * scaling
        out = weights(scores if attention_mask is None else scores + attention_mask) @ value
        return out.transpose(1, 2).contiguous(), None
    group, length = attention_mask.shape[1:3]
    width = attention_mask.shape[3] - length

    def hidden(scores: Tensor, seen: Tensor) -> Tensor:  # autocast gives products another type than their factors
        return scores.masked_fill(~seen, torch.finfo(scores.dtype).min)

    (query_p, query_c), (key_p, key_c), (value_p, value_c) = (
        (x[:, :, :width], x[:, :, width:].unflatten(2, (group, length))) for x in (query, key, value)
    )
    causal_PP = torch.ones(width, width, dtype=torch.bool, device=query.device).tril()
    prompt = weights(hidden(query_p @ key_p.transpose(2, 3) * scaling, causal_PP)) @ value_p
    to_prompt = (query_c.flatten(2, 3) @ key_p.transpose(2, 3)).unflatten(2, (group, length))
    scores = torch.cat([to_prompt, query_c @ key_c.transpose(3, 4)], dim=-1) * scaling
    soft = weights(hidden(scores, attention_mask[:, None]))
    behind = soft[..., :width].flatten(2, 3) @ value_p + (soft[..., width:] @ value_c).flatten(2, 3)
    return torch.cat([prompt, behind], dim=2).transpose(1, 2).contiguous(), None


for _kind, _attend, _mask in (("sdpa", _sdpa, sdpa_mask), ("eager", _eager, eager_mask)):
    ALL_ATTENTION_FUNCTIONS.register(NAME + _kind, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME + _kind, _mask)
