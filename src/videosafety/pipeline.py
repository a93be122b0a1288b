"""The paper as an ordered list of stages; run it, kill it, run it again.

    benchmark   the toy clips and questions                       -> benchmark/
    base        a video LLM that is safe on text                  -> bases/seed-N/ (or a checkpoint that is there)
    training    the toy training set                              -> lessons/ID/
    defend      alarm initialisation, AT-SFT, reasoning           -> checkpoints/STAGE-ID/seed-N/
    evaluate    the same items under every arm, after each stage  -> evaluations/…/
    report      tidy rows, comparisons and one page               -> summary.json, ablations.json, report.html

A stage writes a folder and is then marked in ``run.json`` with what it cost; a marked stage is not repeated. Variants
of a recipe run beside it and share every stage in which they do not differ: ID is a hash over all that made a
checkpoint.

Run: ``videosafety run recipes/toy.yaml --out runs/demo``

Example:
    >>> run(load_recipe("toy", Recipe), out=Path("runs/demo"))                  # doctest: +SKIP
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from videosafety.chain import (
    Answering,
    Chain,
    Step,
    answer_step,
    compare_variants,
    keep_curves,
    keep_trainings,
    train_step,
)
from videosafety.core.errors import InputError
from videosafety.core.jobs import Job, OnProgress, run_jobs
from videosafety.core.progress import progress_bar
from videosafety.defend.stage import SFT_STAGES
from videosafety.evaluate.folder import exit_code, summarise_run
from videosafety.report.book import Book
from videosafety.report.build import build as build_report
from videosafety.settings import MAIN, Recipe
from videosafety.toyworld.build import build_benchmark
from videosafety.toyworld.training import build_training

MAX_BARS = 8
RESULTS = Path(__file__).parents[2] / "results"  # in a clone: the committed tables


@dataclass(frozen=True)
class Run:
    """A recipe, its folder, and where people see progress."""

    recipe: Recipe
    folder: Path
    console: Console
    workers: int
    chains: tuple[Chain, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = (MAIN, *self.recipe.variants)
        chains = tuple(Chain(name, self.recipe.variant(name), self.folder) for name in names)
        object.__setattr__(self, "chains", chains)

    @cached_property
    def steps(self) -> tuple[tuple[Step, ...], ...]:
        """Training steps by depth: those of one depth are independent; equal ones of several variants stand once."""
        depth = max(len(chain.recipe.defend.stages) for chain in self.chains)
        levels = []
        for level in range(depth):
            some = [chain.step(level, seed) for chain in self.chains for seed in self.recipe.seeds
                    if level < len(chain.recipe.defend.stages)]  # fmt: skip
            levels.append(tuple({step.out: step for step in some}.values()))
        return tuple(levels)

    @property
    def answerings(self) -> list[Answering]:
        """Every evaluation, the base's first."""
        return [one for chain in self.chains for seed in self.recipe.seeds for one in chain.answerings(seed)]


