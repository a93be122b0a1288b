"""Check training data before anything is trained: every bad row at once, and a summary of the good ones.

Nothing is skipped or replaced: one error names the first 20 faults by file and line and counts all. (The released code
replaced a row that failed by a random other one while it trained.) What rows need follows from the knobs of the stage
and not from its name: see ``demands``.

Example:
    >>> _, summary = check_sources([Source(name="vst", path="vst.jsonl")], seed=0, demand="labels")
    >>> summary.num_by_labels
    {'HH': 3, 'SH': 2, '--': 5}
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from videosafety.core.errors import InputError
from videosafety.core.example import Example
from videosafety.core.labels import Safety
from videosafety.core.records import Record
from videosafety.defend.data.markup import Markup, markup_fault
from videosafety.defend.data.media import media_faults, path_fault
from videosafety.defend.data.mix import Mixture, gather
from videosafety.defend.data.raw import Place, Problems
from videosafety.defend.data.source import Source, grammar_fault
from videosafety.defend.stage import StageConfig

Demand = Literal["any", "labels", "thinking", "reward"]

DEMANDS: tuple[Demand, ...] = get_args(Demand)
REWARD: Demand = "reward"  # what stage 4 asks of its rows
NEEDS: dict[Demand, tuple[str, ...]] = {  # in every row; every example has an answer, the reference of a reward
    "any": (), "labels": (), "thinking": ("visual", "textual", "think"),
    "reward": ("visual", "textual", "request", "language"),
}  # fmt: skip
ASKED_BY: dict[Demand, str] = {"thinking": "a structured response", "reward": "a reward"}
_LETTER = {Safety.SAFE: "S", Safety.HARMFUL: "H", None: "-"}


class Summary(Record):
    """What the data consists of. ``num_by_labels``: visual first, H harmful, S safe, - masked, such as ``HS``."""

    num_examples: int
    num_by_source: dict[str, int]
    num_by_labels: dict[str, int]
    num_by_language: dict[str, int]  # "none" where it is not given
    num_with_media: int
    num_without_media: int
    num_media_files: int  # distinct
    num_visual_masked: int  # rows without a visual label
    num_textual_masked: int
    num_with_thinking: int


def demands(*configs: StageConfig) -> Demand:
    """What the rows of supervised stages need, by the strictest of their configs.

    ``thinking``: labels and thinking in every row, for the structured response. ``labels``: some row with a label, for
    an alarm that is placed and whose loss counts. ``any``: nothing. (``reward``, what ``Example.sample`` needs, is
    asked by stage 4.)
    """
    return max((_demand(config) for config in configs), key=DEMANDS.index, default="any")


def _demand(config: StageConfig) -> Demand:
    weights = {"visual": config.lambda_visual, "textual": config.lambda_textual}
    if config.structured:
        return "thinking"
    return "labels" if any(weights[modality] for modality in config.modalities) else "any"


def check_sources(
    sources: Sequence[Source], *, seed: int, demand: Demand, markup: Markup | None = None, with_media: bool = True
) -> tuple[Mixture, Summary]:
    """Read and mix the sources of a recipe and check everything: all bad rows of all files in one error.

    Args:
        sources: as for ``mix``.
        seed: as for ``mix``.
        demand: what the rows need.
        markup: of the model that is trained; None: not looked for.
        with_media: whether to open the chosen rows' media files.

    Raises:
        RecordError, RecipeError, DependencyError: as ``mix``, and for all that ``check_examples`` finds.
    """
    problems = Problems()
    mixture = gather(sources, seed=seed, problems=problems)
    summary = _check(mixture.examples, places=mixture.places, demand=demand, markup=markup, folder=Path(),
                     with_media=with_media, problems=problems)  # fmt: skip
    return mixture, summary


def check_examples(
    examples: Sequence[Example],
    *,
    demand: Demand,
    markup: Markup | None = None,
    places: Sequence[Place] | None = None,
    folder: Path = Path(),
    with_media: bool = True,
) -> Summary:
    """Check examples from anywhere; the summary of good ones.

    Args:
        examples: at least one.
        demand, markup: as for ``check_sources``.
        places: where each stands, for the error; else ``examples`` and its number, from 1.
        folder: where relative media paths start.
        with_media: whether to open the media files.

    Raises:
        RecordError: ids that stand twice, media that are missing, undecodable or of another kind, tags inside of an
            answer, special tokens in words, or what is demanded is missing: the first 20 faults and the count of all.
        InputError: there is no example, or not one label where labels are demanded.
    """
    found = places if places is not None else [Place("examples", number) for number in range(1, len(examples) + 1)]
    return _check(examples, places=found, demand=demand, markup=markup, folder=folder, with_media=with_media,
                  problems=Problems())  # fmt: skip


def _check(
    examples: Sequence[Example], *, places: Sequence[Place], demand: Demand, markup: Markup | None, folder: Path,
    with_media: bool, problems: Problems,
) -> Summary:  # fmt: skip
    first: dict[str, Place] = {}
    media = [one for example in examples for one in example.media if with_media and path_fault(one.path) is None]
    unusable = media_faults(media, folder=folder)
    for place, example in sorted(zip(places, examples, strict=True), key=lambda pair: pair[0]):
        faults = [f"this id is already at {first[example.id]}" if example.id in first else None]
        first.setdefault(example.id, place)
        faults += [path_fault(one.path) or unusable.get(one) for one in example.media]
        faults.append(grammar_fault(example))
        faults.append(None if markup is None else markup_fault(example, markup))
        faults.append(_lack(example, demand))
        for fault in faults:
            if fault is not None:
                problems.add(place, fault, id=example.id)
    problems.refuse()
    if not examples:
        raise InputError("there is nothing to train on", fix="give at least one example")
    if demand == "labels" and all(example.visual is None and example.textual is None for example in examples):
        raise InputError("no example has a label, so the alarms have nothing to learn", fix="add a source with labels")
    return summarise(examples)


def _lack(example: Example, demand: Demand) -> str | None:
    missing = [name for name in NEEDS[demand] if not str(getattr(example, name) or "").strip()]
    return f"{ASKED_BY[demand]} needs {' and '.join(missing)}, which the row has not" if missing else None


def summarise(examples: Sequence[Example]) -> Summary:
    """Counts, largest first."""
    pairs = Counter(f"{_LETTER[example.visual]}{_LETTER[example.textual]}" for example in examples)
    num_with_media = sum(bool(example.media) for example in examples)
    return Summary(
        num_examples=len(examples),
        num_by_source=dict(Counter(example.source for example in examples).most_common()),
        num_by_labels=dict(pairs.most_common()),
        num_by_language=dict(Counter(example.language or "none" for example in examples).most_common()),
        num_with_media=num_with_media,
        num_without_media=len(examples) - num_with_media,
        num_media_files=len({one.path for example in examples for one in example.media}),
        num_visual_masked=sum(example.visual is None for example in examples),
        num_textual_masked=sum(example.textual is None for example in examples),
        num_with_thinking=sum(bool(example.think) for example in examples),
    )
