"""How diverse thinking responses are, by language, beside a single template's on the same rows.

What made a text is told by its skeleton: the text without what the row itself puts in (caption, evidence, category,
numbers). So a model's responses are measured like the composer's. The baseline is ``Compose`` with one plan and one
sentence a move, which is what fixed templates give (the paper's reviewers asked for better).

Example:
    >>> print(table(against_template(thoughts)))                                             # doctest: +SKIP
    language  rows  distinct-2       self-BLEU        template share
    en         200  0.21 (0.04)      0.71 (0.97)      0.01 (0.50)
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from videosafety.build.diversity import Diversity, Text, diversity, folded
from videosafety.build.records import Thought
from videosafety.build.think import Compose
from videosafety.build.voices import voice
from videosafety.core.records import LANGUAGES

_NUMBER = re.compile(r"\d+([.,]\d+)?")


class Compared(NamedTuple):
    """Figures of the responses of a language, and of the single template on the same rows."""

    own: Diversity
    baseline: Diversity


def skeleton(thought: Thought, *, taxonomy: str = "vse") -> str:
    """The thinking without what its row puts in: equal for two texts of one template."""
    described, text = thought.asked.described, thought.think
    said = voice(thought.asked.sample.language, taxonomy)
    parts = [described.caption, *(one.what for one in described.evidence), thought.asked.sample.query]
    parts += [*said.topics.values(), *said.clip.values(), *said.in_clip.values()]
    for part in sorted((folded(one) for one in parts), key=len, reverse=True):
        text = folded(text).replace(part, "_") if part else text
    return _NUMBER.sub("0", folded(text))


def against_template(thoughts: Sequence[Thought], *, compose: Compose | None = None) -> dict[str, Compared]:
    """By language, the figures of the thinking and those of a single template; ``compose`` sets the latter's seed."""
    single = replace(compose or Compose(), plans=1, choices=1)
    rows: dict[str, list[Thought]] = defaultdict(list)
    for thought in thoughts:
        rows[thought.asked.sample.language].append(thought)
    found = {}
    for language in (one for one in LANGUAGES if one in rows):
        own = rows[language]
        base = [made[0] for one in own if isinstance(made := single(one.asked), list)]
        if base:
            found[language] = Compared(
                diversity(_texts(own, single.taxonomy)), diversity(_texts(base, single.taxonomy))
            )
    return found


def _texts(thoughts: Sequence[Thought], taxonomy: str) -> list[Text]:
    return [Text(text=one.think, language=one.asked.sample.language, template=skeleton(one, taxonomy=taxonomy))
            for one in thoughts]  # fmt: skip


def table(compared: Mapping[str, Compared]) -> str:
    """A line a language; the single template's figures in brackets."""
    lines = [f"{'language':9} {'rows':>5}  {'distinct-2':15}  {'self-BLEU':15}  template share"]
    for language, (own, base) in compared.items():
        pairs = [(own.distinct_2, base.distinct_2), (own.self_bleu, base.self_bleu),
                 (own.template_share, base.template_share)]  # fmt: skip
        cells = [" ".join((_figure(mine), f"({_figure(theirs)})")) for mine, theirs in pairs]
        lines.append(f"{language:9} {own.count:5}  {cells[0]:15}  {cells[1]:15}  {cells[2]}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
