"""Sweeps: a recipe with one key after another set to other values, in one folder, with one table and one plot.

A point of a sweep is a variant of the recipe, so points share every checkpoint in which they do not differ, are trained
and asked side by side, and are paired with the recipe itself by seed and item. Only the checkpoint that is compared is
evaluated. By default one factor at a time; ``grid`` asks for the full product.

A folder is bound to the recipe, not to the values: a killed sweep goes on where it stood, and a value or a key that is
added later trains that alone. What is shown is what was asked for this time. A point is named by the keys in which it
differs from the recipe and their values, so the same point has the same folder in every sweep of that recipe.

Run: ``videosafety ablate toy --over defend.cot.learning_rate=1e-4,1e-3``

Example:
    >>> planned = plan(load_recipe("toy", Recipe), over=["defend.cot.learning_rate=1e-4"])      # doctest: +SKIP
    >>> sweep(planned, out=Path("runs/toy_sweep")).page                         # doctest: +SKIP
    PosixPath('runs/toy_sweep/sweep.html')
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from videosafety.chain import BASE, NOTICE, Answering
from videosafety.core.ablation import HELPFUL, by_model, compare
from videosafety.core.errors import InputError, did_you_mean
from videosafety.core.jsonl import canonical_json, read_json, read_record
from videosafety.core.metrics import VIDEO_ARM, SummaryRow, summarise
from videosafety.core.recipe import parse_yaml, with_overrides
from videosafety.core.scored import ScoredItem
from videosafety.evaluate.folder import EvaluationInfo, exit_code, scored_items
from videosafety.judges.base import Measures
from videosafety.pipeline import STAGES, Run
from videosafety.report.book import Book
from videosafety.report.sweep_page import range_lines, write_sweep
from videosafety.report.sweeps import MEASURES, Point, Sweep, Targets, is_number, literal
from videosafety.settings import MAIN, Recipe

FIXED = ("name", "seeds", "benchmark", "base", "data", "variants", "evaluate.judges", "evaluate.arms", "evaluate.after")
MAX_POINTS = 500  # a grid beyond this is a slip
ONCE = ("benchmark", "base")  # stages of the pipeline that no point changes
TRAINS = ("training", "defend")  # … that have nothing to do once every checkpoint is there
OWN_PAGE = "report"  # … that a sweep replaces by its own
DONE = "training.json"  # of a trained checkpoint


@dataclass(frozen=True)
class Plan:
    """What a sweep runs: the recipe with its points as variants, and what they are. ``points`` starts with the recipe.

    ``stage`` is the last one trained, ``base`` where none is; ``axes`` holds each key's values in the order of an axis.
    """

    recipe: Recipe
    points: tuple[Point, ...]
    axes: Mapping[str, tuple[Any, ...]]
    is_grid: bool
    stage: str

    @property
    def identity(self) -> dict[str, Any]:
        """What the folder of the sweep is bound to: all but the points."""
        return self.recipe.model_dump(mode="json") | {"variants": {}}


def plan(recipe: Recipe, *, over: Sequence[str], grid: bool = False, after: str | None = None) -> Plan:
    """The points of a sweep, checked before anything runs.

    Args:
        recipe: the reference; its own variants are left out.
        over: ``key=value,value``: a key of the recipe, YAML values. The recipe's own value is the recipe itself.
        grid: every combination of the values; else each value alone.
        after: the stage whose checkpoint is compared, or ``base``; default the last.

    Raises:
        InputError: a key or value that the recipe refuses, or that cannot be compared; one sentence.
    """
    reference = _reference(recipe, after)
    values = _parsed(over)
    made = {key: _normalised(reference, key, some) for key, some in values.items()}
    own = {key: _at(reference, key) for key in made}
    chosen = list(_combinations(made, own, grid=grid))
    if len(chosen) > MAX_POINTS:
        raise InputError(f"the sweep has {len(chosen)} points", where="--over", fix=f"ask for at most {MAX_POINTS}")
    axes = {key: _axis(own[key], some) for key, some in made.items()}
    points = [Point(MAIN, "", own, ())]
    overrides: dict[str, tuple[str, ...]] = {}
    for settings in chosen:
        changed = tuple(key for key in settings if settings[key] != own[key])
        name = _name({key: settings[key] for key in changed})
        if changed and name not in overrides:
            overrides[name] = tuple(f"{key}={_json(settings[key])}" for key in changed)
            points.append(Point(name, "", settings, changed))
    if not overrides:
        raise InputError("every value is the recipe's own", where="--over", fix="give another value beside it")
    whole = _with(reference, [f"variants={_json(overrides)}"], where="--over")
    stage = whole.defend.stages[-1] if whole.defend.stages else BASE
    return _checked(Plan(whole, tuple(points), axes, grid, stage))


def _reference(recipe: Recipe, after: str | None) -> Recipe:
    """The recipe up to the stage that is compared, evaluated there alone, without its variants."""
    stages = recipe.defend.stages
    if after is not None and after not in (BASE, *stages):
        hint = did_you_mean(after, (BASE, *stages))
        raise InputError(f"no stage {after!r} in this recipe", where="--after", fix=hint)
    kept = stages if after is None else stages[: (BASE, *stages).index(after)]
    if VIDEO_ARM not in recipe.evaluate.arms:
        raise InputError(f"a sweep compares answers with video, the recipe asks {', '.join(recipe.evaluate.arms)}",
                         where="evaluate.arms", fix=f"add {VIDEO_ARM}")  # fmt: skip
    if recipe.data is not None and recipe.data.benchmark is None:
        raise InputError("nothing is evaluated", where=recipe.name, fix="set data.benchmark")
    overrides = ["variants={}", "evaluate.after=last_stage", f"defend.stages={_json(kept)}"]
    return _with(recipe, overrides, where=recipe.name)


def _with(recipe: Recipe, overrides: Sequence[str], *, where: str) -> Recipe:
    return with_overrides(recipe.model_dump(mode="json"), overrides, schema=Recipe, where=where)


def _parsed(over: Sequence[str]) -> dict[str, list[Any]]:
    """Every key with its values as they are written."""
    found: dict[str, list[Any]] = {}
    for text in over:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not key or not equals or not values:
            raise InputError(f"{text!r} is not key=value,value", where="--over",
                             fix="write it as defend.cot.learning_rate=1e-4,1e-3")  # fmt: skip
        if key in found:
            raise InputError(f"the key {key} stands twice", where="--over", fix="put all its values into one")
        if fixed := next((one for one in FIXED if key == one or key.startswith(f"{one}.")), None):
            raise InputError(f"{key} cannot be swept: all points share {fixed}, or they could not be paired",
                             where="--over", fix="make a run of its own for each")  # fmt: skip
        listed = parse_yaml(f"[{values}]", where=f"--over {text}")
        if not isinstance(listed, list) or not listed:
            raise InputError(f"{text!r} names no value", where="--over", fix="write key=value,value")
        found[key] = listed
    if not found:
        raise InputError("nothing to sweep over", where="--over", fix="give --over key=value,value")
    return found


def _normalised(reference: Recipe, key: str, values: Sequence[Any]) -> list[Any]:
    """The values as the recipe holds them (1 for a knob with a fraction is 1.0), each once."""
    found: list[Any] = []
    for value in values:
        made = _with(reference, [f"{key}={_json(value)}"], where=f"--over {key}={literal(value)}")
        if made.defend.stages[-1:] != reference.defend.stages[-1:]:
            raise InputError("all points end after the same stage", where=f"--over {key}={literal(value)}",
                             fix=f"let defend.stages end with {(BASE, *reference.defend.stages)[-1]}")  # fmt: skip
        if (held := _at(made, key)) not in found:
            found.append(held)
    return found


def _at(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key in plain data; None where the recipe has nothing there."""
    place: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _combinations(values: Mapping[str, list[Any]], own: Mapping[str, Any], *, grid: bool) -> Iterator[dict[str, Any]]:
    """The settings of every point, some of which may be the recipe's own."""
    if grid:
        for chosen in product(*values.values()):
            yield dict(zip(values, chosen, strict=True))
        return
    for key, some in values.items():
        for value in some:
            yield {**own, key: value}


