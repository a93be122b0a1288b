"""A model with its alarms as parameters of their own: what stages 1 to 4 train.

The alarms' input vectors are rows of a small parameter that takes the place of the embedding's rows, so they can have
their own learning rate and their movement can be measured; heads likewise. ``models/fold.py`` writes them back. With
tied embeddings the alarm rows are also what the LM head scores, as they will be once folded; verdict ids do not exist
before folding and get no probability.

Axes: B rows, T tokens, H hidden channels, V vocabulary, N chosen positions, A alarms.

Example:
    >>> wrapped = AlarmModel(checkpoint.model, alarm)                           # doctest: +SKIP
    >>> hidden_BTH = wrapped({"input_ids": ids, "attention_mask": mask})        # doctest: +SKIP
    >>> wrapped.alarm_logits(hidden_BTH, ids)                                   # doctest: +SKIP
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from videosafety.core.alarm import MODALITIES
from videosafety.models.alarm import Alarm, alarm_positions, read_heads


class AlarmModel(nn.Module):
    """``model`` with alarm rows and heads in fp32; ``forward`` gives the last hidden state.

    ``alarm`` None: a plain model behind the same calls, whose alarm logits are all nan.
    """

    def __init__(self, model: PreTrainedModel, alarm: Alarm | None) -> None:
        super().__init__()
        self.model = model
        self.alarm = alarm
        self._hook: RemovableHandle | None = None
        if alarm is None:
            return
        embedding = cast(Any, model.get_input_embeddings())
        head = cast(Any, model.get_output_embeddings())
        self.tied = head.weight is embedding.weight
        self.rows_AH = nn.Parameter(embedding.weight.detach()[list(alarm.token_ids)].float().clone())
        self.head_weight_AH = nn.Parameter(alarm.weight_AH.to(embedding.weight.device).float().clone())
        self.head_bias_A = nn.Parameter(alarm.bias_A.to(embedding.weight.device).float().clone())
        self._hook = embedding.register_forward_hook(self._place_rows)

    def _place_rows(self, module: nn.Module, args: tuple[Tensor, ...], embedded_BTH: Tensor) -> Tensor:
        assert self.alarm is not None
        for token, row_H in zip(self.alarm.token_ids, self.rows_AH, strict=True):
            here = (args[0] == token).unsqueeze(-1)
            embedded_BTH = torch.where(here, row_H.to(embedded_BTH.dtype), embedded_BTH)
        return embedded_BTH

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, T, H): what the LM head reads. ``inputs`` are a family's tensors without labels."""
        base = cast(Any, self.model.base_model)
        hidden: Tensor = base(**inputs, use_cache=False).last_hidden_state
        return hidden

    def answer_logits(self, hidden_NH: Tensor) -> Tensor:
        """(N, V) next-token logits at chosen positions."""
        logits_NV: Tensor = cast(Any, self.model.get_output_embeddings())(hidden_NH)
        if self.alarm is None:
            return logits_NV
        logits_NV = logits_NV.index_fill(-1, self._ids(self.alarm.all_ids, logits_NV), -torch.inf)
        if not self.tied:
            return logits_NV
        own_NA = hidden_NH @ self.rows_AH.to(hidden_NH.dtype).T
        return logits_NV.index_copy(-1, self._ids(self.alarm.token_ids, logits_NV), own_NA.to(logits_NV.dtype))

    def _ids(self, ids: Any, like: Tensor) -> Tensor:
        return torch.tensor(list(ids), device=like.device)

    def alarm_logits(self, hidden_BTH: Tensor, input_ids_BT: Tensor) -> Tensor:
        """(B, A) ``w·h + b`` in fp32; nan where a row has no such alarm."""
        if self.alarm is None:
            return torch.full((len(input_ids_BT), len(MODALITIES)), torch.nan, device=input_ids_BT.device)
        at_BA = alarm_positions(input_ids_BT, self.alarm.token_ids)
        return read_heads(hidden_BTH, at_BA, self.head_weight_AH, self.head_bias_A)

    def unwrap(self) -> PreTrainedModel:
        """The model without our hook; its alarm rows are whatever the embedding holds."""
        if self._hook is not None:
            self._hook.remove()
        return self.model
