"""The toy training set of stages 1 to 3: fresh clips with questions, right answers, short reasoning and both labels.

What stands for the paper's VideoSafetyThinking, in the form that real data has: a folder with mp4 files and records.
Templates, ground colours, ball colours and positions are those of training; the evaluation's never occur, and the two
held-out rules appear nowhere. The reasoning names what is shown and what is forbidden, in sentences that the base model
knows. A share of the harmless rows is *general*: no labels, so their alarm loss is masked.

Example:
    >>> build_training(Path("train"), TrainingConfig(), on_row=lambda done, total: None)     # doctest: +SKIP
    PosixPath('train')
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import field_validator

from videosafety.core.errors import did_you_mean
from videosafety.core.example import Example, Turn
from videosafety.core.folder import write_folder
from videosafety.core.labels import Safety
from videosafety.core.recipe import Config, knob
from videosafety.core.records import Sample, Video
from videosafety.core.store import sha256_file, write_manifest, write_records
from videosafety.toyworld import dialogue
from videosafety.toyworld.benchmark import pick
from videosafety.toyworld.dialogue import Act, templates
from videosafety.toyworld.items import item
from videosafety.toyworld.scenes import FPS, Scene, draw, sample_scene
from videosafety.toyworld.world import HELD_OUT_RULES, Thing, World
from videosafety.video.write import write_mp4

SAFETY, GENERAL = "safety.jsonl", "general.jsonl"  # rows with labels, rows without
TRAINING_SEED = 3000  # apart from the benchmark's seeds
GROUPS = ("HH", "SH", "composed", "HS", "SS", "text_harmful", "text_safe")
SHARES = {"HH": 0.10, "SH": 0.10, "composed": 0.12, "HS": 0.26, "SS": 0.30, "text_harmful": 0.05, "text_safe": 0.07}
NOTHING_SHOWN_SHARE = 0.2  # of the clips of SH and SS that may show nothing


class TrainingConfig(Config):
    """How large the toy training set is and what it is made of."""

    world: str = knob("small", help="size of the toy world: small or full")
    num_rows: int = knob(2560, unit="examples", help="rows, each with a clip of its own", ge=1, le=100_000)
    seed: int = knob(TRAINING_SEED, help="seed of clips and questions", ge=0)
    shares: dict[str, float] = knob(SHARES, help="share of each group of rows")
    general_share: float = knob(0.15, help="share of harmless rows without labels", ge=0, le=1)

    @field_validator("shares")
    @classmethod
    def _of_known_groups(cls, shares: dict[str, float]) -> dict[str, float]:
        for group in shares:
            if group not in GROUPS:
                raise ValueError(f"unknown group {group!r}; {did_you_mean(group, GROUPS)}")
        if min(shares.values(), default=0) < 0 or not sum(shares.values()):
            raise ValueError("shares are 0 or more, and some are more")
        return shares


@dataclass(frozen=True)
class Row:
    """An example and the scene of its clip, None for words alone."""

    example: Example
    scene: Scene | None


def build_training(
    out: Path, config: TrainingConfig, *, on_row: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write clips, ``safety.jsonl`` and ``general.jsonl`` to ``out``, whole or not at all; returns ``out``.

    Equal configs give equal bytes.

    Raises:
        InputError: unknown world.
        StorageError: the disk is full or refuses.
    """
    rows = training_rows(config)

    def fill(part: Path) -> None:
        (part / "clips").mkdir()
        examples = []
        for done, row in enumerate(rows, start=1):
            examples.append(_write(part, row))
            on_row(done, len(rows))
        for name, general in ((SAFETY, False), (GENERAL, True)):
            write_records(part / name, [one for one in examples if (one.visual is None) == general])
        files = [SAFETY, GENERAL, *(example.media[0].path for example in examples if example.media)]
        write_manifest(part, name=f"toy-training-{config.world}", seed=config.seed, num_records=len(rows), files=files)

    return write_folder(out, fill)


def training_rows(config: TrainingConfig) -> list[Row]:
    """All rows in their order: a function of the config alone."""
    world = World.of(config.world)
    rng = np.random.default_rng((config.seed, 11))
    groups = [group for group in GROUPS if config.shares.get(group)]
    shares = np.array([config.shares[group] for group in groups])
    chosen = rng.choice(len(groups), size=config.num_rows, p=shares / shares.sum())
    return [_row(rng, world, groups[i], f"toy-{number:05d}", config) for number, i in enumerate(chosen)]


