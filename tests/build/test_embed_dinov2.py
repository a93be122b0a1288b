"""DINOv2 as the embedder, with the real class and random weights on the disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from videosafety.build.build import build
from videosafety.build.embed_dinov2 import Dinov2Embed, static_score
from videosafety.build.filter import Filter
from videosafety.build.near import SPACES, near_pairs
from videosafety.build.recipe import BuildRecipe
from videosafety.build.records import Clip, Facts, Probed
from videosafety.build.state import Terminal
from videosafety.build.step import step_hash
from videosafety.core.errors import CheckpointError, RecipeError
from videosafety.core.recipe import load_recipe
from videosafety.core.store import sha256_file
from videosafety.toyworld.footage import write_footage
from videosafety.video.write import write_mp4

RECIPE = Path(__file__).parents[2] / "recipes" / "build_toy.yaml"


def save(folder: Path, *, seed: int) -> Path:
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7,
                          initializer_range=0.4)  # fmt: skip
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("dinov2") / "tiny", seed=0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """A clip, the same in another size, mirrored, another one, and one in which nothing moves."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)

    def frames(num: int = 8) -> np.ndarray:
        return np.kron(rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), dtype=np.uint8))

    first = frames()
    write_mp4(folder / "a.mp4", first, fps=4)
    write_mp4(folder / "larger.mp4", np.kron(first, np.ones((1, 2, 2, 1), dtype=np.uint8)), fps=4)
    write_mp4(folder / "mirrored.mp4", np.ascontiguousarray(first[:, :, ::-1]), fps=4)
    write_mp4(folder / "other.mp4", frames(), fps=4)
    write_mp4(folder / "still.mp4", np.repeat(frames(1), 8, axis=0), fps=4)
    return folder


def probed(file: Path) -> Probed:
    sha256 = sha256_file(file)
    clip = Clip(id=f"clip-{file.stem}", path=file.name, sha256=sha256, num_bytes=file.stat().st_size, source="")
    facts = Facts(kind="video", codec="h264", width_px=64, height_px=64, fps=4, num_frames=8, duration_s=2,
                  has_audio=False)  # fmt: skip
    return Probed(id=clip.id, clip=clip, facts=facts)


def embedded(checkpoint: Path, clips: Path):
    step = Dinov2Embed.of(checkpoint, root=str(clips), device="cpu")
    return {file.stem: step(probed(file))[0] for file in sorted(clips.glob("*.mp4"))}


def test_copies_are_near_others_are_not_and_what_stands_still_is_static(checkpoint, clips):
    found = embedded(checkpoint, clips)
    names = ["a", "larger", "mirrored", "other"]
    pairs = {(names[i], names[j]): d for i, j, d in
             near_pairs([found[name].vectors for name in names], below=1.0, space=SPACES["dinov2"])}  # fmt: skip
    copies = max(pairs[("a", "larger")], pairs[("a", "mirrored")])
    others = min((d for pair, d in pairs.items() if "other" in pair), default=1.0)
    assert copies < 0.002 < 0.01 < others
    assert found["still"].static_score < 0.001 < 0.01 < found["a"].static_score
    step = Filter(static_below=0.002, duplicate_below=0.002, related_below=0.002, embedder="dinov2")
    ends = dict(zip(found, step.over(list(found.values())), strict=True))
    assert {name: end.reason for name, end in ends.items() if isinstance(end, Terminal)} == {
        "larger": "duplicate:near:clip-a", "mirrored": "duplicate:near:clip-a", "still": "static"}  # fmt: skip


def test_equal_frames_have_equal_vectors_of_unit_length(checkpoint, clips):
    step = Dinov2Embed.of(checkpoint, root=str(clips), device="cpu")
    first, again = (step(probed(clips / "a.mp4"))[0] for _ in range(2))
    assert first == again
    plain, mirrored = SPACES["dinov2"].read(first.vectors)
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=2e-3)
    assert np.allclose(np.linalg.norm(mirrored, axis=1), 1, atol=2e-3)
    assert static_score(plain[:1]) == 0


def test_other_weights_are_another_step_and_no_weights_are_said(checkpoint, clips, tmp_path):
    step = Dinov2Embed.of(checkpoint, root=str(clips))
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    assert step_hash(Dinov2Embed.of(moved, root="elsewhere")) == step_hash(step)
    assert step_hash(Dinov2Embed.of(save(tmp_path / "other", seed=1), root=str(clips))) != step_hash(step)
    with pytest.raises(CheckpointError, match="holds no Dinov2Model"):
        Dinov2Embed.of(tmp_path, root=str(clips))


def test_the_two_embedders_are_never_mixed(checkpoint, clips):
    found = list(embedded(checkpoint, clips).values())
    with pytest.raises(ValueError, match="thresholds are of phash"):
        list(Filter().over(found))


def test_a_recipe_with_dinov2_builds_and_must_give_its_thresholds(checkpoint, tmp_path):
    write_footage(tmp_path / "toy", num_clips=12, seed=3)
    given = [f"labels={tmp_path / 'toy' / 'labels.jsonl'}", "embed.embedder=dinov2",
             f"embed.checkpoint={checkpoint}"]  # fmt: skip
    with pytest.raises(RecipeError, match="no thresholds are known to be right for dinov2: give static_below"):
        load_recipe(RECIPE, BuildRecipe, overrides=[*given, "embed.static_below=null"])
    asked = load_recipe(RECIPE, BuildRecipe, overrides=[*given, "embed.static_below=0.0", "embed.duplicate_below=0.0",
                                                        "embed.related_below=0.0", "embed.device=cpu",
                                                        "ask.eval_share=0.5"])  # fmt: skip
    built = build(asked, clips=tmp_path / "toy" / "clips", out=tmp_path / "out")
    assert built.counts["eval"] + built.counts["rl"] > 0