def benchmark_stage(run: Run) -> None:
    """The toy clips and questions, as files; nothing where the recipe brings its own data."""
    config = run.recipe.benchmark
    if run.recipe.data is not None:
        return
    with progress_bar(run.console) as bar:
        task = bar.add_task("drawing clips", total=None)
        build_benchmark(
            run.folder / "benchmark", size=config.world, seed=config.seed, clips_per_name=config.clips_per_name,
            on_clip=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def base_stage(run: Run) -> None:
    """A video LLM that is safe on text: a checkpoint that is there, or one trained from scratch for every seed."""
    recipe = run.recipe
    if recipe.base.source == "committed" and recipe.seeds != (0,):
        raise InputError(f"the committed base has seed 0, not {list(recipe.seeds)}", where="seeds",
                         fix="use seeds: [0], or base.source: train")  # fmt: skip
    if recipe.base.source != "train":
        return
    from videosafety.toyworld.base import base_config
    from videosafety.toyworld.seeds import train_seeds

    steps = recipe.base.steps
    config = base_config(recipe.benchmark.world, pretrain_steps=steps.pretrain, align_steps=steps.align,
                         family=recipe.base.family)  # fmt: skip
    names = [f"seed {seed}" for seed in recipe.seeds]
    with _bars(run, names, "training the base", total=steps.pretrain + steps.align) as update:
        train_seeds(config, seeds=recipe.seeds, folder=run.folder / "bases", workers=run.workers, on_progress=update)


def training_stage(run: Run) -> None:
    """The toy training sets that the variants need."""
    wanted = {chain.lessons: chain.recipe.training for chain in run.chains
              if set(SFT_STAGES) & set(chain.recipe.defend.stages) and chain.recipe.data is None}  # fmt: skip
    wanted |= {chain.prompts: chain.recipe.prompts for chain in run.chains
               if "grpo" in chain.recipe.defend.stages and chain.recipe.data is None}  # fmt: skip
    with progress_bar(run.console) as bar:
        for folder, config in wanted.items():
            task = bar.add_task("drawing lessons", total=config.num_rows)
            build_training(folder, config, on_row=partial(_advance, bar, task))


def defend_stage(run: Run) -> None:
    """The stages of every variant and seed; what is finished is not trained again."""
    for level in run.steps:
        jobs = [Job(step.name, train_step, {"step": step}) for step in level if not step.finished]
        with _bars(run, [job.name for job in jobs], "training", total=None) as update:
            run_jobs(jobs, workers=run.workers, on_progress=update)


def evaluate_stage(run: Run) -> None:
    """The same items under every arm, asked of every checkpoint."""
    todo = [one for one in run.answerings if not one.finished]
    alone = len(todo) <= 1 or run.workers <= 1
    jobs = [Job(one.name, answer_step, {"answering": one, "quiet": not alone}) for one in todo]
    if alone:
        run_jobs(jobs, workers=1)
        return
    with _bars(run, [job.name for job in jobs], "evaluating", total=1) as update:
        run_jobs(jobs, workers=run.workers, on_progress=update)


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


@contextmanager
def _bars(run: Run, names: Sequence[str], what: str, *, total: int | None) -> Iterator[OnProgress]:
    """A progress bar for each job by name, and one over all where there are many."""
    with progress_bar(run.console) as bar:
        if len(names) > MAX_BARS:
            task = bar.add_task(f"{what}, {len(names)} jobs", total=len(names))
            ended: set[str] = set()

            def count(name: str, done: int, of: int) -> None:
                ended.update([name] if done >= of else [])
                bar.update(task, completed=len(ended))

            yield count
            return
        tasks = {name: bar.add_task(f"{what}, {name}", total=total) for name in names}
        yield lambda name, done, of: bar.update(tasks[name], completed=done, total=of)


def report_stage(run: Run) -> None:
    """Tidy rows, comparisons and one page."""
    if not run.answerings:
        return
    summarise_run(run.folder)
    compare_variants(run.folder, run.chains, seeds=run.recipe.seeds)
    keep_curves(run.folder, run.chains[0], seeds=run.recipe.seeds)
    keep_trainings(run.folder, run.chains, seeds=run.recipe.seeds)
    committed = RESULTS / f"toy_{run.recipe.benchmark.world}" / "summary.json"
    ours = run.recipe.data is None and run.recipe.base.family == "videollama3"
    shown = committed if ours and committed.is_file() else None
    build_report(run.folder, committed=shown)


STAGES: tuple[tuple[str, Callable[[Run], None]], ...] = (
    ("benchmark", benchmark_stage),
    ("base", base_stage),
    ("training", training_stage),
    ("defend", defend_stage),
    ("evaluate", evaluate_stage),
    ("report", report_stage),
)
EVERY_TIME = ("report",)  # made anew from the records: cheap, and never behind them


def train(recipe: Recipe, *, out: Path, console: Console | None = None) -> list[Path]:
    """Only the training of the recipe itself, in this process: one of several when a launcher started them.

    Returns the checkpoints, one for each stage and seed.

    Raises:
        InputError: nothing to train, or a toy recipe under a launcher.
    """
    this = Run(recipe.model_copy(update={"variants": {}}), out, console or Console(stderr=True), 1)
    if not recipe.defend.stages:
        raise InputError("the recipe has no stages to train", where=recipe.name, fix="set defend.stages")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and recipe.data is None:
        raise InputError("the toy world trains its seeds in processes of its own", where=recipe.name,
                         fix="use videosafety run, without a launcher")  # fmt: skip
    for stage in () if several else (benchmark_stage, base_stage, training_stage):
        stage(this)
    for level in this.steps:
        for step in level:
            with _bars(this, [step.name], "training", total=None) as update:
                train_step(step, report=partial(update, step.name))
    return [step.out for level in this.steps for step in level]


def run(recipe: Recipe, *, out: Path, console: Console | None = None, workers: int | None = None) -> int:
    """Run every stage that is not done yet; returns the exit code of the evaluation.

    Raises:
        InputError: ``out`` holds a run of another recipe.
        CheckpointError, StorageError: a checkpoint does not load; the disk is full.
    """
    this = Run(recipe, out, console or Console(stderr=True), workers or len(os.sched_getaffinity(0)))
    book = Book.open(out, name=recipe.name, seeds=recipe.seeds, recipe=recipe.model_dump(mode="json"))
    for name, stage in STAGES:
        if name in EVERY_TIME or not book.finished(name):
            with book.stage(name):
                stage(this)
    return exit_code([one.out for one in this.answerings])
