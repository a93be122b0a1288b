"""Cached vision features: the same losses and gradients, a tower that rests, and a folder that stays within bounds."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tinyfamilies import tiny_checkpoint
from torch import Tensor

from videosafety.core.errors import InputError
from videosafety.models.checkpoint import Checkpoint, load
from videosafety.models.family import Conversation, Message, collate, watch_vision
from videosafety.models.features import (
    SUPPORTED,
    FeatureCache,
    cached_vision,
    joined,
    media_keys,
    vision_fingerprint,
)
from videosafety.video.plan import Clip, Picture

GIB = 2**30
Shown = tuple[Any, dict[str, Tensor]]


@pytest.fixture(scope="session", params=SUPPORTED)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of every family that can, its vision frozen as in training."""
    folder = tiny_checkpoint(request.param, tmp_path_factory.mktemp("frozen") / request.param, tied=False)
    checkpoint = load(str(folder))
    for module in checkpoint.family.vision_modules(checkpoint.model):
        module.requires_grad_(False)
    return checkpoint


@pytest.fixture
def talks(clip: Callable[..., Clip], picture: Callable[[int], Picture]) -> list[Conversation]:
    """Words alone, clips of several lengths and sizes, a picture, and both in one."""
    shown: list[tuple[Any, ...]] = [
        (), (clip(1, 5),), (picture(2),), (clip(3, 2, 48), clip(4, 3)), (picture(5), clip(6, 4)), (clip(7, 1),),
    ]  # fmt: skip
    return [(Message("user", (*media, "What is shown?")),) for media in shown]


def batch_of(checkpoint: Checkpoint, talks: Sequence[Conversation]) -> Shown:
    encoded = [checkpoint.family.encode(checkpoint.processor, talk, target="Yes.") for talk in talks]
    batch = collate(encoded, pad_token_id=checkpoint.tokenizer.pad_token_id, side="right")
    return joined([media_keys(talk) for talk in talks]), batch


def step(checkpoint: Checkpoint, shown: Shown, cache: FeatureCache | None) -> tuple[float, list[Tensor], int]:
    """Loss, gradients of all that is trained, calls of the tower."""
    checkpoint.model.zero_grad()
    with ExitStack() as stack:
        if cache is not None:
            stack.enter_context(cached_vision(checkpoint, cache))
            stack.enter_context(cache.showing(shown[0]))
        calls = stack.enter_context(watch_vision(checkpoint.family, checkpoint.model))
        loss = checkpoint.model(**shown[1]).loss
        loss.backward()
    grads = [p.grad.clone() for p in checkpoint.model.parameters() if p.grad is not None]
    return loss.item(), grads, len(calls)


def same(one: tuple[float, list[Tensor], int], other: tuple[float, list[Tensor], int]) -> bool:
    equal = all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    return one[0] == other[0] and len(one[1]) > 0 and equal


@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_those_of_the_tower_and_a_second_pass_never_enters_it(
    frozen: Checkpoint, talks: list[Conversation], tmp_path: Path, checkpointing: bool
) -> None:
    shown, cache = batch_of(frozen, talks), FeatureCache(tmp_path, max_bytes=GIB)
    if checkpointing:
        frozen.model.gradient_checkpointing_enable({"use_reentrant": False})
        frozen.model.train()
    stock, first, second = (step(frozen, shown, given) for given in (None, cache, cache))
    frozen.model.gradient_checkpointing_disable()
    frozen.model.eval()
    assert stock[2] == first[2] == 2
    assert second[2] == 0
    assert same(stock, first)
    assert same(stock, second)
    assert (cache.num_misses, cache.num_hits) == (7, 7)


