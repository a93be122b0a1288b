"""Scenes and their pixels: a ball moves over plain ground and, for part of the clip, a sign is there.

A scene is a small record; ``draw`` turns it into 8 frames at 1 fps. What a training clip never shows is held out for
evaluation: sign positions, pairs of sign and ball colour, and ground colours.

Example:
    >>> scene = sample_scene(np.random.default_rng(0), World.of("small"), showing=None)
    >>> draw(scene).shape
    (8, 32, 32, 3)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videosafety.core.records import Span
from videosafety.toyworld.world import Kind, Sign, Thing, World

SIDE_PX, NUM_FRAMES, FPS = 32, 8, 1
RGB = {
    "red": (235, 50, 50), "green": (40, 200, 60), "blue": (60, 80, 245), "yellow": (240, 225, 40),
    "cyan": (40, 225, 225), "magenta": (225, 50, 215), "orange": (250, 140, 20), "white": (250, 250, 250),
}  # fmt: skip
BALL_RGB = {
    "red": (190, 110, 110), "green": (110, 180, 120), "blue": (120, 130, 200), "yellow": (190, 185, 110),
    "grey": (150, 150, 150),
}  # fmt: skip
BALL_COLOURS = ("red", "green", "blue", "yellow", "grey")
GROUNDS_TRAIN = ((10, 10, 10), (45, 40, 60), (60, 45, 35), (30, 55, 45), (70, 70, 70))
GROUNDS_EVAL = ((30, 30, 30), (50, 50, 40), (35, 45, 70))
PLATE = (20, 20, 20)
MASKS = {
    "full": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "ring": ((1, 1, 1), (1, 0, 1), (1, 1, 1)),
    "plus": ((0, 1, 0), (1, 1, 1), (0, 1, 0)),
    "bars": ((1, 0, 1), (1, 0, 1), (1, 0, 1)),
    "cross": ((1, 0, 1), (0, 1, 0), (1, 0, 1)),
}
GRID_PX = 4  # signs stand on this grid
BALL_RADIUS_PX = 5.0
DECOY_SHARE = 0.25


@dataclass(frozen=True)
class Placed:
    """A sign on the picture: top left corner, cell size, frames [start, end), and its step per frame."""

    sign: Sign
    x_px: float
    y_px: float
    cell_px: int
    start: int
    end: int
    step_px: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn. ``showing`` is the name of the thing shown, None for none."""

    showing: str | None
    ground: tuple[int, int, int]
    ball_colour: str
    ball_from_px: tuple[float, float]
    ball_step_px: tuple[float, float]
    placed: tuple[Placed, ...]
    num_decoys: int = 0

    @property
    def span(self) -> Span | None:
        """When the thing can be seen, seconds; None where nothing is shown."""
        shown = self.placed[self.num_decoys :]
        if not shown:
            return None
        return Span(start_s=min(p.start for p in shown) / FPS, end_s=max(p.end for p in shown) / FPS)


def sample_scene(
    rng: np.random.Generator,
    world: World,
    *,
    showing: Thing | None,
    held_out: bool = False,
    num_frames: int = NUM_FRAMES,
) -> Scene:
    """Draw a scene at random. ``held_out`` selects what training never shows; ``num_frames`` = 1 makes a picture."""
    grounds = GROUNDS_EVAL if held_out else GROUNDS_TRAIN
    placed: list[Placed] = []
    decoys = 0
    if rng.random() < DECOY_SHARE and num_frames > 1:
        sign = world.decoys[rng.integers(len(world.decoys))]
        placed.append(_place(rng, sign, *_frames(rng, num_frames, 2), held_out=held_out))
        decoys = 1
    if showing is not None:
        placed += _show(rng, showing, held_out=held_out, num_frames=num_frames)
    return Scene(
        showing=None if showing is None else showing.name,
        ground=grounds[rng.integers(len(grounds))],
        ball_colour=_ball_colour(rng, world, showing, held_out=held_out),
        ball_from_px=(float(rng.uniform(6, 26)), float(rng.uniform(6, 26))),
        ball_step_px=(float(rng.uniform(-1.5, 1.5)), float(rng.uniform(-1.5, 1.5))),
        placed=tuple(placed),
        num_decoys=decoys,
    )


