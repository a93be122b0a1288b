"""What the toy base model is taught, in two phases as in life, drawn fresh for every step.

*Pretraining* makes it helpful about everything: recipes of all names in text and with clips, explicit and deictic,
names and colours; what no model can do it declines. *Alignment* is done on text alone: forbidden requests refused,
benign ones answered, benign questions about clips replayed so that nothing is forgotten. It never sees a harmful query
together with a clip, so the paper's finding can emerge by itself. No clip is seen twice: with a few thousand repeated
clips the model learned the clips by heart and not the signs (docs/log.md).

Example:
    >>> lesson = draw_lesson(np.random.default_rng(0), World.of("small"), phase="align", group="text_refuse")
    >>> lesson.sample.media is None and lesson.answer in dialogue.refusals(lesson.sample.language)
    True
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from videosafety.core.errors import InputError, did_you_mean
from videosafety.core.labels import Safety
from videosafety.core.records import Sample, Video
from videosafety.toyworld import dialogue
from videosafety.toyworld.benchmark import pick
from videosafety.toyworld.dialogue import Act, templates
from videosafety.toyworld.items import item
from videosafety.toyworld.scenes import Scene, sample_scene
from videosafety.toyworld.world import Thing, World

Phase = Literal["pretrain", "align"]
GROUPS: dict[str, tuple[Act, bool]] = {  # the group of a lesson: what is asked, and is there a clip?
    "text_recipe": (Act.RECIPE, False),
    "text_refuse": (Act.RECIPE, False),
    "text_letters": (Act.LETTERS, False),
    "clip_recipe": (Act.RECIPE, True),
    "clip_shown": (Act.SHOWN, True),
    "clip_name": (Act.NAME, True),
    "clip_colour": (Act.COLOUR, True),
    "clip_letters": (Act.LETTERS, True),
    "text_unable": (Act.UNABLE, False),
    "clip_unable": (Act.UNABLE, True),
}
NOTHING_SHOWN_SHARE = 0.25  # of clips whose question is not about the sign
CLIP = Video(path="clips/lesson.mp4")


@dataclass(frozen=True)
class Lesson:
    """A sample to learn with its answer; ``scene`` is the clip to draw, if there is one."""

    sample: Sample
    answer: str
    scene: Scene | None


def draw_lesson(rng: np.random.Generator, world: World, *, phase: Phase, group: str) -> Lesson:
    """One lesson of a group. In alignment every request with a clip is a safe one.

    Raises:
        InputError: no such group, or refusals before alignment.
    """
    if group not in GROUPS or (group == "text_refuse" and phase == "pretrain"):
        raise InputError(f"no lesson group {group!r} in {phase}", where="mixture", fix=did_you_mean(group, GROUPS))
    act, with_clip = GROUPS[group]
    subjects = _subjects(world, act, phase=phase, group=group)
    named = pick(rng, subjects) if act in (Act.RECIPE, Act.LETTERS) else None
    scene = None
    if with_clip:
        about_the_sign = act in (Act.SHOWN, Act.NAME)
        shown: Thing | None = pick(rng, subjects if act is Act.SHOWN else world.things)
        if not about_the_sign and rng.random() < NOTHING_SHOWN_SHARE:
            shown = None
        scene = sample_scene(rng, world, showing=shown)
    language = pick(rng, world.languages)
    sample = item(
        world, id="lesson", act=act, language=language, index=pick(rng, templates(act, language, held_out=False)),
        name=None if named is None else named.name, scene=scene, media=CLIP if with_clip else None,
    )  # fmt: skip
    return Lesson(sample, _answer(world, sample, phase), scene)


def _subjects(world: World, act: Act, *, phase: Phase, group: str) -> Sequence[Thing]:
    if phase == "pretrain" or act not in (Act.RECIPE, Act.SHOWN):
        return world.things
    return [thing for thing in world.things if thing.forbidden == (group == "text_refuse")]


def _answer(world: World, sample: Sample, phase: Phase) -> str:
    """What a helpful model without safety says; once aligned, a refusal of what must be defended."""
    if sample.labels.request is Safety.SAFE:
        return sample.reference or ""
    if phase == "align":
        return dialogue.refusals(sample.language)[0]
    thing = world.thing(sample.facts["name"])
    return dialogue.answer_recipe(sample.language, thing.name, thing.recipe)
