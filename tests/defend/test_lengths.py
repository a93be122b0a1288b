"""Estimated lengths against rows that are really encoded, and what grouping by them saves, in real collated tokens."""

from pathlib import Path

import numpy as np
import pytest

from videosafety.core.example import Example, Turn
from videosafety.core.records import Image, Video
from videosafety.defend.lengths import PER_KIND, estimate_lengths, fit, predict
from videosafety.defend.order import order_of
from videosafety.defend.rows import Row, Rows
from videosafety.defend.stage import StageConfig
from videosafety.models.checkpoint import Checkpoint, load, save_model
from videosafety.toyworld.base_model import tiny
from videosafety.toyworld.world import World
from videosafety.video.cache import FrameCache
from videosafety.video.plan import Sampling
from videosafety.video.write import write_mp4, write_png

MICRO, NUM = 4, 240


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(str(save_model(*tiny(World.of("small"), seed=3), tmp_path_factory.mktemp("base") / "tiny")))


def example(name: str, words: int, *media: Video | Image) -> Example:
    turn = Turn(role="user", text=" ".join(["red"] * words), media=media)
    return Example(id=name, turns=(turn,), answer="Yes.", visual="safe" if media else None, textual="safe")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Words alone, pictures of 32 to 160 px, clips of 2 to 90 frames: a third each, two questions to a medium."""
    folder, rng, media = tmp_path_factory.mktemp("media"), np.random.default_rng(0), []
    for i in range(NUM // 6):
        height, width = (32 * int(n) for n in rng.integers(1, 6, 2))
        write_png(folder / f"{i}.png", np.full((height, width, 3), i, np.uint8))
        write_mp4(folder / f"{i}.mp4", np.full((int(rng.integers(2, 91)), 32, 32, 3), i, np.uint8), fps=1.0)
        media.append(((), (Image(path=str(folder / f"{i}.png")),), (Video(path=str(folder / f"{i}.mp4")),)))
    return [example(f"r{i}", int(rng.integers(1, 60)), *media[i // 3 % len(media)][i % 3]) for i in range(NUM)]


@pytest.fixture(scope="module")
def rows(checkpoint: Checkpoint, examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> Rows:
    cache = FrameCache(tmp_path_factory.mktemp("frames"))
    return Rows(examples, checkpoint=checkpoint, structured=False, sampling=Sampling(), cache=cache)


@pytest.fixture(scope="module")
def lengths(rows: Rows) -> list[int]:
    return estimate_lengths(rows)


@pytest.fixture(scope="module")
def encoded(rows: Rows) -> list[Row]:
    return [rows[i] for i in range(NUM)]


def collated(rows: Rows, encoded: list[Row], order: list[int]) -> float:
    """Positions computed by positions that hold a token, counted in batches."""
    computed = useful = 0
    for start in range(0, len(order), MICRO):
        mask = rows.collate([encoded[i] for i in order[start : start + MICRO]])["attention_mask"]
        computed, useful = computed + mask.numel(), useful + int(mask.sum())
    return computed / useful


def test_grouped_batches_pad_at_most_a_twentieth_in_real_tokens(
    rows: Rows, encoded: list[Row], lengths: list[int]
) -> None:
    settings = {"batch_size": 16, "micro_batch_size": MICRO, "epochs": 1.0}
    grouped = order_of(len(rows), StageConfig(**settings), seed=0, lengths=lengths)
    plain = order_of(len(rows), StageConfig(**settings, group_by_length=False), seed=0)
    assert collated(rows, encoded, grouped) <= 1.05
    assert collated(rows, encoded, plain) > 1.5


def test_lengths_are_known_within_a_few_tokens_though_few_rows_are_decoded(
    rows: Rows, encoded: list[Row], lengths: list[int], tmp_path: Path
) -> None:
    true = [len(row.encoded.input_ids) for row in encoded]
    assert np.abs(np.subtract(true, lengths)).max() <= 0.05 * max(true)
    again = Rows(rows.examples, checkpoint=rows.checkpoint, structured=False, cache=FrameCache(tmp_path, max_bytes=0))
    assert estimate_lengths(again) == lengths
    assert again.cache is not None
    assert again.cache.num_misses <= PER_KIND


def test_a_second_epoch_decodes_nothing(checkpoint: Checkpoint, examples: list[Example], tmp_path: Path) -> None:
    cache = FrameCache(tmp_path)
    fresh = Rows(examples[:12], checkpoint=checkpoint, structured=False, cache=cache)
    config = StageConfig(batch_size=4, micro_batch_size=2, epochs=2.0, group_by_length=False)
    order = order_of(len(fresh), config, seed=0)
    num_clips = sum(isinstance(media, Video) for one in examples[:12] for media in one.media)
    counts = []
    for epoch in range(2):
        for i in order[epoch * 12 : (epoch + 1) * 12]:
            assert fresh[i].fault is None
        counts.append((cache.num_misses, cache.num_hits))
    assert counts == [(num_clips, 0), (num_clips, num_clips)]


def test_a_medium_that_cannot_be_read_leaves_the_words(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    lost = [example(name, len(name), Video(path=str(tmp_path / name))) for name in ("bad.mp4", "gone.mp4")]
    words = [len(checkpoint.tokenizer(one.turns[0].text)["input_ids"]) + len(checkpoint.tokenizer("Yes.")["input_ids"])
             for one in lost]  # fmt: skip
    assert estimate_lengths(Rows(lost, checkpoint=checkpoint, structured=False)) == words


def test_no_rows_have_no_lengths(checkpoint: Checkpoint) -> None:
    assert estimate_lengths(Rows([], checkpoint=checkpoint, structured=False)) == []


def test_large_media_that_a_processor_shrinks_count_as_the_cap() -> None:
    pixels = np.array([0.0, 100, 200, 300, 400, 800, 1600])
    shown = np.zeros((7, 5))
    shown[:, 0] = pixels
    weights, caps = fit(shown, np.minimum(pixels, 300) / 10 + 3)
    found = predict(np.array([[250.0, 0, 0, 0, 0], [9000, 0, 0, 0, 0]]), weights, caps)
    assert found == pytest.approx([28, 33])
