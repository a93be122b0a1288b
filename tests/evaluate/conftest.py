"""Shared by the tests of the evaluation: a tiny real VideoLLaMA3 with random weights and a small toy benchmark."""

from pathlib import Path

import pytest

from videosafety.evaluate.manifest import Benchmark, load_benchmark
from videosafety.toyworld.build import build_benchmark


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from videosafety.models.checkpoint import save_model
    from videosafety.toyworld.base_model import ModelSize, tiny
    from videosafety.toyworld.world import World

    size = ModelSize(vocab_size=600, hidden_size=32, num_layers=1, vision_hidden_size=32)
    model, processor = tiny(World.of("small"), seed=0, size=size)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.03)  # else a random tied model only repeats its last token
    return save_model(model, processor, tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def alarmed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with alarms; its heads are random, so scores differ from prompt to prompt."""
    from dataclasses import replace

    import torch

    from videosafety.models.alarm import add_alarms
    from videosafety.models.checkpoint import load, save_model

    plain = load(str(checkpoint))
    alarm = add_alarms(plain.model, plain.processor, init="mean")
    weight = torch.randn(2, plain.model.get_output_embeddings().weight.shape[1], generator=torch.manual_seed(1))
    folder = tmp_path_factory.mktemp("checkpoint") / "alarmed"
    return save_model(plain.model, plain.processor, folder, alarm=replace(alarm, weight_AH=weight))


@pytest.fixture(scope="session")
def toy_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_benchmark(tmp_path_factory.mktemp("toy") / "benchmark", size="small", seed=3, clips_per_name=1)


@pytest.fixture(scope="session")
def toy(toy_manifest: Path) -> Benchmark:
    """A part of the toy benchmark, each question made unlike all others by its id: a mock can tell items apart."""
    whole = load_benchmark(toy_manifest, name="toy", taxonomy="toy")
    samples = (sample.model_copy(update={"query": f"{sample.query} ({sample.id})"}) for sample in whole.samples[::3])
    return Benchmark(whole.name, tuple(samples), whole.root)
