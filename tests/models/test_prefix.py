"""Prompts encoded once: the family's own forward pass from kept vision, one run of the tower, a true digest."""

import sys

import pytest
import torch
from alarmkit import batch_of, mixed
from devicekit import accelerator
from hypothesis import given
from hypothesis import strategies as st
from rolloutkit import padded, shared, with_alarms
from tinyfamilies import FAMILY_NAMES

from videosafety.models import prefix as in_bytes
from videosafety.models.family import watch_vision
from videosafety.models.prefix import Prefix, digest
from videosafety.models.rollout import Decoding, LocalEngine
from videosafety.models.shared_prefix import naive_hidden


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_kept_vision_gives_what_the_pixels_give(name: str) -> None:
    checkpoint, wrapped = with_alarms(name)
    batch = batch_of(checkpoint, mixed())
    prefix = Prefix.of(checkpoint.model, batch)
    real_BP = batch["attention_mask"].bool()
    with torch.no_grad():
        torch.testing.assert_close(
            prefix.run(checkpoint.model).last_hidden_state[real_BP], wrapped(batch)[real_BP], atol=1e-5, rtol=0
        )
    assert prefix.lengths_B.tolist() == real_BP.sum(dim=1).tolist()


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_tower_runs_once_for_sampler_policy_and_reference(name: str) -> None:
    checkpoint, wrapped = with_alarms(name)
    batch = batch_of(checkpoint, mixed()[:4])
    with torch.no_grad(), watch_vision(checkpoint.family, checkpoint.model) as stock:
        wrapped(batch)
    with watch_vision(checkpoint.family, checkpoint.model) as calls:
        prefix = Prefix.of(checkpoint.model, batch)
        decoding = Decoding(num_generations=2, max_new_tokens=3)
        groups = LocalEngine(wrapped, checkpoint).complete([prefix], decoding, seed=0)
        ids_BGC, _ = padded([[list(one.ids) for one in group] for group in groups])
        _, policy = shared(checkpoint, prefix, ids_BGC)
        policy.sum().backward()
        with torch.no_grad():
            naive_hidden(checkpoint.model, prefix, ids_BGC)
    wrapped.zero_grad()
    assert stock
    assert calls == stock
    assert all(parameter.grad is None for parameter in checkpoint.model.parameters())


def test_vision_has_no_gradient() -> None:
    checkpoint, wrapped = with_alarms("qwen3_vl")
    prefix = Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()[:1]))
    prefix.run(checkpoint.model).last_hidden_state.sum().backward()
    frozen = [p for module in checkpoint.family.vision_modules(checkpoint.model) for p in module.parameters()]
    found = [parameter.grad is None for parameter in frozen], wrapped.rows_AH.grad is None
    wrapped.zero_grad()
    assert all(found[0])
    assert not found[1]


def test_padding_on_the_left_is_refused() -> None:
    checkpoint, _ = with_alarms("qwen2_5_vl")
    with pytest.raises(ValueError, match="pad them on the right"):
        Prefix.of(checkpoint.model, batch_of(checkpoint, mixed()[:2], "left"))


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_digest_is_that_of_ids_and_pixels(name: str) -> None:
    checkpoint, _ = with_alarms(name)
    batch = batch_of(checkpoint, mixed()[:2])
    before = digest(batch)
    pixels = next(key for key in batch if key.startswith("pixel_values"))
    ids = batch["input_ids"].clone()
    ids[1, 0] += 1
    brighter = batch[pixels].clone()
    brighter.view(-1)[0] += 0.25
    assert len({before, digest({**batch, "input_ids": ids}), digest({**batch, pixels: brighter})}) == 3
    assert digest({name: tensor.clone() for name, tensor in batch.items()}) == before
    wider = {key: torch.nn.functional.pad(t, (0, 3)) if t.shape == ids.shape else t for key, t in batch.items()}
    assert wider["input_ids"].shape != ids.shape
    assert digest(wider) == before


def splitmix(data: bytes) -> int:
    """What ``mixed`` is, word by word in Python's integers."""
    total, mask = 0, 2**64 - 1
    data += bytes(-len(data) % 8)
    for i in range(0, len(data), 8):
        z = (int.from_bytes(data[i : i + 8], sys.byteorder) + i // 8 * 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        total += z ^ z >> 31
    return total & mask


@given(st.binary(max_size=64))
def test_a_device_mixes_bytes_as_splitmix64_does(data: bytes) -> None:
    flat = torch.tensor(list(data), dtype=torch.uint8)
    assert in_bytes.mixed(flat) % 2**64 == splitmix(data)


def test_on_a_device_any_change_of_values_or_of_their_order_shows() -> None:
    with accelerator() as device:
        batch = {"pixel_values": torch.randn(3, 5), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
        flipped, swapped = batch["pixel_values"].clone(), batch["pixel_values"].clone()
        flipped[1, 2] *= -1
        swapped[[0, 2]] = swapped[[2, 0]]
        found = [digest({name: t.to(device) for name, t in {**batch, "pixel_values": pixels}.items()})
                 for pixels in (batch["pixel_values"], flipped, swapped, batch["pixel_values"].clone())]  # fmt: skip
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_the_digest_knows_where_a_prompt_ends() -> None:
    one = {"input_ids": torch.tensor([[1, 2, 3], [4, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    other = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "attention_mask": torch.ones(2, 2, dtype=torch.long)}
    assert digest(one) != digest(other)
