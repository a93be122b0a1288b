"""Prompt baselines in the evaluation: the same words around every query, in every arm, and their cards.

Default is no treatment: no system prompt, the query as it is. The judges see the item without the words around it.

Example:
    >>> words = treatments("policy", benchmark)                                 # doctest: +SKIP
    >>> [card.name for card in cards(words.values())]                           # doctest: +SKIP
    ['policy']
"""

from collections.abc import Iterable, Mapping

from pydantic import Field

from videosafety.core import prompts
from videosafety.core.prompts import Treatment, TreatmentName
from videosafety.core.records import Record
from videosafety.evaluate.manifest import Benchmark
from videosafety.toyworld import policy


class PromptCard(Record):
    """Which words a result came from: the treatment, the version of its words and their hash."""

    name: TreatmentName
    version: int = Field(ge=1)
    sha256: str


def treatments(name: TreatmentName | None, benchmark: Benchmark) -> Mapping[str, Treatment]:
    """The treatment for each language of a benchmark; empty without one.

    A toy benchmark gets the toy world's words, any other the policies of its own taxonomy.
    """
    if name is None:
        return {}
    languages = sorted({sample.language for sample in benchmark.samples})
    if benchmark.taxonomy.status == "toy":
        world = policy.world_of(benchmark.samples)
        return {language: policy.treatment(name, world, language) for language in languages}
    return dict.fromkeys(languages, prompts.treatment(name, benchmark.taxonomy))


def cards(words: Iterable[Treatment]) -> tuple[PromptCard, ...]:
    """One card for each distinct wording, sorted by hash."""
    found = {one.sha256: PromptCard(name=one.name, version=one.version, sha256=one.sha256) for one in words}
    return tuple(found[sha256] for sha256 in sorted(found))