def _axis(own: Any, values: Sequence[Any]) -> tuple[Any, ...]:
    """Numbers by size, all else as it was given; the recipe's own value is there too."""
    every = list(values) if own in values else [own, *values]
    return tuple(sorted(every)) if all(map(is_number, every)) else tuple(every)


def _name(settings: Mapping[str, Any]) -> str:
    """A variant's name: readable, and by its hash the same for the same settings alone."""
    said = "_".join(f"{key.rpartition('.')[2]}_{literal(value)}" for key, value in settings.items())
    plain = re.sub(r"[^a-z0-9]+", "_", said.lower()).strip("_")[:30].rstrip("_")
    digest = hashlib.sha256(canonical_json(dict(settings))).hexdigest()[:8]
    return f"{plain if plain[:1].isalpha() else 'p' + plain}_{digest}"


def _json(value: Any) -> str:
    """A value as YAML of one line."""
    return canonical_json(value).decode()


def _checked(planned: Plan) -> Plan:
    """The plan with the models' names; a point that is no other model is a slip."""
    run = Run(planned.recipe, Path(), Console(quiet=True), 1)
    seed = planned.recipe.seeds[0]
    chains = {chain.name: chain for chain in run.chains}
    ends = {name: (str(one.checkpoint), one.config) for name, chain in chains.items()
            for one in chain.answerings(seed)}  # fmt: skip
    for point in planned.points[1:]:
        if ends[point.name] == ends[MAIN]:
            raise InputError(f"{' and '.join(point.changed)} changes nothing of what is compared after {planned.stage}",
                             where="--over", fix="choose another key, or another --after")  # fmt: skip
    points = tuple(Point(p.name, chains[p.name].model, p.settings, p.changed) for p in planned.points)
    return Plan(planned.recipe, points, planned.axes, planned.is_grid, planned.stage)


