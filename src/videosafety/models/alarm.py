"""The alarms: two tokens in the prompt, two linear heads that read the model's last hidden state there.

Paper section 4.2. How we differ: *train as parameters, ship as vocabulary*. ``add_alarms`` gives the tokens ids of
their own and lets the chat template place them; ``models/wrapped.py`` trains their input vectors and heads as
parameters; ``models/fold.py`` writes both back into the embedding and the LM head. What is shipped is an ordinary
checkpoint with a small sidecar. In the released code the heads are dropped after stage 2 and the model needs a class of
its own.

Score of an alarm: ``w·h + b`` on the final-norm hidden state at its token, before the first answer token; its sigmoid
is the probability of harm. The same number comes from log-probs of four *verdict* tokens, see ``from_log_probs``.

Axes: B rows, T tokens, A alarms (visual, textual), H hidden channels.

Example:
    >>> alarm = add_alarms(checkpoint.model, checkpoint.processor)              # doctest: +SKIP
    >>> alarm.logits(hidden_BTH, input_ids_BT).sigmoid()                        # doctest: +SKIP
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import safetensors
import safetensors.torch
import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from videosafety.core.alarm import FORMAT, MODALITIES, SIDECAR, TOKENS, Modality
from videosafety.core.errors import CheckpointError
from videosafety.core.store import write_bytes
from videosafety.models.placement import place, placed

ROUNDING = 2.0**-8  # of a bf16 number, relative

Init = Literal["zero", "mean"]


@dataclass(frozen=True)
class Alarm:
    """What it takes to read the alarms of a checkpoint.

    ``token_ids`` (visual, textual); ``verdict_ids`` (harmful, safe) of each; ``weight_AH`` and ``bias_A`` in fp32.
    ``scale`` is what the verdict rows were multiplied with, None while they are not written. ``modalities`` are the
    alarms that the chat template places. ``measured`` is what folding measured, for people.
    """

    token_ids: tuple[int, int]
    verdict_ids: tuple[tuple[int, int], tuple[int, int]]
    weight_AH: Tensor
    bias_A: Tensor
    modalities: tuple[Modality, ...] = MODALITIES
    scale: float | None = None
    measured: str = "{}"

    @property
    def all_ids(self) -> list[int]:
        """Alarm and verdict ids: no generation may sample any of them."""
        return [*self.token_ids, *(one for pair in self.verdict_ids for one in pair)]

    def positions(self, input_ids_BT: Tensor) -> Tensor:
        """(B, A) index of each alarm in each row, its last occurrence; −1 where the row has none."""
        return alarm_positions(input_ids_BT, self.token_ids)

    def logits(self, hidden_BTH: Tensor, input_ids_BT: Tensor) -> Tensor:
        """(B, A) ``w·h + b`` at the alarms, fp32; nan where a row has no such alarm."""
        at_BA = self.positions(input_ids_BT)
        weight, bias = (x.to(hidden_BTH.device) for x in (self.weight_AH, self.bias_A))
        return read_heads(hidden_BTH, at_BA, weight, bias)

    def from_log_probs(self, harmful: float, safe: float, modality: Modality) -> float:
        """The same logit from the log-probs of the two verdict tokens right after the alarm: the normaliser cancels.

        Raises:
            CheckpointError: this checkpoint has no verdict rows yet.
        """
        if self.scale is None:
            raise CheckpointError("the verdict rows are not written", where=SIDECAR, fix="fold the checkpoint first")
        return (harmful - safe) / self.scale + float(self.bias_A[MODALITIES.index(modality)])


def alarm_positions(input_ids_BT: Tensor, token_ids: Sequence[int]) -> Tensor:
    """(B, A) last position of each token in each row; −1 where it does not occur."""
    index_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
    found = [torch.where(input_ids_BT == token, index_T, -1).amax(dim=1) for token in token_ids]
    return torch.stack(found, dim=1)


def read_heads(hidden_BTH: Tensor, at_BA: Tensor, weight_AH: Tensor, bias_A: Tensor) -> Tensor:
    """(B, A) ``w·h + b`` in fp32 at the given positions; nan at position −1."""
    rows = torch.arange(len(at_BA), device=at_BA.device)[:, None]
    with torch.autocast(hidden_BTH.device.type, enabled=False):
        hidden_BAH = hidden_BTH[rows, at_BA.clamp(min=0)].float()
        logits_BA = (hidden_BAH * weight_AH.float()).sum(-1) + bias_A.float()
    return logits_BA.masked_fill(at_BA < 0, torch.nan)


def add_alarms(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    modalities: Sequence[Modality] = MODALITIES,
    init: Init = "zero",
    where: str = "",
) -> Alarm:
    """Give a model the six tokens, in place; heads are zero and the chat template places ``modalities``.

    Spare rows of a padded embedding are used where there are six, else the embedding grows. ``init`` is the alarms'
    first input vector: zero as in the released code, or the mean of the vocabulary's.

    Raises:
        CheckpointError: the tokenizer has one of the tokens already and the checkpoint no sidecar, or no chat template.
    """
    tokenizer = cast(Any, processor).tokenizer
    taken = [token for token in TOKENS if token in tokenizer.get_vocab()]
    if taken:
        raise CheckpointError(f"the tokenizer already has {taken[0]} and the checkpoint no {SIDECAR}", where=where,
                              fix="copy the sidecar beside the checkpoint, or start without alarms")  # fmt: skip
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS], special_tokens=True)
    ids = [int(i) for i in tokenizer.convert_tokens_to_ids(list(TOKENS))]
    embedding = cast(Any, model.get_input_embeddings())
    num_old = len(embedding.weight)
    if max(ids) >= num_old:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        embedding = cast(Any, model.get_input_embeddings())
    head = cast(Any, model.get_output_embeddings())
    with torch.no_grad():
        head.weight[ids] = 0.0
        embedding.weight[ids] = 0.0
        if init == "mean":
            embedding.weight[ids[:2]] = embedding.weight[: min(ids)].mean(dim=0)
    set_template(processor, modalities)
    pairs = ((ids[2], ids[3]), (ids[4], ids[5]))
    zeros = torch.zeros(len(MODALITIES), embedding.weight.shape[1])
    return Alarm((ids[0], ids[1]), pairs, zeros, torch.zeros(len(MODALITIES)), tuple(modalities))


def taken_ids(tokenizer: Any) -> list[int]:
    """Ids of those of the six tokens that a tokenizer has, whether or not there is a sidecar."""
    return [int(id_) for id_, token in tokenizer.added_tokens_decoder.items() if token.content in TOKENS]


def set_template(processor: ProcessorMixin, modalities: Sequence[Modality]) -> None:
    """Let the processor and its tokenizer place these alarms.

    Raises:
        CheckpointError: neither has a chat template, or one has several by name.
    """
    owners = [one for one in (processor, cast(Any, processor).tokenizer) if getattr(one, "chat_template", None)]
    if not owners:
        raise CheckpointError("the checkpoint has no chat template", fix="add its family's chat_template.jinja")
    if not all(isinstance(one.chat_template, str) for one in owners):
        raise CheckpointError("the checkpoint has several chat templates", fix="keep the one that shows clips")
    for owner in owners:
        owner.chat_template = place(cast(str, owner.chat_template), modalities)


def write_sidecar(alarm: Alarm, folder: Path) -> None:
    """``alarm_heads.safetensors``: the heads, and what else ``read_sidecar`` needs as metadata.

    Equal alarms give equal bytes: the package writes metadata in an order that differs from call to call, so the header
    is written anew, sorted.
    """
    metadata = {"format": FORMAT, "scale": "" if alarm.scale is None else repr(alarm.scale),
                "modalities": " ".join(alarm.modalities), "measured": alarm.measured}  # fmt: skip
    tensors = {"weight": alarm.weight_AH.float().contiguous().cpu(), "bias": alarm.bias_A.float().contiguous().cpu()}
    blob = safetensors.torch.save(tensors, metadata)
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.dumps(json.loads(blob[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_bytes(folder / SIDECAR, len(header).to_bytes(8, "little") + header + blob[end:])


def read_sidecar(folder: Path, *, tokenizer: Any, template: str, hidden_size: int) -> Alarm | None:
    """The alarm of a checkpoint folder; None for a checkpoint without one.

    Raises:
        CheckpointError: the sidecar is damaged, or its heads do not fit this checkpoint. See also ``check_rows``.
    """
    file = folder / SIDECAR
    if not file.is_file():
        return None
    vocabulary = tokenizer.get_vocab()
    lost = next((token for token in TOKENS if token not in vocabulary), None)
    fix = "copy the sidecar that was saved with this checkpoint"
    if lost is not None:
        raise CheckpointError(f"there is a sidecar, but the tokenizer has no {lost}", where=str(file), fix=fix)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            weight, bias = opened.get_tensor("weight").float(), opened.get_tensor("bias").float()
            scale = float(metadata["scale"]) if metadata.get("scale") else None
    except Exception as error:
        raise CheckpointError(f"the sidecar cannot be read ({type(error).__name__})", where=str(file),
                              fix=fix) from error  # fmt: skip
    shape = (len(MODALITIES), hidden_size)
    sound = tuple(weight.shape) == shape and tuple(bias.shape) == shape[:1] and weight.isfinite().all()
    sound = sound and bool(bias.isfinite().all()) and (scale is None or 0 < scale < math.inf)
    if metadata.get("format") != FORMAT or not sound:
        what = f"the sidecar is not one of format {FORMAT} with heads of shape {shape}"
        raise CheckpointError(what, where=str(file), fix=fix)
    ids = [int(vocabulary[token]) for token in TOKENS]
    pairs = ((ids[2], ids[3]), (ids[4], ids[5]))
    return Alarm((ids[0], ids[1]), pairs, weight, bias, placed(template), scale, metadata.get("measured", "{}"))


def check_rows(alarm: Alarm, head_VH: Tensor, *, where: str) -> None:
    """Refuse a sidecar whose heads are not what the verdict rows of the LM head say: it was saved with other weights.

    Rows that went through bf16 may differ from the heads by its rounding, so a foreign sidecar is found unless its
    heads lie within that.

    Raises:
        CheckpointError: they differ by more.
    """
    if alarm.scale is None:
        return
    for (harmful, safe), weight_H in zip(alarm.verdict_ids, alarm.weight_AH, strict=True):
        one_H, other_H = (head_VH.detach()[i].float().cpu() for i in (harmful, safe))
        rounding = ROUNDING * torch.linalg.vector_norm(one_H.abs() + other_H.abs())
        if torch.linalg.vector_norm(one_H - other_H - alarm.scale * weight_H) > rounding + 1e-6:
            raise CheckpointError("the sidecar was saved with other weights", where=f"{where}/{SIDECAR}",
                                  fix="copy the sidecar that was saved with this checkpoint")  # fmt: skip
