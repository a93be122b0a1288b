"""What tests of stage 4's forward passes share: checkpoints with alarms in fp32, and completions as one tensor.

Example:
    >>> checkpoint, wrapped = with_alarms("qwen3_vl", "sdpa")
    >>> prefix = Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()))
"""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from alarmkit import with_heads
from tinyfamilies import tiny_checkpoint
from torch import Tensor

from videosafety.models.checkpoint import Checkpoint, load
from videosafety.models.logprobs import Head, token_logprobs
from videosafety.models.prefix import Prefix
from videosafety.models.rollout import Completion
from videosafety.models.shared_prefix import naive_hidden, shared_hidden, shared_prefix_attention
from videosafety.models.wrapped import AlarmModel


@lru_cache
def with_alarms(name: str, attention: str = "sdpa", *, tied: bool = True) -> tuple[Checkpoint, AlarmModel]:
    """A tiny checkpoint of a family with random alarms; made once, so leave it as it was."""
    with TemporaryDirectory() as folder:
        tiny_checkpoint(name, Path(folder) / name, tied=tied)
        return with_heads(load(str(Path(folder) / name), attention=attention, dtype=torch.float32))


def padded(groups: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
    """(B, G, C) ids padded on the right with 0, and which of them are real."""
    longest = max(len(ids) for group in groups for ids in group)
    ids_BGC = torch.tensor([[ids + [0] * (longest - len(ids)) for ids in group] for group in groups])
    lengths_BG = torch.tensor([[len(ids) for ids in group] for group in groups])
    return ids_BGC, torch.arange(longest) < lengths_BG[..., None]


def shared(checkpoint: Checkpoint, prefix: Prefix, ids_BGC: Tensor) -> tuple[Tensor, Tensor]:
    """``shared_hidden`` with the decoder made ready."""
    with shared_prefix_attention(checkpoint.family.language_model(checkpoint.model)):
        return shared_hidden(checkpoint.model, prefix, ids_BGC)


def rescored(
    checkpoint: Checkpoint, head: Head, prefix: Prefix, groups: list[tuple[Completion, ...]], *, naive: bool = False
) -> tuple[Tensor, Tensor]:
    """(N,) log-probs of all completion tokens as the update computes them, and (N,) those kept at sampling."""
    ids_BGC, real_BGC = padded([[list(one.ids) for one in group] for group in groups])
    with torch.no_grad():
        run = naive_hidden(checkpoint.model, prefix, ids_BGC) if naive else shared(checkpoint, prefix, ids_BGC)
        now_N, _ = token_logprobs(head, run[1][real_BGC], ids_BGC[real_BGC], chunk=50)
    return now_N, torch.tensor([logprob for group in groups for one in group for logprob in one.logprobs])
