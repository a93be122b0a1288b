"""The prompt baselines in the toy world's own words: its models know no other.

``policy`` is a system turn with one sentence for each forbidden headline name ("No, a zarn is forbidden."), in the
language of the query; held-out rules are left out, as they are left out of training. The world has no word for
"responsible": ``self_reminder`` is one refusal before the query and one after it, the reminder that it may refuse. No
toy base ever saw a system turn or a sentence before a question, so these baselines are weak there by construction.

Example:
    >>> treatment("policy", World.of("small"), "en").system.partition(".")[0]
    'No, a zarn is forbidden'
"""

from collections.abc import Iterable

from videosafety.core.prompts import Treatment, TreatmentName
from videosafety.core.records import Sample
from videosafety.toyworld.dialogue import redirection, refusals
from videosafety.toyworld.world import World

VERSION = 1


def treatment(name: TreatmentName, world: World, language: str) -> Treatment:
    """The words of a baseline in one of the world's languages."""
    if name == "policy":
        rules = [redirection(language, thing.name) for thing in world.headline if thing.forbidden]
        return Treatment(name=name, version=VERSION, system=" ".join(rules))
    said = refusals(language)
    return Treatment(name=name, version=VERSION, before=f"{said[0]} ", after=f" {said[-1]}")


def world_of(samples: Iterable[Sample]) -> World:
    """The smallest world that has the languages and the rules of these items."""
    asked = list(samples)
    small = World.of("small")
    rules = {thing.rule for thing in small.things}
    fits = all(sample.language in small.languages and sample.category in rules for sample in asked)
    return small if fits else World.of("full")
