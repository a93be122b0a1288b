"""How much of a supervised batch is padding: rows in random order against rows grouped by estimated length.

    python benchmarks/sft_padding.py [--json FILE] [--rows 480] [--micro 4] [--batch 16]

A mixed data set is made on the spot (a third words alone, a third pictures, a third clips of 2 to 90 frames), encoded
by the real classes of a tiny VideoLLaMA3, and collated in both orders. ``ratio`` is positions computed by positions
that hold a token; 1 is no padding. ``estimated`` orders by ``defend/lengths.py``, ``true`` by the real lengths, which
only decoding would tell. Nothing is timed.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from videosafety.core.example import Example, Turn
from videosafety.core.records import Image, Video
from videosafety.defend.lengths import estimate_lengths
from videosafety.defend.order import order_of
from videosafety.defend.rows import Row, Rows
from videosafety.defend.stage import StageConfig
from videosafety.models.checkpoint import load, save_model
from videosafety.toyworld.base_model import tiny
from videosafety.toyworld.world import World
from videosafety.video.cache import FrameCache
from videosafety.video.write import write_mp4, write_png

SIDE_PX = 32


def main() -> None:
    """Print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows {bench, case, metric, value, unit} to this file")
    parser.add_argument("--rows", type=int, default=480, help="rows of the data set")
    parser.add_argument("--micro", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--batch", type=int, default=16, help="rows of a global batch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = data_set(Path(folder), options.rows)
        lengths = estimate_lengths(rows)
        encoded = [rows[i] for i in range(len(rows))]
    true = [len(row.encoded.input_ids) for row in encoded]
    sizes = {"batch_size": options.batch, "micro_batch_size": options.micro, "epochs": 1.0}
    ways = {"random": None, "grouped, estimated": lengths, "grouped, true": true}
    found: list[dict[str, object]] = []
    print(f"{len(rows)} rows, {min(true)} to {max(true)} tokens, micro-batches of {options.micro}")
    print(f"{'order':20} {'computed':>10} {'useful':>10} {'ratio':>7}")
    for way, known in ways.items():
        config = StageConfig.model_validate({**sizes, "group_by_length": known is not None})
        order = order_of(len(rows), config, seed=0, lengths=known)
        computed, useful = count(rows, encoded, order, size=options.micro)
        print(f"{way:20} {computed:10} {useful:10} {computed / useful:7.3f}")
        found.append({"bench": "sft_padding", "case": way, "metric": "computed_by_useful", "value": computed / useful,
                      "unit": "1"})  # fmt: skip
    off = np.abs(np.subtract(true, lengths))
    print(f"estimates are off by {off.mean():.1f} tokens on average, {off.max()} at most")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def data_set(folder: Path, num: int) -> Rows:
    """Words alone, pictures of 32 to 160 px a side, and clips of 2 to 90 frames; two questions to a medium."""
    rng = np.random.default_rng(0)
    media: list[tuple[tuple[Image | Video, ...], ...]] = []
    for i in range(-(-num // 6)):
        height, width = (SIDE_PX * int(n) for n in rng.integers(1, 6, 2))
        write_png(folder / f"{i}.png", np.full((height, width, 3), i % 256, np.uint8))
        frames = np.full((int(rng.integers(2, 91)), SIDE_PX, SIDE_PX, 3), i % 256, np.uint8)
        write_mp4(folder / f"{i}.mp4", frames, fps=1.0)
        media.append(((), (Image(path=f"{i}.png"),), (Video(path=f"{i}.mp4"),)))
    examples = []
    for i in range(num):
        shown = media[i // 3 % len(media)][i % 3]
        turn = Turn(role="user", text=" ".join(["red"] * int(rng.integers(1, 60))), media=shown)
        examples.append(Example(id=f"r{i}", turns=(turn,), answer="Yes."))
    checkpoint = load(str(save_model(*tiny(World.of("small"), seed=0), folder / "tiny")))
    return Rows(examples, checkpoint=checkpoint, structured=False, root=folder, cache=FrameCache(folder / "frames"))


def count(rows: Rows, encoded: list[Row], order: list[int], *, size: int) -> tuple[int, int]:
    """Positions computed, and those that hold a token."""
    computed = useful = 0
    for start in range(0, len(order), size):
        mask = rows.collate([encoded[i] for i in order[start : start + size]])["attention_mask"]
        computed, useful = computed + mask.numel(), useful + int(mask.sum())
    return computed, useful


if __name__ == "__main__":
    main()