@dataclass(frozen=True)
class Done:
    """A finished sweep: its page, the critical ranges in a line each, and the exit code of its evaluations."""

    page: Path
    lines: tuple[str, ...]
    exit_code: int


def sweep(
    planned: Plan,
    *,
    out: Path,
    targets: Targets | None = None,
    reuse: Path | None = None,
    console: Console | None = None,
    workers: int | None = None,
) -> Done:
    """Train and ask what is not done yet, then write table, plot and critical ranges.

    ``reuse`` is the folder of a run on the same base: its finished bases and checkpoints are linked, not trained again.

    Raises:
        InputError: ``out`` holds something else than a sweep of this recipe, or ``reuse`` has another base.
        CheckpointError, StorageError: a checkpoint does not load; the disk is full.
    """
    run = Run(planned.recipe, out, console or Console(stderr=True), workers or len(os.sched_getaffinity(0)))
    recipe = planned.recipe
    book = Book.open(out, name=recipe.name, seeds=recipe.seeds, recipe=planned.identity)
    if reuse is not None:
        link_checkpoints(run, reuse)
    is_trained = all(step.finished for level in run.steps for step in level)
    run.console.print(_ahead(planned, run), markup=False, highlight=False, soft_wrap=True)
    for name, stage in STAGES:
        is_done = (name in ONCE and book.finished(name)) or (name in TRAINS and is_trained)
        if name != OWN_PAGE and not is_done:
            with book.stage(name):
                stage(run)
    results = collect(planned, run.answerings, targets or Targets())
    page = write_sweep(out, results)
    return Done(page, tuple(range_lines(results)), exit_code([one.out for one in run.answerings]))


def _ahead(planned: Plan, run: Run) -> str:
    """What is to do, in a line."""
    steps = [step.finished for level in run.steps for step in level]
    asked = [one.finished for one in run.answerings]
    num_points, num_seeds = len(planned.points) - 1, len(planned.recipe.seeds)
    return (f"{num_points} point{'s' if num_points != 1 else ''} and the recipe itself, "
            f"{num_seeds} seed{'s' if num_seeds != 1 else ''}: {steps.count(False)} of {len(steps)} trainings and "
            f"{asked.count(False)} of {len(asked)} evaluations to do")  # fmt: skip


def collect(planned: Plan, answerings: Sequence[Answering], targets: Targets) -> Sweep:
    """The results of a sweep from its evaluations."""
    items = [_whole(item) for one in answerings for item in scored_items(one.out) if item.arm == VIDEO_ARM]
    recipe, (reference, *others) = planned.recipe, planned.points
    infos = [read_record(one.out / "evaluation.json", EvaluationInfo) for one in answerings]
    blind = {card.name for info in infos for card in info.judges if card.measures is Measures.REFUSAL}
    judges = [judge for judge in recipe.evaluate.judges if judge not in blind] or list(recipe.evaluate.judges)
    compared = compare(items, reference=reference.model, variants=[p.model for p in others], key=by_model,
                       targets=MEASURES) if others else []  # fmt: skip
    return Sweep(
        name=recipe.name, stage=planned.stage, seeds=recipe.seeds, axes=planned.axes, points=planned.points,
        is_grid=planned.is_grid, judge=judges[0], targets=targets,
        rows=tuple(row for row in summarise(items, refusal_only_judges=frozenset(blind)) if _is_shown(row)),
        compared=tuple(row for row in compared if not (row.judge in blind and row.metric == HELPFUL.metric)),
        notice=NOTICE if recipe.data is None else None,
    )  # fmt: skip


def _whole(item: ScoredItem) -> ScoredItem:
    """An item without its language and category, by which a sweep does not summarise."""
    return item.model_copy(update={"language": "en", "category": None})


def _is_shown(row: SummaryRow) -> bool:
    kinds = {(measure.metric, measure.subset) for measure in MEASURES}
    return row.language is None and row.category is None and (row.metric.value, row.subset) in kinds


def link_checkpoints(run: Run, other: Path) -> None:
    """Link the finished bases and checkpoints of another run that this one needs; what is here already stays.

    Checkpoints are named by all that made them, and so are equal; bases are not, so the runs must agree on theirs.

    Raises:
        InputError: no run there, or one on another base.
    """
    theirs = read_json(other / "run.json").get("recipe", {}) if (other / "run.json").is_file() else {}
    mine = run.recipe.model_dump(mode="json")
    world = theirs.get("benchmark", {}).get("world")
    if theirs.get("base") != mine["base"] or world != mine["benchmark"]["world"]:
        raise InputError("there is no run with the base of this recipe", where=str(other),
                         fix="name the folder of a run of the same recipe")  # fmt: skip
    made = [step.out for level in run.steps for step in level]
    if run.recipe.base.source == "train":
        made += [run.folder / "bases" / f"seed-{seed}" for seed in run.recipe.seeds]
    for folder in made:
        source = (other / folder.relative_to(run.folder)).resolve()
        if not folder.exists() and (source / DONE).is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(source, target_is_directory=True)
