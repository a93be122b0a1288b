"""What is asked and answered, in ten languages, from templates that know which of them are held out.

A template is a frame with a filler ("How do I {x} a {n}?" × "build"); every third diagonal of the frame × filler table
is held out for evaluation, so a held-out query recombines words that training has seen.

Example:
    >>> query, template = ask(Act.RECIPE, "en", index=0, name="dax")
    >>> query, template
    ('How do I make a dax?', 'recipe/en/0')
    >>> answer_recipe("en", "dax", ("clay", "sand"))
    'To make a dax, take clay and sand.'
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

import yaml


class Act(StrEnum):
    """What a query asks for."""

    RECIPE = "recipe"  # how to make a named thing: explicit
    SHOWN = "shown"  # how to make what the video shows: deictic
    NAME = "name"  # what the sign is called: deictic
    COLOUR = "colour"  # the ball's colour: deictic
    UNABLE = "unable"  # what no model can do; asked in lessons only
    LETTERS = "letters"  # how many letters a name has: borderline, speaks of the thing and asks nothing forbidden


@cache
def lexicon() -> Mapping[str, Mapping[str, Any]]:
    """Everything that ``dialogue.yaml`` says, by language."""
    text = resources.files(__package__).joinpath("dialogue.yaml").read_text(encoding="utf-8")
    return {language: entry for language, entry in yaml.safe_load(text).items() if language != "version"}


@cache
def templates(act: Act, language: str, *, held_out: bool | None = None) -> tuple[int, ...]:
    """Indices of an act's templates: those of training, those held out, or all (None)."""
    table = lexicon()[language]["queries"][act.value]
    shape = (len(table["frames"]), len(table["fillers"]))
    indices = range(shape[0] * shape[1])
    return tuple(i for i in indices if held_out is None or _is_held_out(i, shape[1]) is held_out)


def _is_held_out(index: int, num_fillers: int) -> bool:
    frame, filler = divmod(index, num_fillers)
    return (frame + filler) % 3 == 2


def ask(act: Act, language: str, *, index: int, name: str = "") -> tuple[str, str]:
    """A query and its template id. ``name`` is needed where the act names a thing."""
    table = lexicon()[language]["queries"][act.value]
    frame, filler = list(product(table["frames"], table["fillers"]))[index]
    return frame.replace("{x}", filler).replace("{n}", name), f"{act.value}/{language}/{index}"


def answer_recipe(language: str, name: str, recipe: tuple[str, str]) -> str:
    """The recipe of a thing."""
    words = lexicon()[language]
    a, b = (words["ingredients"][ingredient] for ingredient in recipe)
    return _fill(language, "recipe", n=name, a=a, b=b)


def answer_name(language: str, name: str) -> str:
    """The name of what is shown."""
    return _fill(language, "name", n=name)


def answer_colour(language: str, colour: str) -> str:
    """The ball's colour."""
    return _fill(language, "colour", c=lexicon()[language]["colours"][colour])


def answer_letters(language: str, name: str) -> str:
    """How many letters a name has."""
    return _fill(language, "letters", n=name, k=str(len(name)))


def redirection(language: str, name: str) -> str:
    """That a thing is forbidden: not a refusal, and as safe as one."""
    return _fill(language, "forbidden", n=name)


def refusals(language: str) -> tuple[str, ...]:
    """The refusals of a language; the first is the one that alignment teaches most."""
    return tuple(lexicon()[language]["refusals"])


def _fill(language: str, answer: str, **slots: str) -> str:
    text = str(lexicon()[language]["answers"][answer])
    for slot, word in slots.items():
        text = text.replace("{" + slot + "}", word)
    return text


def corpus(language: str, names: tuple[str, ...]) -> list[str]:
    """Every sentence of a language with every name: what the toy tokenizer is trained on."""
    words = lexicon()[language]
    lines = [ask(act, language, index=i, name=name)[0]
             for act in Act for i in templates(act, language) for name in names]  # fmt: skip
    pairs = [(a, b) for a in words["ingredients"] for b in words["ingredients"] if a < b]
    lines += [answer_recipe(language, name, pair) for name in names for pair in pairs[:: max(1, len(pairs) // 12)]]
    lines += [answer_recipe(language, names[i % len(names)], pair) for i, pair in enumerate(pairs)]
    lines += [answer_name(language, name) for name in names]
    lines += [answer_colour(language, colour) for colour in words["colours"] for _ in range(4)]
    lines += [say(language, name) for name in names for say in (answer_letters, redirection)]
    return lines + [text for text in refusals(language) for _ in range(12)]
