"""The steps of a build in their order, made from its recipe.

A step that calls models needs an open ledger and a purse, which a worker on another machine has of its own. So a stage
is a way to make a step, and can be pickled.

Example:
    >>> [stage.name for stage in stages(recipe, root=root)]                                  # doctest: +SKIP
    ['probe', 'embed', 'filter', 'describe', 'settle', 'ask', 'think', 'check', 'heed', 'mix']
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from videosafety.build.annotate.annotator import AnnotatorConfig
from videosafety.build.annotate.caller import Caller
from videosafety.build.annotate.describe import Describe, DescribeConfig
from videosafety.build.annotate.labelled import DescribeFromManifest
from videosafety.build.annotate.purse import Purse
from videosafety.build.ask import Ask
from videosafety.build.check import Check
from videosafety.build.embed import PhashEmbed
from videosafety.build.filter import Filter
from videosafety.build.gone import looks_of
from videosafety.build.keep import Keep
from videosafety.build.ledger import Ledger
from videosafety.build.mix import Mix
from videosafety.build.paraphrase import Paraphrase
from videosafety.build.people.people import People
from videosafety.build.people.settle import Heed, Settle
from videosafety.build.phrases import PhraseBook, load_phrases
from videosafety.build.probe import Probe
from videosafety.build.recipe import THRESHOLDS, BuildRecipe
from videosafety.build.screen import Quarantine, QuarantineLooks
from videosafety.build.step import Named
from videosafety.build.think import Compose, Think


@dataclass(frozen=True)
class Stage:
    """A step to be made: ``name`` is the step's."""

    name: str
    how: Callable[..., Any] = field(compare=False)

    def make(self, ledger: Ledger, purse: Purse, *, share: int = 1) -> Any:
        """The step over a ledger and a purse; ``share``: of so many that ask the same models at a time."""
        return self.how(ledger, purse, share=share)


def stages(recipe: BuildRecipe, *, clips: Path, root: Path, people: People, gone: Collection[str] = ()) -> list[Stage]:
    """The steps after ``collect``.

    Args:
        recipe: what is wanted.
        clips: the folder in which the clips were found.
        root: the folder that kept clips' paths start from; the same where they stay in place.
        people: what reviewers said so far.
        gone: ids of clips that were withdrawn or quarantined, of which no copy may come back.

    Raises:
        RecipeError, InputError: templates, labels or hash lists that the recipe names cannot be read.
    """
    ask, think = recipe.ask, recipe.think
    phrases = load_phrases(Path(ask.phrases) if ask.phrases else None, taxonomy=recipe.taxonomy)
    embed = _embed(recipe, root)
    found = [_fixed(step) for step in _looking(recipe, clips, root, embed)]
    given = {name: value for name in THRESHOLDS if (value := getattr(recipe.embed, name)) is not None}
    found.append(Stage("filter", partial(_filter, Filter(embedder=recipe.embed.embedder, **given), embed, gone)))
    if recipe.describe is not None:
        found.append(Stage("describe", partial(_describe, recipe.describe, recipe.taxonomy, root)))
    elif recipe.labels is not None:
        found.append(_fixed(DescribeFromManifest.of(Path(recipe.labels), taxonomy=recipe.taxonomy)))
    found.append(_fixed(Settle(people)))
    found.append(_fixed(Ask(phrases=phrases, plan=ask.plan, seed=recipe.seed)))
    if ask.paraphrase is not None:
        found.append(Stage("paraphrase", partial(_paraphrase, ask.paraphrase, phrases, root)))
    compose = Compose(seed=recipe.seed, caption_language=think.caption_language, foreign=think.foreign,
                      borderline=think.borderline, taxonomy=recipe.taxonomy)  # fmt: skip
    check = recipe.check.step(recipe.taxonomy)
    if think.model is not None:
        found.append(Stage("think", partial(_think, think.model, check, compose, root)))
    else:
        found.append(_fixed(compose))
    mix = Mix(quotas=recipe.mix.quotas, eval_share=ask.eval_share, near=recipe.mix.near, seed=recipe.seed)
    return [*found, _fixed(check), _fixed(Heed(people)), Stage("mix", partial(_mix, mix))]


def _embed(recipe: BuildRecipe, root: Path) -> Named:
    """The embedder. Raises InputError: its checkpoint cannot be read."""
    embed = recipe.embed
    if embed.checkpoint is None:
        return PhashEmbed(root=str(root))
    from videosafety.build.embed_dinov2 import Dinov2Embed  # torch

    return Dinov2Embed.of(Path(embed.checkpoint), root=str(root), device=embed.device)


def _looking(recipe: BuildRecipe, clips: Path, root: Path, embed: Named) -> Iterator[Named]:
    """What is done to files before anybody looks at them."""
    listed = Path(recipe.publish.hash_list) if recipe.publish.hash_list is not None else None
    if listed is not None:
        yield Quarantine.of(listed)
    if recipe.collect.keep != "in_place":
        yield Keep(clips=str(clips), root=str(root), links=recipe.collect.keep == "link")
    yield Probe(root=str(root))
    yield embed
    if listed is not None and recipe.embed.embedder == "phash":
        yield QuarantineLooks.of(listed)


def _fixed(step: Named) -> Stage:
    """A stage whose step needs neither ledger nor purse."""
    return Stage(step.name, partial(_given, step))


def _given(step: Named, ledger: Ledger, purse: Purse, *, share: int) -> Named:
    return step


def _filter(step: Filter, embed: Named, gone: Collection[str], ledger: Ledger, purse: Purse, *, share: int) -> Filter:
    return replace(step, gone=looks_of(gone, ledger, embed=embed))


def _mix(mix: Mix, ledger: Ledger, purse: Purse, *, share: int) -> Mix:
    return replace(mix, before=ledger.splits())


def _describe(
    config: DescribeConfig, taxonomy: str, root: Path, ledger: Ledger, purse: Purse, *, share: int
) -> Describe:
    last = config.adjudicator
    own = {"annotators": tuple(one.shared_by(share) for one in config.annotators),
           "adjudicator": last and last.shared_by(share)}  # fmt: skip
    return Describe.of(config.model_copy(update=own), taxonomy=taxonomy, ledger=ledger, purse=purse, root=root)


def _paraphrase(
    config: AnnotatorConfig, phrases: PhraseBook, root: Path, ledger: Ledger, purse: Purse, *, share: int
) -> Paraphrase:  # fmt: skip
    client = Caller(config.shared_by(share), ledger=ledger, purse=purse, step="paraphrase", root=root)
    return Paraphrase(phrases=phrases, model=config.tag, client=client)


def _think(
    config: AnnotatorConfig, check: Check, compose: Compose, root: Path, ledger: Ledger, purse: Purse, *, share: int
) -> Think:  # fmt: skip
    client = Caller(config.shared_by(share), ledger=ledger, purse=purse, step="think", root=root)
    return Think(model=config.tag, client=client, check=check, compose=compose)