def test_a_batch_of_known_and_new_media_runs_the_tower_on_the_new_ones(
    frozen: Checkpoint, talks: list[Conversation], tmp_path: Path
) -> None:
    cache, other = FeatureCache(tmp_path, max_bytes=GIB), batch_of(frozen, talks[::-1])
    stock = step(frozen, other, None)
    step(frozen, batch_of(frozen, talks[:4]), cache)
    found = step(frozen, other, cache)
    assert cache.num_hits == 4
    assert found[0] == pytest.approx(stock[0], abs=1e-6)
    for a, b in zip(found[1], stock[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_words_alone_ask_for_nothing(frozen: Checkpoint, talks: list[Conversation], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, max_bytes=GIB)
    assert math.isfinite(step(frozen, batch_of(frozen, talks[:1]), cache)[0])
    assert (cache.num_hits, cache.num_misses) == (0, 0)


def test_without_keys_the_model_is_as_it_was(frozen: Checkpoint, talks: list[Conversation], tmp_path: Path) -> None:
    cache, shown = FeatureCache(tmp_path, max_bytes=GIB), batch_of(frozen, talks)
    stock = step(frozen, shown, None)
    with cached_vision(frozen, cache):
        assert same(step(frozen, shown, None), stock)
    assert "get_image_features" not in vars(frozen.model.base_model)
    assert not list(tmp_path.iterdir())


def test_features_are_kept_in_the_precision_of_the_computation(
    frozen: Checkpoint, talks: list[Conversation], tmp_path: Path
) -> None:
    cache, shown = FeatureCache(tmp_path, max_bytes=GIB), batch_of(frozen, talks[1:2])
    step(frozen, shown, cache)
    with torch.autocast("cpu", torch.bfloat16):
        step(frozen, shown, cache)
        assert step(frozen, shown, cache)[2] == 0
    assert cache.num_misses == 2
    small, large = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert small < 0.8 * large


def test_the_folder_stays_within_its_bound_and_the_oldest_go_first(tmp_path: Path) -> None:
    one = {"pooled": torch.ones(100, 8)}
    cache = FeatureCache(tmp_path, max_bytes=3 * 3600)
    for number, key in enumerate("abc"):
        cache.put(key, one, grid=[1])
        os.utime(cache._path(key), ns=(number, number))
    assert cache.get("a", grid=[1]) is not None  # used, so not the oldest any more
    cache.put("d", one, grid=[1])
    assert [key for key in "abcd" if cache.get(key, grid=[1])] in (["a", "c", "d"], ["a", "d"])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes
    cache.put("huge", {"pooled": torch.ones(10_000, 8)}, grid=[1])
    assert cache.get("huge", grid=[1]) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "grid", "other"])
def test_a_damaged_entry_counts_as_absent_and_is_removed(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path, max_bytes=GIB)
    cache.put("a", {"pooled": torch.ones(10, 8)}, grid=[1, 2])
    (path,) = tmp_path.iterdir()
    raw = path.read_bytes()
    assert cache.get("a", grid=[1, 2]) is not None
    broken = {"cut": raw[:-3], "flip": raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:], "empty": b""}
    if damage == "other":
        cache.put("b", {"pooled": torch.zeros(10, 8)}, grid=[1, 2])
        cache._path("b").replace(path)
    path.write_bytes(broken.get(damage, path.read_bytes()))
    assert cache.get("a", grid=[1, 3 if damage == "grid" else 2]) is None
    assert not path.exists()


def test_another_stage_of_the_same_vision_finds_the_features_and_other_vision_does_not(frozen: Checkpoint) -> None:
    about = vision_fingerprint(frozen)
    tower, decoder = frozen.family.vision_modules(frozen.model)[-1], frozen.family.language_model(frozen.model)
    for module, equal in ((decoder, True), (tower, False)):
        weight = next(iter(module.parameters()))
        with torch.no_grad():
            weight[0] += 1
        assert (vision_fingerprint(frozen) == about) is equal
        with torch.no_grad():
            weight[0] -= 1


def test_media_are_named_by_their_pixels(clip: Callable[..., Clip], picture: Callable[[int], Picture]) -> None:
    ask = [(Message("user", (media, "?")),) for media in (clip(1), clip(1), clip(2), picture(1))]
    names = [media_keys(talk) for talk in ask]
    assert names[0] == names[1] != names[2]
    assert [len(names[3][kind]) for kind in ("image", "video")] == [1, 0]


def test_keys_that_do_not_fit_the_batch_are_refused(
    frozen: Checkpoint, talks: list[Conversation], tmp_path: Path
) -> None:
    _, batch = batch_of(frozen, talks)
    with pytest.raises(InputError, match="names 0"):
        step(frozen, ({"image": [], "video": []}, batch), FeatureCache(tmp_path, max_bytes=GIB))


def test_vision_that_is_to_be_trained_is_refused(frozen: Checkpoint, tmp_path: Path) -> None:
    weight = next(frozen.family.vision_modules(frozen.model)[0].parameters()).requires_grad_(True)
    with pytest.raises(InputError, match="not frozen"), cached_vision(frozen, FeatureCache(tmp_path, max_bytes=GIB)):
        pass
    weight.requires_grad_(False)


def test_a_family_that_cannot_names_those_that_can(any_family: Checkpoint, tmp_path: Path) -> None:
    if any_family.family.name in SUPPORTED:
        return
    any_family.model.requires_grad_(False)
    with pytest.raises(InputError, match="qwen3_vl"), cached_vision(any_family, FeatureCache(tmp_path, max_bytes=1)):
        pass
