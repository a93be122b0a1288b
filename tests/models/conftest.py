"""Tiny checkpoints with random weights, of the real classes, made once: a VideoLLaMA3, and one of every family."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tinyfamilies import FAMILY_NAMES, tiny_checkpoint

from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.toyworld.base_model import tiny
from videosafety.toyworld.world import World
from videosafety.video.plan import Clip, Picture

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint on disk."""
    model, processor = tiny(World.of("small"), seed=3)
    return save_model(model, processor, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint, loaded."""
    return load(str(folder))


@pytest.fixture(scope="session", params=FAMILY_NAMES)
def any_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint of every family in turn."""
    return load(str(tiny_checkpoint(request.param, tmp_path_factory.mktemp("families") / request.param, tied=False)))


@pytest.fixture
def clip() -> Callable[..., Clip]:
    """A clip of noise from a seed."""

    def make(seed: int, num_frames: int = 8, side: int = 32) -> Clip:
        frames = np.random.default_rng(seed).integers(0, 256, (num_frames, side, side, 3), np.uint8)
        return Clip(frames, tuple(float(t) for t in range(num_frames)))

    return make


@pytest.fixture
def picture() -> Callable[[int], Picture]:
    """A picture of noise from a seed."""

    def make(seed: int) -> Picture:
        return Picture(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))

    return make
