"""The toy benchmark: which clips exist and what is asked about each, as an ordered, seeded list.

A clip is asked several questions in several languages, so errors are clustered by clip. Headline rows (``split`` None)
use sign rules that training may see; ``held_out``, ``order``, ``motion`` and ``image`` are rows of their own.
Templates, ground colours, pairs of sign and ball colour and the positions of still signs never occur in training.

Example:
    >>> clips = list(benchmark_clips(World.of("small"), seed=0, clips_per_name=1))
    >>> clips[0].id
    'zarn-0'
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from videosafety.core.records import Image, Sample, Video
from videosafety.toyworld.dialogue import Act, templates
from videosafety.toyworld.items import item
from videosafety.toyworld.scenes import Scene, sample_scene
from videosafety.toyworld.world import Kind, Thing, World

T = TypeVar("T")
SAFE_ACTS = (Act.RECIPE, Act.NAME, Act.COLOUR, Act.LETTERS)
LANGUAGES_PER_CLIP = 2


@dataclass(frozen=True)
class ToyClip:
    """A scene, the file that it becomes (one frame: a picture) and the samples that ask about it."""

    id: str
    scene: Scene
    num_frames: int
    samples: tuple[Sample, ...]

    @property
    def media(self) -> Video | Image:
        """The reference to its file, relative to the manifest."""
        return media_of(self.id, num_frames=self.num_frames)


def media_of(id: str, *, num_frames: int) -> Video | Image:
    """Where a clip or picture of this id lies, relative to the manifest."""
    return Image(path=f"images/{id}.png") if num_frames == 1 else Video(path=f"clips/{id}.mp4")


def benchmark_clips(world: World, *, seed: int, clips_per_name: int) -> Iterator[ToyClip]:
    """All clips with their questions. Equal arguments give equal clips, in every process."""
    rng = np.random.default_rng((seed, 7))
    for thing in world.things:
        for number in range(clips_per_name):
            yield _clip(rng, world, thing, f"{thing.name}-{number}", number)
    plain = clips_per_name * max(1, len(world.headline) // 6)
    for number in range(plain):
        yield _clip(rng, world, None, f"plain-{number}", number)
    for thing in world.headline:
        for number in range(max(1, clips_per_name // 3)):
            yield _picture(rng, world, thing, f"{thing.name}-image-{number}", number)


def _clip(rng: np.random.Generator, world: World, thing: Thing | None, id: str, number: int) -> ToyClip:
    scene = sample_scene(rng, world, showing=thing, held_out=True)
    row = thing.row if thing is not None else None
    asker = _Asker(rng, world, id, scene, row, num_frames=8)
    forbidden = thing is not None and thing.forbidden
    for language in _languages(world, number if thing is None else number + world.things.index(thing)):
        if thing is not None:
            asker.ask(Act.SHOWN, language)
        if forbidden and thing is not None:
            asker.ask(Act.RECIPE, language, name=thing.name)
        elif row is None:
            asker.ask(Act.RECIPE, language, name=pick(rng, [t for t in world.headline if t.forbidden]).name)
        if row is None:
            asker.ask_safe(language)
        elif thing is not None and thing.kind is not Kind.SIGN:
            asker.ask(Act.NAME, language)
    return ToyClip(id, scene, 8, tuple(asker.samples))


def _picture(rng: np.random.Generator, world: World, thing: Thing, id: str, number: int) -> ToyClip:
    scene = sample_scene(rng, world, showing=thing, held_out=True, num_frames=1)
    asker = _Asker(rng, world, id, scene, "image", num_frames=1)
    for language in _languages(world, number + world.things.index(thing)):
        asker.ask(Act.SHOWN, language)
        asker.ask(Act.RECIPE, language, name=thing.name)
        asker.ask(Act.NAME, language)
    return ToyClip(id, scene, 1, tuple(asker.samples))


@dataclass
class _Asker:
    """Collects the samples of one clip."""

    rng: np.random.Generator
    world: World
    id: str
    scene: Scene
    row: str | None
    num_frames: int

    def __post_init__(self) -> None:
        self.samples: list[Sample] = []

    def ask(self, act: Act, language: str, *, name: str | None = None) -> None:
        index = pick(self.rng, templates(act, language, held_out=True))
        media = media_of(self.id, num_frames=self.num_frames)
        self.samples.append(
            item(self.world, id=f"{self.id}-{act.value}-{language}-{len(self.samples)}", act=act, language=language,
                 index=index, name=name, scene=self.scene, media=media, split=self.row)
        )  # fmt: skip

    def ask_safe(self, language: str) -> None:
        """One harmless question: a benign recipe, the name, the colour, or how long a forbidden word is."""
        acts = [act for act in SAFE_ACTS if act is not Act.NAME or self.scene.showing is not None]
        act = acts[len(self.samples) // 3 % len(acts)] if self.rng.random() < 0.5 else pick(self.rng, acts)
        name = None
        if act is Act.RECIPE:
            name = pick(self.rng, [t for t in self.world.headline if not t.forbidden]).name
        if act is Act.LETTERS:
            name = pick(self.rng, [t for t in self.world.headline if t.forbidden]).name
        self.ask(act, language, name=name)


def _languages(world: World, turn: int) -> list[str]:
    spoken = world.languages
    step = len(spoken) // 2
    return [spoken[(turn + k * step) % len(spoken)] for k in range(min(LANGUAGES_PER_CLIP, len(spoken)))]


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """One value at random."""
    return values[int(rng.integers(len(values)))]
