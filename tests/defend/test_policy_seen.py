"""What a prompt and its completions hash to: any change between sampling and update shows, on the CPU and elsewhere."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from devicekit import accelerator
from torch import Tensor

from videosafety.defend.policy import seen
from videosafety.models.prefix import Prefix

FEATURES = torch.arange(24.0).reshape(2, 3, 4)


def shown(features: Any = FEATURES, said: int = 5, *, device: Any = "cpu") -> str:
    there = [one.to(device) for one in features] if isinstance(features, list) else features.to(device)
    ids, vision = torch.tensor([[1, 2, 3]], device=device), {"video": SimpleNamespace(pooler_output=there)}
    prefix = Prefix(ids, torch.ones_like(ids), ids[None], {}, vision, "digest")
    return seen(prefix, torch.tensor([[[said, 4]]], device=device))


CHANGED = (FEATURES.flip(0), FEATURES.flip(2), FEATURES + 1e-3, FEATURES.reshape(3, 2, 4), FEATURES.half())


@pytest.mark.parametrize("features", [*CHANGED, list(FEATURES.flip(0))])
def test_features_of_another_value_order_shape_or_type_show(features: Tensor | list[Tensor]) -> None:
    own = list(FEATURES) if isinstance(features, list) else FEATURES
    assert shown(features) != shown(own)
    with accelerator() as device:
        assert shown(features, device=device) != shown(own, device=device)
        assert shown(own, device=device) == shown(own, device=device) != shown(own, said=6, device=device)