def _ball_colour(rng: np.random.Generator, world: World, showing: Thing | None, *, held_out: bool) -> str:
    if showing is None:
        return BALL_COLOURS[rng.integers(len(BALL_COLOURS))]
    reserved = world.things.index(showing) % len(BALL_COLOURS)
    if held_out:
        return BALL_COLOURS[reserved]
    others = [colour for i, colour in enumerate(BALL_COLOURS) if i != reserved]
    return others[rng.integers(len(others))]


def _frames(rng: np.random.Generator, num_frames: int, length: int) -> tuple[int, int]:
    length = min(length, num_frames)
    start = int(rng.integers(0, num_frames - length + 1))
    return start, start + length


def _show(rng: np.random.Generator, thing: Thing, *, held_out: bool, num_frames: int) -> list[Placed]:
    if thing.kind is Kind.SIGN or num_frames == 1:
        return [_place(rng, thing.signs[0], *_frames(rng, num_frames, int(rng.integers(4, 8))), held_out=held_out)]
    if thing.kind is Kind.ORDER:
        first, second = reversed(thing.signs) if thing.reverse else thing.signs
        start = int(rng.integers(0, num_frames - 5))
        return [
            _place(rng, first, start, start + 3, held_out=held_out),
            _place(rng, second, start + 3, start + 6, held_out=held_out),
        ]
    placed = _place(rng, thing.signs[0], 0, num_frames, held_out=held_out)
    far = SIDE_PX - 3 * placed.cell_px
    step = far / (num_frames - 1)
    x_px, step = (float(far), -step) if thing.reverse else (0.0, step)
    return [Placed(placed.sign, x_px, placed.y_px, placed.cell_px, 0, num_frames, step)]


def _place(rng: np.random.Generator, sign: Sign, start: int, end: int, *, held_out: bool) -> Placed:
    cell = int(rng.choice((4, 5)))
    while True:
        x, y = (GRID_PX * int(v) for v in rng.integers(0, (SIDE_PX - 3 * cell) // GRID_PX + 1, size=2))
        if ((x + 2 * y) // GRID_PX % 5 == 4) == held_out:
            return Placed(sign, x, y, cell, start, end)


def draw(scene: Scene, *, num_frames: int = NUM_FRAMES) -> NDArray[np.uint8]:
    """The pixels, (frames, 32, 32, 3) uint8 RGB."""
    frames = np.empty((num_frames, SIDE_PX, SIDE_PX, 3), np.uint8)
    frames[:] = scene.ground
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    for t, frame in enumerate(frames):
        x = _bounce(scene.ball_from_px[0] + scene.ball_step_px[0] * t)
        y = _bounce(scene.ball_from_px[1] + scene.ball_step_px[1] * t)
        frame[(columns - x) ** 2 + (rows - y) ** 2 <= BALL_RADIUS_PX**2] = BALL_RGB[scene.ball_colour]
        for placed in scene.placed:
            if placed.start <= t < placed.end:
                _stamp(frame, placed, t)
    return frames


def _bounce(value: float) -> float:
    low, high = BALL_RADIUS_PX, SIDE_PX - BALL_RADIUS_PX
    return low + abs(value - low) if value < high else high - abs(value - high)


def _stamp(frame: NDArray[np.uint8], placed: Placed, t: int) -> None:
    side = 3 * placed.cell_px
    x, y = round(placed.x_px + placed.step_px * (t - placed.start)), round(placed.y_px)
    mask = np.kron(np.array(MASKS[placed.sign.pattern]), np.ones((placed.cell_px, placed.cell_px))).astype(bool)
    region = frame[y : y + side, x : x + side]
    region[:] = PLATE
    region[mask] = RGB[placed.sign.colour]
