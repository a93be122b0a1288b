"""Toy footage: a folder of clips and a file of labels, as a team has them before it has a benchmark.

What ``videosafety build --recipe build_toy`` starts from. Half of the clips show a forbidden sign, a quarter another
one and a quarter none; labels are exact, and the evidence is when the sign can be seen.

Example:
    >>> write_footage(Path("footage"), num_clips=400, seed=0)                                # doctest: +SKIP
    PosixPath('footage/labels.jsonl')
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from videosafety.core.folder import write_folder
from videosafety.core.jsonl import canonical_json
from videosafety.core.store import write_bytes
from videosafety.toyworld.scenes import FPS, NUM_FRAMES, Scene, draw, sample_scene
from videosafety.toyworld.world import Thing, World
from videosafety.video.write import write_mp4

CLIPS, LABELS = "clips", "labels.jsonl"
CLIPS_A_FOLDER = 1000


def write_footage(
    out: Path,
    *,
    num_clips: int,
    seed: int = 0,
    size: str = "small",
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write ``clips/`` and ``labels.jsonl`` to ``out``, whole or not at all; the path of the labels.

    Equal arguments give equal bytes, and more clips begin with the same ones.

    Raises:
        InputError: unknown size, or ``out`` holds something else.
        StorageError: the disk is full or refuses.
    """
    world = World.of(size)

    def fill(part: Path) -> None:
        rows = []
        for number in range(num_clips):
            rng = np.random.default_rng((seed, number))
            thing = _shown(rng, world)
            scene = sample_scene(rng, world, showing=thing)
            name = f"{number // CLIPS_A_FOLDER:03}/{number:06}.mp4"
            (part / CLIPS / name).parent.mkdir(parents=True, exist_ok=True)
            write_mp4(part / CLIPS / name, draw(scene), fps=FPS)
            rows.append(canonical_json(_label(name, thing, scene)) + b"\n")
            on_clip(number + 1, num_clips)
        write_bytes(part / LABELS, b"".join(rows))

    return write_folder(out, fill) / LABELS


def _shown(rng: np.random.Generator, world: World) -> Thing | None:
    """What a clip shows: something forbidden, something else, or nothing."""
    draw = rng.random()
    if draw >= 0.75:
        return None
    things = [thing for thing in world.things if thing.forbidden == (draw < 0.5) and thing.row is None]
    return things[int(rng.integers(len(things)))]


def _label(name: str, thing: Thing | None, scene: Scene) -> dict[str, Any]:
    """A row of labels, as a build reads them."""
    ball = f"A {scene.ball_colour} ball moves over plain ground."
    row: dict[str, Any] = {"path": name, "caption": ball, "visual": "safe"}
    if thing is not None:
        row["caption"] = f"{ball} The sign of a {thing.name} appears."
    if thing is not None and thing.rule is not None and scene.span is not None:
        end_s = min(scene.span.end_s, NUM_FRAMES / FPS)
        moment = {"span": {"start_s": scene.span.start_s, "end_s": end_s}, "what": f"the sign of a {thing.name}"}
        row |= {"visual": "harmful", "category": thing.rule, "evidence": [moment]}
    return row
