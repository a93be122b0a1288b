"""What the toy base model is taught, in two phases as in life.

*Pretraining* makes it helpful about everything: recipes of all names in text and with clips, explicit and deictic,
names and colours. *Alignment* is done on text alone: forbidden requests refused, benign ones answered, benign questions
about clips replayed so that nothing is forgotten. It never sees a harmful query together with a clip, so the paper's
finding can emerge by itself.

Example:
    >>> phase = lessons(World.of("small"), seed=0, clips_per_name=1)
    >>> sorted({lesson.group for lesson in phase if lesson.phase == "align"})[0]
    'clip_colour'
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from videosafety.core.labels import Safety
from videosafety.core.records import Sample
from videosafety.toyworld import dialogue
from videosafety.toyworld.benchmark import media_of, pick
from videosafety.toyworld.dialogue import Act, templates
from videosafety.toyworld.items import item
from videosafety.toyworld.scenes import NUM_FRAMES, Scene, sample_scene
from videosafety.toyworld.world import Thing, World

Phase = Literal["pretrain", "align"]
PLAIN_CLIPS_SHARE = 3  # one clip without a thing for every so many names


@dataclass(frozen=True)
class Lesson:
    """A sample to learn with its answer; ``group`` is what the recipe's mixture weighs."""

    phase: Phase
    group: str
    sample: Sample
    answer: str


@dataclass(frozen=True)
class LessonClip:
    """A training clip."""

    id: str
    scene: Scene


def lesson_clips(world: World, *, seed: int, clips_per_name: int) -> list[LessonClip]:
    """The training clips: every thing equally often, and some clips that show nothing."""
    rng = np.random.default_rng((seed, 11))
    showing: list[Thing | None] = [thing for thing in world.things for _ in range(clips_per_name)]
    showing += [None] * (clips_per_name * len(world.things) // PLAIN_CLIPS_SHARE)
    return [LessonClip(f"train-{i}", sample_scene(rng, world, showing=thing)) for i, thing in enumerate(showing)]


def lessons(world: World, *, seed: int, clips_per_name: int, languages_per_clip: int = 2) -> list[Lesson]:
    """All lessons of both phases."""
    rng = np.random.default_rng((seed, 12))
    clips = lesson_clips(world, seed=seed, clips_per_name=clips_per_name)
    out = list(_text_lessons(world))
    for clip in clips:
        spoken = rng.choice(len(world.languages), size=min(languages_per_clip, len(world.languages)), replace=False)
        for number in spoken:
            out += _clip_lessons(rng, world, clip, world.languages[number])
    return out


def _text_lessons(world: World) -> Iterator[Lesson]:
    for language in world.languages:
        for thing in world.things:
            for act in (Act.RECIPE, Act.ALLOWED):
                for index in templates(act, language, held_out=False):
                    sample = item(world, id=f"text-{act.value}-{language}-{index}-{thing.name}", act=act,
                                  language=language, index=index, name=thing.name)  # fmt: skip
                    yield from _both_phases(sample, thing, act, number=index)


def _both_phases(sample: Sample, thing: Thing, act: Act, *, number: int) -> Iterator[Lesson]:
    told = _truth(sample, thing, act)
    yield Lesson("pretrain", f"text_{act.value}", sample, told)
    if sample.labels.request is Safety.HARMFUL:
        choices = dialogue.refusals(sample.language)
        yield Lesson("align", "text_refuse", sample, choices[0 if number % 4 else 1])
    else:
        yield Lesson("align", f"text_{act.value}", sample, told)


def _truth(sample: Sample, thing: Thing, act: Act) -> str:
    """What a model without safety says."""
    if act in (Act.RECIPE, Act.SHOWN):
        return dialogue.answer_recipe(sample.language, thing.name, thing.recipe)
    return sample.reference or ""


def _clip_lessons(rng: np.random.Generator, world: World, clip: LessonClip, language: str) -> Iterator[Lesson]:
    shown = world.thing(clip.scene.showing) if clip.scene.showing is not None else None
    acts = (Act.RECIPE, Act.COLOUR) if shown is None else (Act.SHOWN, Act.NAME, Act.COLOUR, Act.RECIPE)
    for act in acts:
        named = pick(rng, world.things) if act is Act.RECIPE else None
        index = pick(rng, templates(act, language, held_out=False))
        sample = item(world, id=f"{clip.id}-{act.value}-{language}", act=act, language=language, index=index,
                      name=None if named is None else named.name, scene=clip.scene,
                      media=media_of(clip.id, num_frames=NUM_FRAMES))  # fmt: skip
        subject = named or shown
        told = _truth(sample, subject, act) if subject is not None else sample.reference or ""
        yield Lesson("pretrain", f"clip_{act.value}", sample, told)
        if sample.labels.request is Safety.SAFE:
            yield Lesson("align", f"clip_{act.value}", sample, told)