def _row(rng: np.random.Generator, world: World, group: str, id: str, config: TrainingConfig) -> Row:
    known = [thing for thing in world.things if thing.rule not in HELD_OUT_RULES]
    bad, good = [t for t in known if t.forbidden], [t for t in known if not t.forbidden]
    act, asked, shown = _subject(rng, group, bad=bad, good=good)
    with_clip = not group.startswith("text")
    scene = sample_scene(rng, world, showing=shown) if with_clip else None
    language = pick(rng, world.languages)
    sample = item(
        world, id=id, act=act, language=language, index=pick(rng, templates(act, language, held_out=False)),
        name=None if asked is None else asked.name, scene=scene, media=Video(path=f"clips/{id}.mp4") if scene else None,
    )  # fmt: skip
    general = sample.labels.request is Safety.SAFE and rng.random() < config.general_share
    return Row(_example(sample, shown=shown, asked=asked, general=general), scene)


def _subject(
    rng: np.random.Generator, group: str, *, bad: list[Thing], good: list[Thing]
) -> tuple[Act, Thing | None, Thing | None]:
    """What is asked for, of what by name, and what the clip shows."""
    nothing = rng.random() < NOTHING_SHOWN_SHARE
    if group in ("HH", "text_harmful"):
        shown = pick(rng, bad)
        return Act.RECIPE, shown if rng.random() < 0.7 else pick(rng, bad), shown if group == "HH" else None
    if group == "SH":
        return Act.RECIPE, pick(rng, bad), None if nothing else pick(rng, good)
    if group == "composed":
        return Act.SHOWN, None, pick(rng, bad)
    if group == "text_safe":
        act = Act.RECIPE if rng.random() < 0.7 else Act.LETTERS
        return act, pick(rng, good if act is Act.RECIPE else [*bad, *good]), None
    acts = [Act.RECIPE, Act.RECIPE, Act.NAME, Act.COLOUR, Act.LETTERS] + ([Act.SHOWN] * 2 if group == "SS" else [])
    act = pick(rng, acts)
    shown = pick(rng, bad if group == "HS" else good)
    if group == "SS" and act not in (Act.NAME, Act.SHOWN) and nothing:
        return act, pick(rng, good if act is Act.RECIPE else [*bad, *good]), None
    named = {Act.RECIPE: good, Act.LETTERS: [*bad, *good]}.get(act)
    return act, None if named is None else pick(rng, named), shown


def _example(sample: Sample, *, shown: Thing | None, asked: Thing | None, general: bool) -> Example:
    labels = sample.labels
    return Example(
        id=sample.id,
        turns=(Turn(role="user", text=sample.query, media=() if sample.media is None else (sample.media,)),),
        answer=sample.reference or "",
        think=think(sample, shown=shown if sample.media is not None else None, asked=asked),
        visual=None if general else labels.visual,
        textual=None if general else labels.textual,
        request=None if general else labels.request,
        language=sample.language,
        source="toy-general" if general else "toy-safety",
        facts=sample.facts,
    )


def think(sample: Sample, *, shown: Thing | None, asked: Thing | None) -> str:
    """What is shown (else what is asked about), and what of shown and asked is forbidden."""
    subject = shown or asked
    said = [sample.reference or ""] if subject is None else [dialogue.answer_name(sample.language, subject.name)]
    named = [shown] if sample.labels.visual is Safety.HARMFUL else []
    named += [asked] if sample.labels.textual is Safety.HARMFUL else []
    names = dict.fromkeys(thing.name for thing in named if thing is not None)
    return " ".join([*said, *(dialogue.redirection(sample.language, name) for name in names)])


def _write(folder: Path, row: Row) -> Example:
    example = row.example
    if row.scene is None:
        return example
    [turn] = example.turns
    [media] = turn.media
    write_mp4(folder / media.path, draw(row.scene), fps=FPS)
    known = media.model_copy(update={"sha256": sha256_file(folder / media.path)})
    return example.model_copy(update={"turns": (turn.model_copy(update={"media": (known,)}),)})
